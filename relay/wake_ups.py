"""Hold the wake-ups of a relay."""

import threading


class WakeUps(threading.Event):
    """Be set when there is something new in the outbox.

    Attributes:
        are_heard: whether every commit to the outbox sets the event. While it does not, the relay
            has to look by itself.
    """

    are_heard = False
