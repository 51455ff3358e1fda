# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Starts the endpoint, and sends to it as a customer's phone does."""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_PACKAGE_PARENT = Path(__file__).resolve().parents[2]


class Endpoint:
    """An endpoint process, started by the constructor and ended by ``with``.

    ``keys`` is the file that lists the private keys' paths; ``url`` and ``pid`` are for those who ask and reload it.
    """

    def __init__(self, keys: Path, private_keys: Iterable[Path], *, passphrase: str | None = None, app_secret: str | None = None) -> None:
        self.keys = keys
        self.hold(private_keys)
        command = [sys.executable, "-m", "support.endpoint", "--exit-on-eof", "--keys", str(keys)]
        command += ["--passphrase", passphrase] if passphrase else []
        command += ["--app-secret", app_secret] if app_secret else []
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(_PACKAGE_PARENT), os.environ.get("PYTHONPATH", "")])}
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True)
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        if not self.url:
            raise RuntimeError(f"the endpoint ended with status {self._process.wait()}")
        self.pid = self._process.pid

    def hold(self, private_keys: Iterable[Path]) -> None:
        """List the keys; a running endpoint takes notice on :meth:`reload` or a restart."""
        self.keys.write_text("".join(f"{path}\n" for path in private_keys))

    def reload(self) -> None:
        os.kill(self.pid, signal.SIGHUP)

    def answered(self) -> list[int]:
        """HTTP statuses of all its answers, in order. A verification is [200, 421], and with an app secret [200, 421, 432]."""
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(self.url.replace("/flows", "/answered"), timeout=20) as answer:
            return list(json.load(answer))

    def __enter__(self) -> Endpoint:
        return self

    def __exit__(self, *dummy: object) -> None:
        self._process.kill()
        self._process.communicate()


class Phone:
    """Sends messages under the public key that it has cached, and fetches the key again when the endpoint answers 421.

    ``fetch`` returns the PEM that is registered at this moment. A message is lost when the endpoint does not take it under the key that
    was just fetched either, or answers anything else.
    """

    def __init__(self, url: str, fetch: Callable[[], str]) -> None:
        self._url, self._fetch = urlsplit(url), fetch
        self._pem = fetch()
        self.sent = self.fetched = 0
        self.lost: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send_always)

    def send(self, text: str) -> None:
        self.sent += 1
        status, said = self._exchange(text)
        if status == 421:
            self._pem = self._fetch()
            self.fetched += 1
            status, said = self._exchange(text)
        if status != 200 or said != text:
            self.lost.append(f"message {self.sent}: HTTP {status}, {said!r}")

    def __enter__(self) -> Phone:
        self._thread.start()
        return self

    def __exit__(self, *dummy: object) -> None:
        self._stop.set()
        self._thread.join()

    def _send_always(self) -> None:
        while not self._stop.wait(0.03):
            try:
                self.send(f"hello {self.sent}")
            except Exception as exc:  # a broken connection is a lost message, too
                self.lost.append(f"message {self.sent}: {exc!r}")

    def _exchange(self, text: str) -> tuple[int, Any]:
        key = serialization.load_pem_public_key(self._pem.encode())
        assert isinstance(key, rsa.RSAPublicKey)
        aes_key, iv = os.urandom(16), os.urandom(16)
        content = json.dumps({"version": "3.0", "action": "data_exchange", "screen": "FIRST", "data": text, "flow_token": "t"}).encode()
        fields = {
            "encrypted_aes_key": key.encrypt(aes_key, padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)),
            "initial_vector": iv,
            "encrypted_flow_data": AESGCM(aes_key).encrypt(iv, content, None),
        }
        assert self._url.hostname
        connection = http.client.HTTPConnection(self._url.hostname, self._url.port, timeout=20)
        try:
            body = json.dumps({name: base64.b64encode(value).decode() for name, value in fields.items()})
            connection.request("POST", self._url.path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            data = answer.read()
        finally:
            connection.close()
        if answer.status != 200:
            return answer.status, None
        plain = AESGCM(aes_key).decrypt(bytes(byte ^ 0xFF for byte in iv), base64.b64decode(data), None)
        return 200, json.loads(plain)["data"]["echo"]
