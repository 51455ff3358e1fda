# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How the simulator misbehaves on request: the faults that can be ordered, and the bytes that they send.

A fault is a JSON object. `do` names its kind; `apply` (the key is registered nevertheless, if the request is right),
`delay` (seconds before misbehaving), `always` (not used up by a request) and `method` (meets requests of this method alone) go with
every kind. The kinds:

| do | what the client sees | further keys (default) |
|---|---|---|
| `answer` | any answer | `status`, `reason`, `headers` ({}), `body` (none): a string as is, else sent as JSON |
| `reset` | a TCP reset | `unread` (false): before the request's body is read |
| `close` | the connection closed in good order, no answer | |
| `hang` | nothing more for `seconds` (3600), then a close | `where` ("headers"): nothing sent, "body": headers sent |
| `trickle` | a success, one byte every `interval` (1) seconds | `where` ("headers"): from the status line, "body" |
| `flood` | valid JSON of `bytes` (64 MiB), its end being the close | `status` (200), `location` (/elsewhere) for a 3xx |
| `gzip_bomb` | the same, `bytes` (1 GiB) after decompression | |
| `echo` | an answer whose every part repeats the API key and the request's body | `status` (400) |
| `raw` | `bytes` (a string, latin-1), then a close | |
"""

from __future__ import annotations

import asyncio
import json
import re
import zlib
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from multidict import CIMultiDict

from . import _rules

_MIB = 2**20

_REQUIRED = object()
_ABSENT = object()

# Keys and their defaults.
_COMMON: dict[str, Any] = {"apply": False, "delay": 0.0, "always": False, "method": None}
_KINDS: dict[str, dict[str, Any]] = {
    "answer": {"status": _REQUIRED, "reason": None, "headers": {}, "body": _ABSENT},
    "reset": {"unread": False},
    "close": {},
    "hang": {"where": "headers", "seconds": 3600.0},
    "trickle": {"where": "headers", "interval": 1.0},
    "flood": {"bytes": 64 * _MIB, "status": 200, "location": "/elsewhere"},
    "gzip_bomb": {"bytes": 1024 * _MIB},
    "echo": {"status": 400},
    "raw": {"bytes": _REQUIRED},
}


@dataclass(frozen=True)
class Fault:
    """One misbehaviour with its defaults filled in. `options` holds the keys that its kind adds."""

    do: str
    apply: bool
    delay: float
    always: bool
    method: str | None
    options: dict[str, Any]

    @property
    def unread(self) -> bool:
        """Whether the request's body is to be left unread."""
        return bool(self.options.get("unread"))

    @property
    def status(self) -> int | None:
        """The HTTP status that the client gets to see; None if none, or if only the raw bytes know."""
        if self.do in ("trickle", "gzip_bomb") or (self.do == "hang" and self.options["where"] == "body"):
            return 200
        return self.options.get("status")


def parse(document: Any) -> Fault:
    """Read one fault. Raises ValueError for keys that are misspelled or missing."""
    given = dict(document)
    do = given.pop("do", None)
    if do not in _KINDS:
        raise ValueError(f"unknown do {do!r}, expected one of {', '.join(_KINDS)}")
    known = {**_COMMON, **_KINDS[do]}
    if unknown := sorted(given.keys() - known.keys()):
        raise ValueError(f"{do} does not know {', '.join(unknown)}, only {', '.join(known)}")
    values = {**known, **given}
    if missing := [name for name, value in values.items() if value is _REQUIRED]:
        raise ValueError(f"{do} needs {', '.join(missing)}")
    common = {name: values.pop(name) for name in _COMMON}
    fault = Fault(do=do, options=values, **common)
    if fault.unread and fault.apply:
        raise ValueError("reset: apply needs the request's body, which unread leaves unread")
    return fault


class Orders:
    """The faults still to be delivered, in order, for each number or WABA ID and (`*`) for all."""

    def __init__(self) -> None:
        self._queues: dict[str, deque[Fault]] = {}

    def replace(self, document: Any) -> None:
        """Take these orders in place of the earlier ones. Raises ValueError, and changes nothing, if one is wrong."""
        queues = {}
        for number, faults in document.items():
            if number != "*" and not _rules.is_phone_number(number) and not number.isdigit():
                raise ValueError(f'{number!r} is neither "*" nor an E.164 number nor a WABA ID')
            try:
                queues[number] = deque(parse(fault) for fault in faults)
            except ValueError as error:
                raise ValueError(f"{number}: {error}") from None
        self._queues = queues

    def take(self, target: str | None, method: str) -> Fault | None:
        """The fault for the next request to this number or WABA (None: to neither), used up unless it is for ever."""
        for name in (target, "*"):
            queue = self._queues.get(name, ()) if name is not None else ()
            fault = next((fault for fault in queue if fault.method in (None, method)), None)
            if fault:
                if not fault.always:
                    self._queues[str(name)].remove(fault)
                return fault
        return None


# --- what a fault sends -----------------------------------------------------------------------------------------------


class WholeAnswer(NamedTuple):
    """An answer that is wrong in content only; the server sends it like any other."""

    status: int
    reason: str | None
    headers: CIMultiDict[str]
    body: bytes
    code: str | None


def whole_answer(fault: Fault, api_key: str, body: bytes) -> WholeAnswer | None:
    """The answer of an `answer` or `echo` fault to a request with this API key and body; None for other kinds."""
    options = fault.options
    if fault.do == "answer":
        headers = CIMultiDict({"Content-Type": "application/json"})
        headers.update({name: str(value) for name, value in options["headers"].items()})
        document = options["body"]
        content, code = b"", None
        if isinstance(document, str):
            content = document.encode()
        elif document is not _ABSENT:
            content = json.dumps(document).encode()
            code = document.get("code") if isinstance(document, dict) else None
        code = code if isinstance(code, str) else None
        return WholeAnswer(options["status"], options["reason"], headers, content, code)
    if fault.do == "echo":
        text = f"{api_key} {body.decode('latin-1')}"
        # Cut, because clients read only so much in one line; the key comes first.
        line = re.sub(r"[^\x20-\x7e]", "?", text)[:4000]
        headers = CIMultiDict({"Content-Type": "application/json", "X-Echo": line})
        document = {"code": f"WA-400 {text}", "message": f"Refused: {text}", "data": {}, "error": {"payload": text}}
        return WholeAnswer(options["status"], line, headers, json.dumps(document).encode(), document["code"])
    return None


def _head(status_line: str, *headers: str) -> bytes:
    return "\r\n".join((f"HTTP/1.1 {status_line}", "Content-Type: application/json", *headers, "", "")).encode()


_FILL = b"x" * _MIB


def _long_json(size: int) -> Iterator[bytes]:
    """A success as valid JSON of exactly `size` bytes, in chunks; all but a few of them are `_FILL` itself."""
    start, end = b'{"code": "WA-200", "data": {"success": true}, "error": {}, "message": "', b'"}'
    yield start
    whole, rest = divmod(size - len(start) - len(end), _MIB)
    for dummy in range(whole):
        yield _FILL
    yield _FILL[:rest] + end


def _gzip(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Compress to one gzip stream, the many `_FILL` chunks for the price of one.

    Each chunk is deflated on its own and flushed to a whole byte, so the result can be sent again anywhere.
    """

    def deflate(chunk: bytes) -> bytes:
        compressor = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
        return compressor.compress(chunk) + compressor.flush(zlib.Z_FULL_FLUSH)

    fill = deflate(_FILL)
    checksum, size = 0, 0
    yield b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
    for chunk in chunks:
        checksum = zlib.crc32(chunk, checksum)
        size += len(chunk)
        yield fill if chunk is _FILL else deflate(chunk)
    yield b"\x03\0" + checksum.to_bytes(4, "little") + (size % 2**32).to_bytes(4, "little")


async def stream(fault: Fault) -> AsyncIterator[bytes]:
    """What a fault other than `answer` and `echo` puts on the wire before the connection is closed, when it is due."""
    options = fault.options
    if fault.do == "raw":
        yield options["bytes"].encode("latin-1")
    elif fault.do in ("hang", "trickle"):
        body = _rules.SUCCESS.body
        head = _head("200 OK", f"Content-Length: {len(body)}")
        if options["where"] == "body":
            yield head
            head = b""
        if fault.do == "hang":
            await asyncio.sleep(options["seconds"])
            return
        for byte in head + body:
            yield bytes((byte,))
            await asyncio.sleep(options["interval"])
    elif fault.do == "flood":
        status = options["status"]
        # No length is told: only a client that counts as it reads is safe.
        location = (f"Location: {options['location']}",) if 300 <= status <= 399 else ()
        yield _head(f"{status} Flood", "Connection: close", *location)
        for chunk in _long_json(options["bytes"]):
            yield chunk
    elif fault.do == "gzip_bomb":
        yield _head("200 OK", "Connection: close", "Content-Encoding: gzip")
        for chunk in _gzip(_long_json(options["bytes"])):
            yield chunk
