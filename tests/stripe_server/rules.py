from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

Call = Literal["create", "confirm", "cancel", "retrieve", "search", "refund", "*"]
Misdeed = Literal["late", "slow", "lose", "drop", "fail", "break", "refuse", "hold", "bounce"]


@dataclass
class Rule:
    """One way to misbehave.

    Args:
        call: which calls it is about; `*` is every call.
        do: `late`: the answer comes after `seconds`; `slow`: the work takes `seconds`; `lose`: it
            happens, and the connection is closed instead of an answer; `drop`: the same, and
            nothing happens; `fail`: `status`, and nothing happens; `break`: it happens, and the
            key's answer is 500 for ever; `refuse`: the card is declined; `hold`: the confirmed
            payment stays processing; `bounce`: the refund has failed.
        share: of the calls, 0 to 1.
        times: how often it is applied; without it, always.
    """

    call: Call
    do: Misdeed
    share: float = 1.0
    times: int | None = None
    seconds: float = 1.0
    status: int = 500

    def __post_init__(self) -> None:
        if self.call not in get_args(Call) or self.do not in get_args(Misdeed):
            raise ValueError(f"there is no such rule: {self}")

    def applies(self, call: str, chance: Callable[[], float]) -> bool:
        if self.call not in (call, "*") or self.times == 0 or chance() >= self.share:
            return False
        if self.times is not None:
            self.times -= 1
        return True
