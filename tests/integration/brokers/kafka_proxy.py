"""Stand between a Kafka and its clients."""

import asyncio
from contextlib import suppress

from tests.integration.tcp_proxy import TcpProxy


class KafkaProxy(TcpProxy):
    """Also puts its own port where the server gives its address, so that clients come back to it.
    What changes are four bytes behind the host's name."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__((host, port))
        self._advertised = host.encode() + port.to_bytes(4)
        self._host = host.encode()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        own = self._host + self.port.to_bytes(4)
        with suppress(OSError):
            while data := await reader.read(65_536):
                await self._flowing.wait()
                writer.write(data.replace(self._advertised, own))
                await writer.drain()


class SlowProxy(KafkaProxy):
    """Where it stalls, it still passes on the first words of each connection."""

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        own = self._host + self.port.to_bytes(4)
        is_first = True
        with suppress(OSError):
            while data := await reader.read(65_536):
                if not is_first:
                    await self._flowing.wait()
                is_first = False
                writer.write(data.replace(self._advertised, own))
                await writer.drain()
