"""Simulate a payment provider for development, with a ledger table of its own: simulated://.

Options, in the URL's query: `limit` (above, a charge is declined; 1000), `delay` (seconds per
call), and shares of all calls, 0 to 1: `fail` (an error before anything happens), `lose` (the
effect happens, the answer is lost), `stall` (the answer takes 30 seconds).
"""

import random
import time
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation

from django.core.exceptions import ImproperlyConfigured
from django.db import IntegrityError, transaction

from orders.errors import PaymentDeclined, PaymentUnavailable
from orders.models import LedgerStatus, SimulatedCharge
from saga_runtime.round_trips import run_together, this_moment

STALL_SECONDS = 30.0
_CHARGE = """
INSERT INTO orders_simulatedcharge (key, reference, amount, status, created_at)
VALUES (%s, %s, %s, %s, %s) ON CONFLICT (key) DO NOTHING RETURNING status
"""
_OPTIONS = {"limit": "1000", "delay": "0", "fail": "0", "lose": "0", "stall": "0"}


class SimulatedGateway:
    """Charge and refund in the table of SimulatedCharge.

    Args:
        limit: the largest amount not declined.
        delay: seconds per call.
        fail: share of calls that fail before anything happens.
        lose: share of calls whose answer is lost.
        stall: share of calls whose answer takes 30 seconds.
        chance: draws a number from 0 to 1.
        sleep: pauses for seconds.
    """

    def __init__(
        self,
        *,
        limit: Decimal = Decimal(1000),
        delay: float = 0,
        fail: float = 0,
        lose: float = 0,
        stall: float = 0,
        chance: Callable[[], float] = random.random,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._limit = limit
        self._delay = delay
        self._fail = fail
        self._lose = lose
        self._stall = stall
        self._chance = chance
        self._sleep = sleep

    @classmethod
    def from_options(cls, options: Mapping[str, str]) -> "SimulatedGateway":
        """Make a gateway from a URL's options.

        Raises:
            ImproperlyConfigured: an option is unknown, no number, or out of range.
        """
        unknown = sorted(set(options) - set(_OPTIONS))
        if unknown:
            known = ", ".join(_OPTIONS)
            raise ImproperlyConfigured(
                f"PAYMENT_GATEWAY_URL: simulated:// has no option {unknown[0]!r}; use {known}"
            )
        try:
            values = {name: Decimal(options.get(name, value)) for name, value in _OPTIONS.items()}
        except InvalidOperation as error:
            raise ImproperlyConfigured(
                "PAYMENT_GATEWAY_URL: the options of simulated:// are numbers"
            ) from error
        limit = values.pop("limit")
        if not all(value.is_finite() and value >= 0 for value in (limit, *values.values())):
            raise ImproperlyConfigured(
                "PAYMENT_GATEWAY_URL: the options of simulated:// are not negative and finite"
            )
        if any(values[share] > 1 for share in ("fail", "lose", "stall")):
            raise ImproperlyConfigured(
                "PAYMENT_GATEWAY_URL: fail, lose and stall are shares of all calls, 0 to 1"
            )
        return cls(
            limit=limit,
            delay=float(values["delay"]),
            fail=float(values["fail"]),
            lose=float(values["lose"]),
            stall=float(values["stall"]),
        )

    def charge(self, *, key: str, reference: str, amount: Decimal) -> str:
        """Enter a charge in the ledger; a known key gets its answer again."""
        self._simulate_request()
        # A known key gets its answer again, even where the limit was lowered meanwhile.
        if amount > self._limit and not SimulatedCharge.objects.filter(key=key).exists():
            raise PaymentDeclined(f"payment declined: {amount} exceeds the limit of {self._limit}")
        status = _enter_charge(key, reference, amount) or _status_of(key)
        self._simulate_answer()
        if status != LedgerStatus.CHARGED:
            raise PaymentDeclined(f"payment declined: the key {key} is closed")
        return f"TXN-{reference}"

    def refund(
        self,
        *,
        key: str,  # noqa: ARG002
        charge_key: str,
        reference: str,
        amount: Decimal,  # noqa: ARG002
    ) -> None:
        """Refund a charge in the ledger, or close its key."""
        self._simulate_request()
        with transaction.atomic():
            row, _ = SimulatedCharge.objects.select_for_update().get_or_create(
                key=charge_key, defaults={"reference": reference, "status": LedgerStatus.CLOSED}
            )
            if row.status == LedgerStatus.CHARGED:
                row.status = LedgerStatus.REFUNDED
                row.save(update_fields=["status"])
        self._simulate_answer()

    def _simulate_request(self) -> None:
        """Delay the call, or fail before anything happens."""
        self._sleep(self._delay)
        if self._chance() < self._fail:
            raise PaymentUnavailable("the simulated gateway was told to fail")

    def _simulate_answer(self) -> None:
        """Stall or lose the answer."""
        if self._chance() < self._stall:
            self._sleep(STALL_SECONDS)
        if self._chance() < self._lose:
            raise PaymentUnavailable("the simulated gateway was told to lose its answer")


def _enter_charge(key: str, reference: str, amount: Decimal) -> str | None:
    """Insert a charge, in one statement; return the status, or None where the key is known."""
    # No lock and no look before: of two charges with one key the second waits for the first one's
    # commit, and inserts nothing.
    charge = [key, reference, str(amount), LedgerStatus.CHARGED.value, this_moment()]
    try:
        [rows] = run_together((_CHARGE, charge))
    except IntegrityError:
        # Two that come at the same moment: the second may meet the first one's reference, which may
        # be charged once only, before it meets the key.
        if not SimulatedCharge.objects.filter(key=key).exists():
            raise
        return None
    return rows[0][0] if rows else None


def _status_of(key: str) -> str:
    """Look up the status of a known charge."""
    return SimulatedCharge.objects.values_list("status", flat=True).get(key=key)
