# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An endpoint that does one thing wrong, in the test's own process. What decrypts is pywa's, and nothing is shared with what asks."""

from __future__ import annotations

import dataclasses
import json
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pywa import utils as pywa

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
    reason: str | None = None
    delay: float = 0


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
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                asked = _read(dict(self.headers), body, private_key)
                endpoint.requests.append(asked)
                reply = endpoint.behave(asked)
                if reply is None:
                    return
                time.sleep(reply.delay)
                self.send_response(reply.status, reply.reason)
                for name, value in {"Content-Type": "text/plain", "Content-Length": str(len(reply.body)), **reply.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(reply.body)

            def log_message(self, *dummy: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *dummy: Any) -> None:
                """Who asked is gone: it refused the certificate, or gave up."""

        self._server = Server(("127.0.0.1", 0), Handler)
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"{'https' if certificate else 'http'}://127.0.0.1:{self._server.server_port}/flows"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def __enter__(self) -> MisbehavingEndpoint:
        return self

    def __exit__(self, *dummy: object) -> None:
        self._server.shutdown()
        self._server.server_close()


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
