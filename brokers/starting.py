"""Wait at start-up for a broker that is there, but slow."""

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

    Once a server has answered, its outages are waited for, as later while the process runs. Where
    no server has answered, the address may be wrong, and the caller should hear of that at once.

    Args:
        broker: the broker to reach.
        topics: their names, without the broker's prefix.
        pause: waits for a number of seconds.

    Raises:
        BrokerUnavailable: no server has answered.
        BrokerUnusable: a server answers, and time alone will not help.
        BrokerConfigurationError: a server refuses us.
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
