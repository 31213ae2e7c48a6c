"""Waiting at start-up for a broker that is there, but slow."""

import time
from collections.abc import Callable, Sequence

from brokers.base import Broker
from brokers.errors import BrokerSlow, BrokerUnavailable, BrokerUnusable
from saga_runtime.logs import get_logger
from saga_runtime.outage import Outage

logger = get_logger(__name__)


def await_broker(
    broker: Broker, *, topics: Sequence[str], pause: Callable[[float], object] = time.sleep
) -> None:
    """Reach the broker and create the topics that are missing.

    Whoever answers once is waited for from then on, as in every later outage. An address where
    nobody answers may be wrong, and whoever started this can mend that.

    Args:
        broker: whom to reach.
        topics: their names, without the broker's prefix.
        pause: waits that many seconds.

    Raises:
        BrokerUnavailable: nobody has answered.
        BrokerUnusable: somebody answers, and time alone will not help.
        BrokerConfigurationError: it answers, but not to us.
    """
    outage = Outage(f"the broker {broker.name}", logger=logger)
    has_answered = False
    while True:
        try:
            if not has_answered:
                broker.check()
                has_answered = True
            broker.ensure_topics(topics)
        except BrokerUnusable:
            raise
        except BrokerUnavailable as error:
            has_answered = has_answered or isinstance(error, BrokerSlow)
            if not has_answered:
                raise
            pause(outage.failed(error))
        else:
            outage.over()
            return
