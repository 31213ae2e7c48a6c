"""Take payments through Stripe's own package: stripe://.

A charge is two calls: a PaymentIntent is created under the key, which moves no money, and is then
confirmed. So an undo has something to hold on to: creating once more under the same key yields the
intent's id, and a cancelled intent refuses every later confirm. docs/payments.md has the rest.

Options, in the URL's query: `currency` (eur) and `payment_method` (pm_card_visa, for test mode).
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from urllib.parse import urlsplit

import stripe
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from orders.errors import PaymentDeclined, PaymentUnavailable

_OPTIONS = {"currency": "eur", "payment_method": "pm_card_visa"}
# Amounts have two decimals; of these currencies Stripe takes whole units only, or three decimals.
_OTHER_DECIMALS = (
    "bif clp djf gnf isk jpy kmf krw mga pyg rwf ugx vnd vuv xaf xof xpf "  # whole units
    "bhd jod kwd omr tnd"
)
_REFUSED_AMOUNTS = frozenset({"amount_too_small", "amount_too_large"})


class StripeGateway:
    """Charge and refund by PaymentIntents.

    Args:
        client: made by Stripe's package; connects on use.
        currency: three letters; must be a currency with two decimals.
        payment_method: Stripe's id of the method to charge.
    """

    def __init__(
        self,
        client: stripe.StripeClient,
        *,
        currency: str = _OPTIONS["currency"],
        payment_method: str = _OPTIONS["payment_method"],
    ) -> None:
        self._intents = client.v1.payment_intents
        self._refunds = client.v1.refunds
        self._currency = currency
        self._payment_method = payment_method

    @classmethod
    def from_options(cls, options: Mapping[str, str]) -> "StripeGateway":
        """Make a gateway from a URL's options and the settings.

        Raises:
            ImproperlyConfigured: an option is unknown or has no usable value, or a setting is
                missing.
        """
        unknown = sorted(set(options) - set(_OPTIONS))
        if unknown:
            raise ImproperlyConfigured(
                f"PAYMENT_GATEWAY_URL: stripe:// has no option {unknown[0]!r}; "
                f"use {', '.join(_OPTIONS)}"
            )
        values = {**_OPTIONS, **options}
        currency = values["currency"].lower()
        if not (currency.isascii() and currency.isalpha() and len(currency) == 3):  # noqa: PLR2004
            raise ImproperlyConfigured(
                "PAYMENT_GATEWAY_URL: currency is a code of three letters, such as eur"
            )
        if currency in _OTHER_DECIMALS.split():
            raise ImproperlyConfigured(
                f"PAYMENT_GATEWAY_URL: amounts have two decimals, and {currency} has not"
            )
        if not values["payment_method"]:
            raise ImproperlyConfigured("PAYMENT_GATEWAY_URL: payment_method is empty")
        return cls(_client(), currency=currency, payment_method=values["payment_method"])

    def charge(self, *, key: str, reference: str, amount: Decimal) -> str:
        """Create the key's intent, and confirm it."""
        with _errors_as_unavailable():
            try:
                intent = self._create(key=key, reference=reference, amount=amount)
            except stripe.InvalidRequestError as error:
                if error.code not in _REFUSED_AMOUNTS:
                    raise
                raise PaymentDeclined(f"payment declined: {_message_of(error)}") from error
            return self._confirm(intent.id, key=f"{key}:confirm")

    def refund(self, *, key: str, charge_key: str, reference: str, amount: Decimal) -> None:
        """Find the charge's intent, and cancel it or give the money back."""
        with _errors_as_unavailable():
            try:
                intent = self._create(key=charge_key, reference=reference, amount=amount)
            except stripe.IdempotencyError:
                # The key was used with other content, say before the currency was changed.
                if not self._undo_by_search(charge_key, key=key):
                    raise
            except stripe.StripeError as error:
                if not _is_final(error):
                    raise
                self._undo_by_search(charge_key, key=key)
            else:
                if not self._undo(intent.id, key=key):
                    # Never charged; or Stripe has forgotten the key, as may happen after a day,
                    # and has just made a second intent beside the charged one.
                    self._undo_by_search(charge_key, key=key, besides=intent.id)

    def _create(self, *, key: str, reference: str, amount: Decimal) -> stripe.PaymentIntent:
        """Create the key's intent, or get its first state again."""
        return self._intents.create(
            {
                "amount": int(amount.scaleb(2).to_integral_exact()),
                "currency": self._currency,
                "allowed_payment_method_types": ["card"],
                "metadata": {"order": reference, "charge_key": key},
            },
            {"idempotency_key": key},
        )

    def _confirm(self, intent_id: str, *, key: str) -> str:
        """Take the money, once.

        Returns:
            The intent's id.
        """
        try:
            intent = self._intents.confirm(
                intent_id,
                # No person is there to answer the bank's questions.
                {"payment_method": self._payment_method, "error_on_requires_action": True},
                {"idempotency_key": key},
            )
        except stripe.CardError as error:
            raise PaymentDeclined(f"payment declined: {_message_of(error)}") from error
        except (stripe.InvalidRequestError, stripe.APIError):
            # The key repeats this answer for ever; the intent itself has the present state.
            if not self._is_charged(intent_id):
                raise
            return intent_id
        if intent.status == "succeeded" and not _is_replayed(intent):
            return intent_id
        if not self._is_charged(intent_id):
            raise PaymentUnavailable(f"Stripe is still at work on {intent_id}")
        return intent_id

    def _is_charged(self, intent_id: str) -> bool:
        """Tell whether the money has been taken.

        Raises:
            PaymentDeclined: the intent is cancelled, or the money was given back.
        """
        intent = self._retrieve(intent_id)
        if intent.status == "canceled" or _is_refunded(intent):
            raise PaymentDeclined(f"payment declined: {intent_id} is closed")
        return intent.status == "succeeded"

    def _undo(self, intent_id: str, *, key: str) -> bool:
        """Cancel the intent or give the money back.

        The cancel decides, whatever happens at the same time: either no confirm follows, or the
        cancel is refused because of an earlier confirm.

        Returns:
            Whether money had been taken.
        """
        try:
            self._intents.cancel(intent_id)
        except stripe.InvalidRequestError:
            intent = self._retrieve(intent_id)
            if intent.status == "succeeded":
                self._give_back(intent, key=f"{key}:{intent_id}")
                return True
            if intent.status != "canceled":
                raise
        return False

    def _give_back(self, intent: stripe.PaymentIntent, *, key: str) -> None:
        """Refund an intent in full, unless that has happened."""
        if _is_refunded(intent):
            return
        try:
            refund = self._refunds.create({"payment_intent": intent.id}, {"idempotency_key": key})
        except stripe.InvalidRequestError as error:
            if error.code != "charge_already_refunded":
                raise
        else:
            if refund.status in {"failed", "canceled"}:
                raise PaymentUnavailable(f"Stripe: the refund of {intent.id} has {refund.status}")

    def _undo_by_search(self, charge_key: str, *, key: str, besides: str = "") -> int:
        """Undo all intents that Stripe's search finds by a charge's key.

        Args:
            charge_key: stands in the intents' metadata.
            key: the refund's idempotency key.
            besides: the id of an intent to be left alone.

        Returns:
            How many intents were found.
        """
        quoted = charge_key.replace("\\", "\\\\").replace("'", "\\'")
        found = self._intents.search({"query": f"metadata['charge_key']:'{quoted}'"}).data
        for intent in found:
            if intent.id != besides:
                self._undo(intent.id, key=key)
        return len(found)

    def _retrieve(self, intent_id: str) -> stripe.PaymentIntent:
        """Fetch an intent's present state, with its latest charge."""
        return self._intents.retrieve(intent_id, {"expand": ["latest_charge"]})


def _client() -> stripe.StripeClient:
    """Make Stripe's client from the settings; nothing is connected yet."""
    key = settings.STRIPE_API_KEY.strip()
    if not key:
        raise ImproperlyConfigured("PAYMENT_GATEWAY_URL is stripe://, which needs STRIPE_API_KEY")
    base = urlsplit(settings.STRIPE_API_BASE)
    if base.scheme not in {"http", "https"} or not base.hostname or base.query:
        raise ImproperlyConfigured("STRIPE_API_BASE is no URL such as https://api.stripe.com")
    timeout = settings.STRIPE_TIMEOUT
    if not (math.isfinite(timeout) and timeout > 0):
        raise ImproperlyConfigured("STRIPE_TIMEOUT is a number of seconds above 0")
    # Telemetry would send details of this machine, and keep a file in the user's home.
    stripe.enable_telemetry = False
    return stripe.StripeClient(
        key,
        base_addresses={"api": settings.STRIPE_API_BASE.rstrip("/")},
        max_network_retries=0,  # the saga retries, and journals each attempt
        http_client=stripe.RequestsClient(timeout=(timeout, timeout)),
    )


@contextmanager
def _errors_as_unavailable() -> Iterator[None]:
    """Raise PaymentUnavailable for every other error: an earlier attempt may have charged."""
    try:
        yield
    except stripe.StripeError as error:
        raise PaymentUnavailable(_explain(error)) from error


def _explain(error: stripe.StripeError) -> str:
    """Say what happened, and what to mend where only a person can."""
    match error:
        case stripe.AuthenticationError() | stripe.PermissionError():
            return f"Stripe refuses STRIPE_API_KEY: {_message_of(error)}"
        case stripe.IdempotencyError():
            return f"Stripe: has the currency in PAYMENT_GATEWAY_URL changed? {_message_of(error)}"
        case stripe.InvalidRequestError():
            return f"Stripe refuses the request: {_message_of(error)}"
        case stripe.APIConnectionError():
            return f"Stripe did not answer: {type(error.__cause__).__name__}"
    return f"Stripe gave no usable answer ({error.http_status}): {_message_of(error)}"


def _message_of(error: stripe.StripeError) -> str:
    return error.user_message or "no message"


def _is_final(error: stripe.StripeError) -> bool:
    """Tell whether no intent can ever exist under the key, and so none be confirmed.

    Either Stripe never takes the amount, or Stripe repeats the key's failure as long as it knows
    the key.
    """
    return error.code in _REFUSED_AMOUNTS or _says_replayed(error.headers)


def _is_replayed(intent: stripe.PaymentIntent) -> bool:
    response = intent.last_response
    return response is not None and _says_replayed(response.headers)


def _says_replayed(headers: Mapping[str, str] | None) -> bool:
    return (headers or {}).get("Idempotent-Replayed", "").lower() == "true"


def _is_refunded(intent: stripe.PaymentIntent) -> bool:
    charge = intent.latest_charge
    return isinstance(charge, stripe.Charge) and charge.refunded
