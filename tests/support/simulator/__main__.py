# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Command line of the simulator: `python -m support.simulator --accounts FILE`."""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import signal
import ssl
import sys
import tempfile
import threading
from collections.abc import Sequence

from aiohttp import web

from . import _rules
from ._server import Handler, make_runner


def _seconds(text: str) -> float:
    value = float(text)
    if not math.isfinite(value) or value < 0:
        raise ValueError
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="simulator", description="A simulator of Kaleyra's flows_encryption API.")
    parser.add_argument(
        "--accounts",
        required=True,
        metavar="FILE",
        help='JSON object: SID -> API key, or SID -> {"api_key": ..., "available": false} for an account that gets '
        "401 WA-401",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="port to listen on (default: a free one)")
    parser.add_argument("--url-file", metavar="PATH", help="file that gets the base URL once the server listens")
    parser.add_argument(
        "--state-file", metavar="PATH", help="what is registered is read from there at the start, and written there at the end"
    )
    parser.add_argument("--certfile", metavar="PATH", help="serve HTTPS with this certificate (PEM)")
    parser.add_argument("--keyfile", metavar="PATH", help="its private key, unless that is in the same file")
    parser.add_argument(
        "--latency", type=_seconds, default=0.0, metavar="SECONDS", help="added to every API answer (default: 0)"
    )
    parser.add_argument("--log", action="store_true", help="print a line per API request on stderr")
    parser.add_argument("--exit-on-eof", action="store_true", help="end when stdin is closed")
    return parser


def _write_atomically(path: str, text: str) -> None:
    # In the same folder, since a rename is atomic within one file system only.
    descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(os.path.abspath(path)))
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _stop_at_eof(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """Set `stop` once stdin ends. A thread, because event loops cannot wait for every kind of stdin."""

    def wait() -> None:
        while os.read(0, 4096):
            pass
        try:
            loop.call_soon_threadsafe(stop.set)
        except RuntimeError:
            pass  # the loop has ended by itself meanwhile

    threading.Thread(target=wait, daemon=True).start()


async def _serve(options: argparse.Namespace, handler: Handler, context: ssl.SSLContext | None) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    runner = make_runner(handler)
    await runner.setup()
    try:
        # The backlog is long enough for a benchmark that opens its connections all at once.
        await web.TCPSite(runner, options.host, options.port, ssl_context=context, backlog=1024).start()
        host = f"[{options.host}]" if ":" in options.host else options.host
        url = f"{'https' if context else 'http'}://{host}:{runner.addresses[0][1]}"
        if options.url_file:
            _write_atomically(options.url_file, f"{url}\n")
        print(url, flush=True)
        if options.exit_on_eof:
            _stop_at_eof(loop, stop)
        await stop.wait()
    finally:
        await runner.cleanup()


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal (or the end of stdin) says stop. Returns the exit status; 2 means wrong arguments."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        with open(options.accounts, encoding="utf-8") as file:
            accounts = _rules.read_accounts(json.load(file))
    except (OSError, ValueError) as error:
        parser.error(f"--accounts: {error}")
    context = None
    if options.certfile:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            context.load_cert_chain(options.certfile, options.keyfile)
        except OSError as error:
            parser.error(f"--certfile: {error}")
    elif options.keyfile:
        parser.error("--keyfile needs --certfile")
    handler = Handler(accounts, latency=options.latency, log=options.log)
    if options.state_file and os.path.exists(options.state_file):
        try:
            with open(options.state_file, encoding="utf-8") as file:
                handler.restore(json.load(file))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            parser.error(f"--state-file: {error}")
    try:
        asyncio.run(_serve(options, handler, context))
    except (OSError, OverflowError) as error:
        print(f"simulator: cannot serve on {options.host} port {options.port}: {error}", file=sys.stderr)
        return 1
    if options.state_file:
        _write_atomically(options.state_file, json.dumps(handler.registered()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
