"""Count commands of the inbox for Prometheus, as they are accepted or refused."""

from prometheus_client import Counter

ACCEPTED = Counter(
    "sagas_inbox_accepted", "Messages that the inbox has accepted, each once", registry=None
)
REFUSED = Counter("sagas_inbox_refused", "Messages that could not become a command", registry=None)
OUT_OF_ORDER = Counter(
    "sagas_inbox_out_of_order",
    "Messages accepted after a later one of their key",
    registry=None,
)
