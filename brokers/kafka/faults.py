"""Sort every error code of Kafka's protocol by whose fault the error is, for both clients.

The codes come from Apache Kafka 4.1, `org.apache.kafka.common.protocol.Errors`, and are sorted for
a client that publishes or receives. A code for different requests only (an administrator's, a
broker's) counts as our fault: our request was wrong.
"""

from enum import Enum


class Fault(Enum):
    """Whose fault an error code is, and the consequence for the message."""

    MESSAGE = "message"
    """The message will never be taken: parked, once refused in a batch of its own."""
    TOPIC = "topic"
    """The topic takes or gives out nothing until the topic is changed: its messages wait."""
    OURS = "ours"
    """Our settings, rights, packages or clock are wrong, and time does not heal that: all messages
    wait, and the error is named."""
    BROKER = "broker"
    """The broker cannot take messages at the moment: an outage."""


_CODES: dict[Fault, dict[int, str]] = {
    Fault.MESSAGE: {
        3: "UNKNOWN_TOPIC_OR_PARTITION",
        10: "MESSAGE_TOO_LARGE",
        17: "INVALID_TOPIC_EXCEPTION",
        18: "RECORD_LIST_TOO_LARGE",
        44: "POLICY_VIOLATION",  # in answer to a message, from brokers with rules for content
        87: "INVALID_RECORD",
    },
    Fault.TOPIC: {
        29: "TOPIC_AUTHORIZATION_FAILED",
        36: "TOPIC_ALREADY_EXISTS",
        37: "INVALID_PARTITIONS",
        38: "INVALID_REPLICATION_FACTOR",
        39: "INVALID_REPLICA_ASSIGNMENT",
        40: "INVALID_CONFIG",
        43: "UNSUPPORTED_FOR_MESSAGE_FORMAT",
        73: "TOPIC_DELETION_DISABLED",
        86: "GROUP_SUBSCRIBED_TO_TOPIC",
    },
    Fault.OURS: {
        4: "INVALID_FETCH_SIZE",
        12: "OFFSET_METADATA_TOO_LARGE",
        21: "INVALID_REQUIRED_ACKS",
        23: "INCONSISTENT_GROUP_PROTOCOL",
        24: "INVALID_GROUP_ID",
        26: "INVALID_SESSION_TIMEOUT",
        28: "INVALID_COMMIT_OFFSET_SIZE",
        30: "GROUP_AUTHORIZATION_FAILED",
        31: "CLUSTER_AUTHORIZATION_FAILED",
        32: "INVALID_TIMESTAMP",
        33: "UNSUPPORTED_SASL_MECHANISM",
        34: "ILLEGAL_SASL_STATE",
        35: "UNSUPPORTED_VERSION",
        42: "INVALID_REQUEST",
        50: "INVALID_TRANSACTION_TIMEOUT",
        53: "TRANSACTIONAL_ID_AUTHORIZATION_FAILED",
        54: "SECURITY_DISABLED",
        58: "SASL_AUTHENTICATION_FAILED",
        61: "DELEGATION_TOKEN_AUTH_DISABLED",
        62: "DELEGATION_TOKEN_NOT_FOUND",
        63: "DELEGATION_TOKEN_OWNER_MISMATCH",
        64: "DELEGATION_TOKEN_REQUEST_NOT_ALLOWED",
        65: "DELEGATION_TOKEN_AUTHORIZATION_FAILED",
        66: "DELEGATION_TOKEN_EXPIRED",
        67: "INVALID_PRINCIPAL_TYPE",
        68: "NON_EMPTY_GROUP",
        69: "GROUP_ID_NOT_FOUND",
        76: "UNSUPPORTED_COMPRESSION_TYPE",
        81: "GROUP_MAX_SIZE_REACHED",
        85: "NO_REASSIGNMENT_IN_PROGRESS",
        91: "RESOURCE_NOT_FOUND",
        92: "DUPLICATE_RESOURCE",
        93: "UNACCEPTABLE_CREDENTIAL",
        94: "INCONSISTENT_VOTER_SET",
        95: "INVALID_UPDATE_VERSION",
        96: "FEATURE_UPDATE_FAILED",
        98: "SNAPSHOT_NOT_FOUND",
        99: "POSITION_OUT_OF_RANGE",
        101: "DUPLICATE_BROKER_REGISTRATION",
        102: "BROKER_ID_NOT_REGISTERED",
        104: "INCONSISTENT_CLUSTER_ID",
        105: "TRANSACTIONAL_ID_NOT_FOUND",
        112: "UNSUPPORTED_ASSIGNOR",
        114: "MISMATCHED_ENDPOINT_TYPE",
        115: "UNSUPPORTED_ENDPOINT_TYPE",
        116: "UNKNOWN_CONTROLLER_ID",
        117: "UNKNOWN_SUBSCRIPTION_ID",
        118: "TELEMETRY_TOO_LARGE",
        119: "INVALID_REGISTRATION",
        121: "INVALID_RECORD_STATE",
        122: "SHARE_SESSION_NOT_FOUND",
        123: "INVALID_SHARE_SESSION_EPOCH",
        124: "FENCED_STATE_EPOCH",
        125: "INVALID_VOTER_KEY",
        126: "DUPLICATE_VOTER",
        127: "VOTER_NOT_FOUND",
        128: "INVALID_REGULAR_EXPRESSION",
        130: "STREAMS_INVALID_TOPOLOGY",
        131: "STREAMS_INVALID_TOPOLOGY_EPOCH",
        132: "STREAMS_TOPOLOGY_FENCED",
        133: "SHARE_SESSION_LIMIT_REACHED",
    },
    # Another try, another connection, a new producer or a new member puts these right.
    Fault.BROKER: {
        -1: "UNKNOWN_SERVER_ERROR",
        0: "NONE",
        1: "OFFSET_OUT_OF_RANGE",
        2: "CORRUPT_MESSAGE",  # on its way: what we send carries its checksum
        5: "LEADER_NOT_AVAILABLE",
        6: "NOT_LEADER_OR_FOLLOWER",
        7: "REQUEST_TIMED_OUT",
        8: "BROKER_NOT_AVAILABLE",
        9: "REPLICA_NOT_AVAILABLE",
        11: "STALE_CONTROLLER_EPOCH",
        13: "NETWORK_EXCEPTION",
        14: "COORDINATOR_LOAD_IN_PROGRESS",
        15: "COORDINATOR_NOT_AVAILABLE",
        16: "NOT_COORDINATOR",
        19: "NOT_ENOUGH_REPLICAS",
        20: "NOT_ENOUGH_REPLICAS_AFTER_APPEND",
        22: "ILLEGAL_GENERATION",
        25: "UNKNOWN_MEMBER_ID",
        27: "REBALANCE_IN_PROGRESS",
        41: "NOT_CONTROLLER",
        45: "OUT_OF_ORDER_SEQUENCE_NUMBER",
        46: "DUPLICATE_SEQUENCE_NUMBER",
        47: "INVALID_PRODUCER_EPOCH",
        48: "INVALID_TXN_STATE",
        49: "INVALID_PRODUCER_ID_MAPPING",
        51: "CONCURRENT_TRANSACTIONS",
        52: "TRANSACTION_COORDINATOR_FENCED",
        55: "OPERATION_NOT_ATTEMPTED",
        56: "KAFKA_STORAGE_ERROR",
        57: "LOG_DIR_NOT_FOUND",
        59: "UNKNOWN_PRODUCER_ID",
        60: "REASSIGNMENT_IN_PROGRESS",
        70: "FETCH_SESSION_ID_NOT_FOUND",
        71: "INVALID_FETCH_SESSION_EPOCH",
        72: "LISTENER_NOT_FOUND",
        74: "FENCED_LEADER_EPOCH",
        75: "UNKNOWN_LEADER_EPOCH",
        77: "STALE_BROKER_EPOCH",
        78: "OFFSET_NOT_AVAILABLE",
        79: "MEMBER_ID_REQUIRED",
        80: "PREFERRED_LEADER_NOT_AVAILABLE",
        82: "FENCED_INSTANCE_ID",
        83: "ELIGIBLE_LEADERS_NOT_AVAILABLE",
        84: "ELECTION_NOT_NEEDED",
        88: "UNSTABLE_OFFSET_COMMIT",
        89: "THROTTLING_QUOTA_EXCEEDED",
        90: "PRODUCER_FENCED",
        97: "PRINCIPAL_DESERIALIZATION_FAILURE",
        100: "UNKNOWN_TOPIC_ID",  # the topic was made again: the client asks for its new id
        103: "INCONSISTENT_TOPIC_ID",
        106: "FETCH_SESSION_TOPIC_ID_ERROR",
        107: "INELIGIBLE_REPLICA",
        108: "NEW_LEADER_ELECTED",
        109: "OFFSET_MOVED_TO_TIERED_STORAGE",
        110: "FENCED_MEMBER_EPOCH",
        111: "UNRELEASED_INSTANCE_ID",
        113: "STALE_MEMBER_EPOCH",
        120: "TRANSACTION_ABORTABLE",
        129: "REBOOTSTRAP_REQUIRED",
    },
}

_FAULTS = {code: fault for fault, codes in _CODES.items() for code in codes}

INVALID_TIMESTAMP = 32

_ADVICE = {
    29: "give our user the right to read and write the topic",
    30: "give our user the right to read the group",
    INVALID_TIMESTAMP: (
        "this machine's clock and the broker's differ by more than the topic allows by its "
        "message.timestamp.before.max.ms and message.timestamp.after.max.ms (an hour ahead, by "
        "default): set the clock"
    ),
    35: "this broker is too old for the Kafka client",
    53: "give our user the right to write with the transactional ids that begin with OUTBOX_SOURCE",
    58: "check user and password in SAGAZ_BROKER_URL",
    76: "set the topic's compression.type to one that the broker knows",
}


def fault_of_code(code: int) -> Fault:
    """Tell whose fault an error code is.

    A code newer than the table counts as ours: no message is parked, and the error is named.
    """
    return _FAULTS.get(code, Fault.OURS)


def known_codes() -> frozenset[int]:
    """List the codes in the table."""
    return frozenset(_FAULTS)


def with_advice(code: int, text: str) -> str:
    """Add to an error's text how to mend the error, where the code has such advice."""
    advice = _ADVICE.get(code)
    return f"{text}: {advice}" if advice else text
