"""Count what a process sends to PostgreSQL, by a proxy between them that reads the protocol.

It counts for any process, whatever its code. It also slows the process, so it has no place in a
run whose time is measured.
"""

import asyncio
import re
import struct
import threading
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

import psycopg

_ENCRYPTION_REQUESTS = (80877103, 80877104)  # SSL, GSSAPI: answered with "no"
_CONTROL = re.compile(r"\s*(BEGIN|START|COMMIT|END|ROLLBACK)\b", re.IGNORECASE)


@dataclass(slots=True)
class Counts:
    """Count since the start.

    Attributes:
        statements: without BEGIN, COMMIT and ROLLBACK.
        round_trips: how often the server was waited for.
        transactions: with those that only read.
    """

    statements: int = 0
    round_trips: int = 0
    transactions: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.statements + other.statements,
            self.round_trips + other.round_trips,
            self.transactions + other.transactions,
        )

    def __sub__(self, other: "Counts") -> "Counts":
        return Counts(
            self.statements - other.statements,
            self.round_trips - other.round_trips,
            self.transactions - other.transactions,
        )

    def copy(self) -> "Counts":
        """Return the counts as they are now."""
        return self - Counts()


class WireCounter:
    """Stand between clients and PostgreSQL, for a `with` block.

    Args:
        url: the server's; `url` is then the one to give to clients.
    """

    def __init__(self, url: str) -> None:
        self.counts = Counts()
        self.url = url
        with psycopg.connect(url) as connection:
            self._host, self._server_port = connection.info.host, connection.info.port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        starting = asyncio.start_server(self._serve, "127.0.0.1", 0)
        server = asyncio.run_coroutine_threadsafe(starting, self._loop).result()
        port = server.sockets[0].getsockname()[1]
        parts = urlsplit(self.url)
        user = parts.netloc.rpartition("@")[0]
        address = f"{user}@127.0.0.1:{port}" if user else f"127.0.0.1:{port}"
        self.url = parts._replace(netloc=address, query="").geturl()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(_cancel_others(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass messages on in both directions until either side has gone."""
        from_server, to_server = await self._connect()
        try:
            await _pass_startup(reader, writer, to_server)
            await asyncio.gather(
                self._pass_requests(reader, to_server), self._pass_answers(from_server, writer)
            )
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # one side has closed, or the block ends; the other is closed below
        finally:
            to_server.close()
            writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._host.startswith("/"):
            return await asyncio.open_unix_connection(f"{self._host}/.s.PGSQL.{self._server_port}")
        return await asyncio.open_connection(self._host, self._server_port)

    async def _pass_requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        prepared: dict[bytes, int] = {}
        bound: dict[bytes, int] = {}
        while True:
            kind, body = await _message(reader, writer)
            if kind == b"Q":
                self.counts.statements += how_many(body)
            elif kind == b"P":
                name, _, rest = body.partition(b"\0")
                prepared[name] = how_many(rest.partition(b"\0")[0])
            elif kind == b"B":
                portal, _, rest = body.partition(b"\0")
                bound[portal] = prepared.get(rest.partition(b"\0")[0], 1)
            elif kind == b"E":
                self.counts.statements += bound.get(body.partition(b"\0")[0], 1)

    async def _pass_answers(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        completed = False
        while True:
            kind, body = await _message(reader, writer)
            if kind in (b"C", b"I"):  # a statement is complete, or an empty one
                completed = True
            elif kind == b"Z":  # ready for the next one
                self.counts.round_trips += 1
                self.counts.transactions += completed and body == b"I"  # in no transaction
                completed = False


async def _cancel_others() -> None:
    """Cancel all connections, and wait until each is closed."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


async def _pass_startup(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, to_server: asyncio.StreamWriter
) -> None:
    """Pass the first message on, which has no type, and refuse encryption before it."""
    while True:
        head = await reader.readexactly(8)
        length, code = struct.unpack("!II", head)
        if code not in _ENCRYPTION_REQUESTS:
            to_server.write(head + await reader.readexactly(length - 8))
            return
        writer.write(b"N")


async def _message(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> tuple[bytes, bytes]:
    """Pass a message on; return its type and its content."""
    head = await reader.readexactly(5)
    body = await reader.readexactly(struct.unpack("!I", head[1:])[0] - 4)
    writer.write(head + body)
    return head[:1], body


def how_many(text: bytes) -> int:
    """Count the statements in a text, without those that begin and end transactions."""
    parts = text.rstrip(b"\0").decode(errors="replace").split(";")
    return sum(1 for part in parts if part.strip() and not _CONTROL.match(part))
