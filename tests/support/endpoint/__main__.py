# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Command line of the endpoint: ``python -m support.endpoint --keys FILE``, where each line of the file is the path of a private key."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from aiohttp import web
from pywa import utils as pywa


class Endpoint:
    """Answers health checks with ``active``, and everything else with a screen."""

    def __init__(self, keys: Path, passphrase: str | None, app_secret: str | None) -> None:
        self._file, self._passphrase, self._app_secret = keys, passphrase, app_secret
        self._answered: list[int] = []
        self.load()

    def load(self) -> None:
        """Read the private keys, all or none: what cannot be read leaves those in place that are there."""
        self._keys = list(dict.fromkeys(Path(path).read_text() for path in self._file.read_text().splitlines()))

    def reload(self) -> None:
        try:
            self.load()
        except OSError as exc:
            print(f"kept the keys: {exc}", file=sys.stderr, flush=True)

    async def answered(self, dummy: web.Request) -> web.Response:
        return web.json_response(self._answered)

    async def answer(self, request: web.Request) -> web.Response:
        response = await self._answer(request)
        self._answered.append(response.status)
        return response

    async def _answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        signature = request.headers.get("X-Hub-Signature-256", "")
        if self._app_secret and not pywa.webhook_updates_validator(self._app_secret, body, signature):
            return web.Response(status=432)
        try:
            decrypted = self._decrypt(json.loads(body))
        except (ValueError, KeyError, TypeError):
            return web.Response(status=400)
        if decrypted is None:
            return web.Response(status=421)
        content, aes_key, iv = decrypted
        said = {"data": {"status": "active"}} if content["action"] == "ping" else {"screen": "NEXT", "data": {"echo": content.get("data")}}
        return web.Response(text=pywa.default_flow_response_encryptor(said, aes_key, iv), content_type="text/plain")

    def _decrypt(self, fields: dict[str, str]) -> tuple[dict[str, Any], bytes, bytes] | None:
        for key in self._keys:
            try:
                return pywa.default_flow_request_decryptor(
                    fields["encrypted_flow_data"], fields["encrypted_aes_key"], fields["initial_vector"], key, self._passphrase
                )
            except (KeyError, TypeError):
                raise
            except Exception:  # whatever cryptography calls a key that does not fit
                continue
        return None


def _exit_on_eof() -> None:
    def wait() -> None:
        while os.read(0, 4096):
            pass
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


async def _serve(arguments: argparse.Namespace) -> None:
    endpoint = Endpoint(arguments.keys, arguments.passphrase, arguments.app_secret)
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, endpoint.reload)
    app = web.Application()
    app.router.add_post("/{path:flows|endpoint}", endpoint.answer)  # the second is what the documentation's examples have
    app.router.add_get("/answered", endpoint.answered)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    print(f"http://127.0.0.1:{port}/flows", flush=True)
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="endpoint", description="A small Flow endpoint.")
    parser.add_argument("--keys", type=Path, required=True, help="file with the path of a private key on each line")
    parser.add_argument("--passphrase", help="of the private keys")
    parser.add_argument("--app-secret", help="refuse what is not signed with it")
    parser.add_argument("--exit-on-eof", action="store_true", help="end when stdin is closed")
    arguments = parser.parse_args()
    if arguments.exit_on_eof:
        _exit_on_eof()
    asyncio.run(_serve(arguments))


if __name__ == "__main__":
    main()
