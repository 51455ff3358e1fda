# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An endpoint that does one thing wrong, in the test's own process. What decrypts is pywa's, and nothing is shared with what asks."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pywa import utils as pywa

from support.servers import Servers, read_request

ACTIVE = {"data": {"status": "active"}}
TAG_BYTES = 16


@dataclasses.dataclass(frozen=True)
class Asked:
    """A request; ``content`` is None where another key is needed to decrypt it."""

    headers: Mapping[str, str]
    body: bytes
    content: dict[str, Any] | None = None
    aes_key: bytes = b""
    iv: bytes = b""

    @property
    def inverted(self) -> bytes:
        return bytes(byte ^ 0xFF for byte in self.iv)

    def encrypted(self, said: bytes, *, aes_key: bytes | None = None, iv: bytes | None = None) -> bytes:
        """Encrypted text and tag, under the request's AES key and inverted IV unless said otherwise."""
        return AESGCM(aes_key or self.aes_key).encrypt(iv or self.inverted, said, None)

    def answer(self, said: Any = None) -> bytes:
        """As it should be: that it is active, unless something else is said."""
        return pywa.default_flow_response_encryptor(ACTIVE if said is None else said, self.aes_key, self.iv).encode()

    def signed_with(self, app_secret: str) -> bool:
        return bool(pywa.webhook_updates_validator(app_secret, self.body, self.headers.get("X-Hub-Signature-256", "")))


@dataclasses.dataclass(frozen=True)
class Reply:
    """:param delay: seconds before it is sent"""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    reason: str = ""
    delay: float = 0

    def encode(self) -> bytes:
        headers = {"Content-Type": "text/plain", "Content-Length": str(len(self.body)), **self.headers}
        lines = [f"HTTP/1.1 {self.status} {self.reason}", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        return "\r\n".join(lines).encode("latin-1") + self.body


def healthy(asked: Asked) -> Reply:
    return Reply(421) if asked.content is None else Reply(body=asked.answer())


class MisbehavingEndpoint:
    """Answers POST with what ``behave`` makes of it, from the constructor until ``with`` ends.

    :param private_key: PEM of the key that it holds
    :param behave: given the request; None closes the connection without an answer
    :param certificate: and its key, to speak TLS
    """

    def __init__(self, private_key: str, behave: Callable[[Asked], Reply | None] = healthy, *, certificate: Path | None = None) -> None:
        self.behave = behave
        self.requests: list[Asked] = []
        self._private_key = private_key
        self._servers = Servers()
        self.url = f"{'https' if certificate else 'http'}://127.0.0.1:{self._servers.start(self._handle, certificate=certificate)}/flows"

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head, body = await read_request(reader)
            headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
            asked = _read(headers, body, self._private_key)
            self.requests.append(asked)
            reply = self.behave(asked)
            if reply is None:
                return
            await asyncio.sleep(reply.delay)
            writer.write(reply.encode())
            await writer.drain()

    def __enter__(self) -> MisbehavingEndpoint:
        return self

    def __exit__(self, *dummy: object) -> None:
        self._servers.__exit__()


def _read(headers: dict[str, str], body: bytes, private_key: str) -> Asked:
    fields = json.loads(body)
    try:
        content, aes_key, iv = pywa.default_flow_request_decryptor(
            fields["encrypted_flow_data"], fields["encrypted_aes_key"], fields["initial_vector"], private_key
        )
    except (KeyError, TypeError):
        raise
    except Exception:  # whatever cryptography calls a key that does not fit
        return Asked(headers, body)
    return Asked(headers, body, content, aes_key, iv)
