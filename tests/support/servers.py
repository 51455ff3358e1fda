# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Small servers that misbehave in ways that the simulator cannot, and proxies."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

SUCCESS = '{"code": "WA-200", "message": "Request Processed Successfully", "data": {"success": true}, "error": {}}'


class Servers:
    """Any number of servers in one thread of the test's process, ended by ``with`` or with the process."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._listening: list[asyncio.AbstractServer] = []
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def start(self, handler: Handler, *, host: str = "127.0.0.1", certificate: Path | None = None) -> int:
        """Serve every connection with the handler, and return the port."""
        context = None
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                # Clients that have seen enough just go.
                with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                    await handler(reader, writer)
            finally:
                writer.close()

        starting = asyncio.run_coroutine_threadsafe(asyncio.start_server(serve, host, 0, ssl=context), self._loop)
        server = starting.result(10)
        self._listening.append(server)
        port: int = server.sockets[0].getsockname()[1]
        return port

    def __enter__(self) -> Servers:
        return self

    def __exit__(self, *dummy: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        for server in self._listening:
            server.close()
        handlers = asyncio.all_tasks() - {asyncio.current_task()}
        for handler in handlers:
            handler.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)
        await asyncio.sleep(0)  # for the connections to be closed


class MisbehavingServer:
    """Answers each connection's first request with the same bytes.

    :ivar requests: what came, headers and body
    """

    host = "127.0.0.1"

    def __init__(self, servers: Servers, answer: bytes, certificate: Path | None = None) -> None:
        self.requests: list[bytes] = []
        self._answer = answer
        self.port = servers.start(self._handle, certificate=certificate)

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readexactly(1)
        if request != b"\x16":  # a TLS handshake: no blank line ends it
            head, body = await read_request(reader)
            request += head.encode("latin-1") + body
        self.requests.append(request)
        writer.write(self._answer)
        await writer.drain()


async def read_request(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    """Head and body of the next request; IncompleteReadError if none comes."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    length = next((int(line[15:]) for line in head.lower().split("\r\n") if line.startswith("content-length:")), 0)
    return head, await reader.readexactly(length)


def whole(status: str, body: str = SUCCESS) -> bytes:
    """An answer as the API would send it."""
    return f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


class Answering:
    """Says yes to every request, and takes down what it was sent."""

    def __init__(self) -> None:
        self.requests: list[str] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head, body = await read_request(reader)
            self.requests.append(head + body.decode("latin-1"))
            writer.write(whole("200 OK"))
            await writer.drain()


async def saying_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Takes what comes, and stays silent."""
    while await reader.read(65536):
        pass


async def speaking_plain_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Takes a TLS handshake for a bad request, as web servers do."""
    await reader.read(65536)
    writer.write(whole("400 Bad Request", "<html>speak HTTP</html>"))
    await writer.drain()


async def hanging_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Closes after the first bytes, of a TLS handshake for example."""
    await reader.read(1)


class Proxy:
    """A forward proxy: tunnels (CONNECT) and plain requests. Whatever a client sends to it is taken down.

    :param refusal: status line that everything gets
    :param credentials: user and password that it wants
    :param places: host -> port on this machine that stands for it
    """

    def __init__(self, refusal: str | None = None, credentials: str | None = None, places: Mapping[str, int] | None = None) -> None:
        self.heads: list[str] = []
        self.received = bytearray()
        self._refusal = refusal
        self._credentials = credentials
        self._places = places or {}

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head, body = await read_request(reader)
        self.heads.append(head)
        self.received += head.encode("latin-1") + body
        method, target, dummy = head.split(" ", 2)
        lines = head.split("\r\n")[1:]
        refusal = self._refusal
        if self._credentials:
            wanted = base64.b64encode(self._credentials.encode()).decode()
            if f"Proxy-Authorization: Basic {wanted}" not in lines:
                refusal = "407 Proxy Authentication Required"
        if refusal:
            writer.write(whole(refusal, "<html>the proxy says no</html>"))
            await writer.drain()
            return
        parts = urlsplit(f"//{target}" if method == "CONNECT" else target)
        place = self._places.get(parts.hostname or "")
        try:
            far_reader, far_writer = await (
                asyncio.open_connection("127.0.0.1", place) if place else asyncio.open_connection(parts.hostname, parts.port or 80)
            )
        except OSError:
            writer.write(whole("502 Bad Gateway", "<html>the proxy cannot connect</html>"))
            await writer.drain()
            return
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            # One request a connection, as that is all there is to forward.
            kept = [line for line in lines if line and not line.lower().startswith(("proxy-", "connection:"))]
            far_writer.write("\r\n".join([f"{method} {parts.path} HTTP/1.1", *kept, "Connection: close", "", ""]).encode() + body)
        try:
            await asyncio.gather(_pump(reader, far_writer, self.received), _pump(far_reader, writer))
        finally:
            far_writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, copy: bytearray | None = None) -> None:
    while data := await reader.read(65536):
        if copy is not None:
            copy += data
        writer.write(data)
        await writer.drain()
    writer.close()


def leading_to(port: int) -> Handler:
    """Hands everything on to a server of this machine: with a certificate, that one is reached by TLS under another name."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
        finally:
            far_writer.close()

    return handle


@contextlib.contextmanager
def full_queue() -> Iterator[int]:
    """Port of a socket that listens, but whose queue is full: connecting to it takes for ever, without any privilege."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for dummy in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                waiting.connect(listening.getsockname())
        yield listening.getsockname()[1]


@contextlib.contextmanager
def closed_port() -> Iterator[int]:
    """A port that is taken, so that nobody else gets it, but where nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]
