import os
import signal
from typing import Any

from sagaz import Saga, action
from sagaz.core.triggers import trigger

Context = dict[str, Any]


class PoisonSaga(Saga):
    saga_name = "poison"

    @trigger(source="poison.take", idempotency_key="name")
    def on_take(self, event: Context) -> Context:
        return event

    @action("taste")
    def taste(self, _ctx: Context) -> Context:
        return {"tasted": True}

    @action("swallow", depends_on=["taste"])
    async def swallow(self, _ctx: Context) -> Context:
        """Whoever runs it dies of it."""
        os.kill(os.getpid(), signal.SIGKILL)
        return {}
