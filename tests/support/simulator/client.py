# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run the simulator as a process of its own, and steer it. Standard library only.

Example::

    with Simulator({"HXAP16XXXXXX97IN": "the api key"}) as simulator:
        simulator.faults({"*": [{"do": "reset", "apply": True}]})
        ...  # a client talks to simulator.url
        assert simulator.count() == 2
"""

from __future__ import annotations

import http.client
import json
import os
import select
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

_PACKAGE_PARENT = Path(__file__).resolve().parents[2]


def waba_numbers(numbers: Iterable[str], *, first_id: int = 2_000_001, **further: Any) -> list[dict[str, Any]]:
    """Numbers in E.164 as Meta lists them: with an ID each, and formatted as `+1 631-555-5555`."""
    return [
        {"id": str(first_id + place), "display_phone_number": f"+{number[1:3]} {number[3:6]}-{number[6:]}", **further}
        for place, number in enumerate(numbers)
    ]


class SimulatorError(Exception):
    """The simulator did not start, or refused what it was told. The text says why."""


class Simulator:
    """A simulator process, started by the constructor (like `subprocess.Popen`) and ended by `stop` or `with`.

    `accounts` maps a SID to its API key, or to `{"api_key": ..., "available": False}` for an account that gets
    401 WA-401. `latency` (seconds) is added to every API answer. With `log`, each API request gives a line in
    `stderr()`. What is registered is read from `state_file` at the start and written there at the end.
    `start_timeout` (seconds) bounds the wait for readiness.

    `url` is the base URL without a slash at its end, `pid` the process. The process also ends by itself when the
    process that started it dies. Raises SimulatorError, with what the process said, if it does not start.
    """

    url: str
    pid: int

    def __init__(
        self,
        accounts: Mapping[str, str | Mapping[str, Any]],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        certfile: str | os.PathLike[str] | None = None,
        keyfile: str | os.PathLike[str] | None = None,
        latency: float = 0.0,
        log: bool = False,
        state_file: str | os.PathLike[str] | None = None,
        start_timeout: float = 20.0,
    ) -> None:
        command = [sys.executable, "-m", "support.simulator", "--exit-on-eof"]
        command += ["--host", host, "--port", str(port), "--latency", str(latency)]
        command += ["--certfile", os.fspath(certfile)] if certfile is not None else []
        command += ["--keyfile", os.fspath(keyfile)] if keyfile is not None else []
        command += ["--log"] if log else []
        command += ["--state-file", os.fspath(state_file)] if state_file is not None else []
        paths = [str(_PACKAGE_PARENT), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}

        # A file rather than a pipe, which nobody would empty.
        self._stderr = tempfile.TemporaryFile()  # pylint: disable=consider-using-with
        # By way of a file that only its owner can read, since everybody can see a process's arguments.
        descriptor, accounts_file = tempfile.mkstemp(prefix="simulator-accounts-")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(accounts, file)
            self._process = subprocess.Popen(  # pylint: disable=consider-using-with
                [*command, "--accounts", accounts_file],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                env=environment,
            )
            self.pid = self._process.pid
            try:
                self.url = self._wait_until_ready(start_timeout)
            except BaseException:
                self.stop()
                raise
        finally:
            os.unlink(accounts_file)

    def _wait_until_ready(self, timeout: float) -> str:
        assert self._process.stdout is not None
        stdout = self._process.stdout.fileno()
        deadline = time.monotonic() + timeout
        line = b""
        while not line.endswith(b"\n"):
            ready, dummy, dummy = select.select([stdout], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise SimulatorError(f"the simulator was not ready within {timeout} s: {self.stderr()}")
            data = os.read(stdout, 4096)
            if not data:
                status = self._process.wait()
                raise SimulatorError(f"the simulator ended with status {status}: {self.stderr()}")
            line += data
        return line.decode().strip()

    def stderr(self) -> str:
        """What the process has printed on stderr so far."""
        # Not by seeking: the process shares the position and would go on writing there.
        return os.pread(self._stderr.fileno(), 2**24, 0).decode("utf-8", "replace").strip()

    def _steer(self, method: str, what: str, document: Any = None) -> Any:
        # http.client knows no proxies, whatever the environment says.
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        connection: http.client.HTTPConnection
        if parts.scheme == "https":
            # The certificate is under test, not needed for talking to one's own child over the loopback.
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            connection = http.client.HTTPSConnection(parts.hostname, parts.port, timeout=30, context=context)
        else:
            connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)
        try:
            body = None if document is None else json.dumps(document)
            connection.request(method, f"/_simulator/{what}", body)
            response = connection.getresponse()
            text = response.read().decode()
        finally:
            connection.close()
        if response.status >= 300:
            raise SimulatorError(f"{method} {what}: {response.status} {text.strip()}")
        return json.loads(text) if text else None

    def state(self) -> dict[str, Any]:
        """Everything: `registered`, `requests` (the last 10,000), `request_count`, `connection_count`."""
        state: dict[str, Any] = self._steer("GET", "state")
        return state

    def registered(self) -> dict[str, dict[str, str]]:
        """SID -> number -> fingerprint of the key that it carries."""
        return {
            sid: {number: entry["fingerprint"] for number, entry in numbers.items()}
            for sid, numbers in self.state()["registered"].items()
        }

    def requests(self) -> list[dict[str, Any]]:
        """The last 10,000 API requests, oldest first; their headers hold the API keys."""
        requests: list[dict[str, Any]] = self.state()["requests"]
        return requests

    def count(self) -> int:
        """How many API requests have come since the start or the last `reset`; cheap."""
        return int(self._steer("GET", "count")["request_count"])

    def faults(self, faults: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        """Order misbehaviour, number (or `*`) -> list of faults, in place of earlier orders.

        Raises SimulatorError, and the earlier orders stay, if the simulator does not understand one.
        """
        self._steer("PUT", "faults", faults)

    def throttle(self, limits: Mapping[str, Mapping[str, Any]]) -> None:
        """Limit the rate of accounts, by SID: see ``_throttling.Throttling``."""
        self._steer("PUT", "throttling", limits)

    def throttled(self, sid: str) -> dict[str, float]:
        """Requests of a limited account that were ``accepted`` and ``refused``, and the ``seconds`` from the first to the last."""
        outcome: dict[str, float] = self.state()["throttling"][sid]
        return outcome

    def configure(self, **settings: Any) -> None:
        """Change how both APIs read back: the settings are those of `_held.Settings`."""
        self._steer("PUT", "settings", settings)

    def hold(self, keys: Mapping[str, str | Mapping[str, Any] | None]) -> None:
        """Change what numbers carry, by no request: number -> PEM, `{"pem": ..., "status": ...}`, or None for none."""
        self._steer("PUT", "held", keys)

    def methods(self) -> dict[str, int]:
        """Method -> how many API requests there were with it."""
        total: dict[str, int] = {}
        for counts in self.methods_by_url().values():
            for method, count in counts.items():
                total[method] = total.get(method, 0) + count
        return total

    def methods_by_url(self) -> dict[str, dict[str, int]]:
        """Path without query -> method -> how many API requests there were."""
        methods: dict[str, dict[str, int]] = self.state()["methods"]
        return methods

    def reset(self) -> None:
        """Forget everything: registered and held keys, requests, counts, faults and settings."""
        self._steer("DELETE", "state")

    def stop(self) -> None:
        """End the process, hanging answers and all; a second call does nothing."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> Simulator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
