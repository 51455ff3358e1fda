# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The server: the APIs themselves, and under `/_simulator/` what steers and inspects them.

| request | meaning |
|---|---|
| `GET /_simulator/state` | what is registered, the last 10,000 API requests, counts of requests and connections, and what limits did |
| `GET /_simulator/count` | `request_count` alone, cheap |
| `DELETE /_simulator/state` | forget everything, faults and settings too |
| `PUT /_simulator/faults` | replace the faults, see `_faults` |
| `PUT /_simulator/throttling` | limit the rate of accounts: SID -> limit, see `_throttling` |
| `PUT /_simulator/settings` | change settings of reading back, see `_held` |
| `PUT /_simulator/held` | change what numbers carry: number -> PEM, `{"pem": ..., "status": ...}`, or null for none |

Everything lives in memory and in one thread; a restart forgets it, unless what is registered is handed on.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import sys
import time
import weakref
from collections import Counter, deque
from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn
from urllib.parse import urlencode

from aiohttp import web

from . import _faults, _held, _rules, _throttling

STEERING = "/_simulator/"
MAX_REMEMBERED = 10_000
# More than any sane request; what is longer is a payload error, like every body that is not the form.
_MAX_BODY = 2**20
# Of a body that is kept for inspection. A right one has less than 1,000 bytes.
_MAX_KEPT_BODY = 2**16


class _NoAnswer(asyncio.CancelledError):
    """Raised in a handler to end its connection without an answer.

    aiohttp takes it for the request's cancellation: it sends what is still buffered, closes, and logs nothing.
    """


class _Registration(NamedTuple):
    key: _rules.PublicKey
    times: int


class _Seen(NamedTuple):
    """An API request as it was. Headers and body are turned into text only when somebody asks."""

    sid: str | None
    phone_number: str | None
    status: int | None
    code: str | None
    fingerprint: str | None
    headers: Mapping[str, str]
    body: bytes
    path: str
    method: str

    def document(self) -> dict[str, Any]:
        headers: dict[str, str] = {}
        for as_sent, value in self.headers.items():
            name = as_sent.lower()
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        # latin-1 gives one character for each byte, whatever the bytes are.
        return {**self._asdict(), "headers": headers, "body": self.body.decode("latin-1")}


class Handler:
    """The API's behaviour over HTTP, and all of its state.

    `latency` in seconds is added to every API answer, faults included. With `log`, each API request prints a line
    without secrets on stderr.
    """

    def __init__(self, accounts: Mapping[str, _rules.Account], *, latency: float = 0.0, log: bool = False) -> None:
        self._accounts = accounts
        self._latency = latency
        self._log = log
        self._orders = _faults.Orders()
        self._forget()

    def _forget(self) -> None:
        self._orders.replace({})
        self._registered: dict[str, dict[str, _Registration]] = {}
        self._requests: deque[_Seen] = deque(maxlen=MAX_REMEMBERED)
        self._request_count = 0
        self._connection_count = 0
        self._methods: dict[str, Counter[str]] = {}
        self._settings = _held.Settings()
        self._held = _held.HeldKeys()
        self._throttling: dict[str, _throttling.Throttling] = {}
        # Weak, because ids of closed connections come back for new ones.
        self._connections: weakref.WeakSet[asyncio.Transport] = weakref.WeakSet()

    def registered(self) -> dict[str, dict[str, dict[str, Any]]]:
        """What the accounts' numbers carry: SID -> number -> fingerprint, PEM and how many times it was set."""
        return {
            sid: {
                number: {"fingerprint": key.fingerprint, "pem": key.pem, "count": times}
                for number, (key, times) in numbers.items()
            }
            for sid, numbers in self._registered.items()
        }

    def restore(self, registered: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
        """Take over what `registered` of an earlier server returned. Raises ValueError for what no server did."""
        for sid, numbers in registered.items():
            for number, what in numbers.items():
                key = _rules.parse_form(urlencode({"business_public_key": what["pem"]}).encode())
                if key is None:
                    raise ValueError(f"{number} has no public key")
                self._registered.setdefault(sid, {})[number] = _Registration(key, int(what["count"]))
                self._held.set(number, _held.Held(key))

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.raw_path.startswith(STEERING):
            return await self._steer(request)
        return await self._call(request)

    # --- the API ------------------------------------------------------------------------------------------------------

    async def _call(self, request: web.BaseRequest) -> web.StreamResponse:
        transport = request.transport
        if transport is None:
            raise _NoAnswer  # the client is gone already
        if transport not in self._connections:
            self._connections.add(transport)
            self._connection_count += 1

        graph = _held.parse_graph_path(request.raw_path)
        sid, phone_number = _rules.parse_path(request.raw_path) or (None, self._settings.phone_number(graph.object_id) if graph else None)
        fault = self._orders.take(phone_number or (graph.object_id if graph else None), request.method)
        body = b""
        if fault is None or not fault.unread:
            try:
                body = await request.read()
            except web.HTTPRequestEntityTooLarge:
                pass  # the empty body stands for it: refused just the same
        key = _rules.parse_form(body)
        headers = request.headers
        api_keys = headers.getall("api-key", ())
        if graph:
            answer = _held.graph_answer(
                self._settings,
                self._held,
                method=request.method,
                target=graph,
                authorization=headers.get("Authorization"),
                base_url=f"{request.scheme}://{request.host}",
            )
        else:
            answer = _rules.judge(
                self._accounts,
                method=request.method,
                raw_path=request.raw_path,
                api_keys=api_keys,
                content_types=headers.getall("Content-Type", ()),
                key=key,
            )
        if answer is _rules.READ_BACK and phone_number is not None:
            answer = _held.kaleyra_answer(self._settings.kaleyra_get, self._held.visible(phone_number))
        limit = self._throttling.get(sid) if sid and fault is None else None
        refused = limit.refuse(time.monotonic()) if limit else None
        if refused is not None:
            answer = _rules.THROTTLED
        if answer is _rules.SUCCESS and (fault is None or fault.apply):
            assert sid is not None and phone_number is not None and key is not None
            numbers = self._registered.setdefault(sid, {})
            earlier = numbers.get(phone_number)
            numbers[phone_number] = _Registration(key, earlier.times + 1 if earlier else 1)
            self._held.set(phone_number, _held.Held(key), self._settings.visible_after)

        whole: _faults.WholeAnswer | None = None
        status: int | None = answer.status
        code = answer.code
        if fault is not None:
            whole = _faults.whole_answer(fault, ", ".join(api_keys) or headers.get("Authorization", ""), body)
            status, code = fault.status, whole.code if whole else None
        # Before any sleep, so that a request that is left hanging can be inspected.
        self._request_count += 1
        fingerprint = key.fingerprint if key else None
        self._requests.append(
            _Seen(sid, phone_number, status, code, fingerprint, headers, body[:_MAX_KEPT_BODY], request.raw_path, request.method)
        )
        self._methods.setdefault(request.raw_path.partition("?")[0], Counter())[request.method] += 1
        if self._log:
            # Not the code of an ordered answer, which may repeat the API key.
            outcome = f"fault {fault.do}" if fault else code or "-"
            print(request.method, request.raw_path, status or "-", outcome, file=sys.stderr, flush=True)

        pause = self._latency + (fault.delay if fault else 0.0)
        if pause:
            await asyncio.sleep(pause)
        if fault is None:
            return web.Response(status=answer.status, headers=refused, body=answer.body, content_type=answer.content_type)
        if whole is not None:
            return web.Response(status=whole.status, reason=whole.reason, headers=whole.headers, body=whole.body)
        return await self._misbehave(request, fault)

    async def _misbehave(self, request: web.BaseRequest, fault: _faults.Fault) -> NoReturn:
        """Send what the fault sends, past aiohttp's own idea of an answer, and end the connection."""
        transport = request.transport
        if transport is None:
            raise _NoAnswer
        if fault.do == "reset":
            # Lingering for 0 seconds makes the kernel drop the connection with a reset instead of closing it.
            linger = struct.pack("ii", 1, 0)
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            transport.abort()
            raise _NoAnswer
        async for data in _faults.stream(fault):
            if transport.is_closing():
                break
            transport.write(data)
            # Waits while the client does not read, so that a flood never piles up here ...
            await request.writer.drain()
            # ... and lets other connections have their turn while it does.
            await asyncio.sleep(0)
        raise _NoAnswer

    # --- steering -----------------------------------------------------------------------------------------------------

    async def _steer(self, request: web.BaseRequest) -> web.StreamResponse:
        what = (request.method, request.raw_path[len(STEERING) :])
        if what == ("GET", "count"):
            return web.json_response({"request_count": self._request_count})
        if what == ("GET", "state"):
            return web.json_response(self._state())
        if what == ("DELETE", "state"):
            self._forget()
            return web.Response(status=204)
        changes = {"faults": self._orders.replace, "settings": self._settings.update, "held": self._hold, "throttling": self._throttle}
        change = changes.get(what[1]) if request.method == "PUT" else None
        if change is None:
            return web.Response(status=404, text=f"there is: GET count, GET state, DELETE state, PUT {', PUT '.join(changes)}\n")
        try:
            change(json.loads(await request.read()))
        except ValueError as error:
            return web.Response(status=400, text=f"{error}\n")
        return web.Response(status=204)

    def _hold(self, document: Any) -> None:
        for number, held in _held.read_held(document).items():
            self._held.set(number, held)

    def _throttle(self, document: Any) -> None:
        if not isinstance(document, dict):
            raise ValueError("throttling must be a JSON object of SID -> limit")
        self._throttling = {sid: _throttling.Throttling(limit) for sid, limit in document.items()}

    def _state(self) -> dict[str, Any]:
        return {
            "registered": self.registered(),
            "requests": [seen.document() for seen in self._requests],
            "request_count": self._request_count,
            "connection_count": self._connection_count,
            "methods": self._methods,
            "throttling": {sid: limit.outcome() for sid, limit in self._throttling.items()},
        }


def make_runner(handler: Handler) -> web.ServerRunner:
    """An aiohttp runner around `handler`; must be called inside a running event loop."""

    def make_request(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
        loop = asyncio.get_running_loop()
        return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=_MAX_BODY)

    server = web.Server(
        handler,
        request_factory=make_request,
        # A fault that sleeps ends as soon as its client goes away.
        handler_cancellation=True,
        # A body is judged as it was sent.
        auto_decompress=False,
        access_log=None,
    )
    # Nobody waits for a hanging answer when the server stops.
    return web.ServerRunner(server, shutdown_timeout=0.05)
