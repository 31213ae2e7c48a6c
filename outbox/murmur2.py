"""Hash a key with murmur2, as Kafka's Java client does to choose a partition.

Source: Austin Appleby's MurmurHash2 with Kafka's seed 0x9747b28c; the result is made positive by
masking the sign, as Kafka's `Utils.toPositive` does.
"""

_SEED = 0x9747B28C
_M = 0x5BD1E995
_MASK = 0xFFFFFFFF


def murmur2(data: bytes) -> int:
    """Hash bytes.

    Returns:
        0 to 2**31 - 1.
    """
    hashed = _SEED ^ len(data)
    whole = len(data) & ~3  # bytes in whole words of four
    for start in range(0, whole, 4):
        k = int.from_bytes(data[start : start + 4], "little") * _M & _MASK
        k = (k ^ k >> 24) * _M & _MASK
        hashed = (hashed * _M & _MASK) ^ k
    if whole < len(data):
        hashed = (hashed ^ int.from_bytes(data[whole:], "little")) * _M & _MASK
    hashed = (hashed ^ hashed >> 13) * _M & _MASK
    return (hashed ^ hashed >> 15) & 0x7FFFFFFF
