# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A list sends nothing once its run has ended, and leaves nothing of what it has given up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.kaleyra.whatsapp.plugins.modules.kaleyra_flows_encryption import SPEC
from support.keys import KeyPair
from support.playbook_runs import ACCOUNTS, API_KEY, BIN, COLLECTIONS, MODULE, SID
from support.simulator.client import Simulator


@pytest.fixture
def api() -> Iterator[Simulator]:
    with Simulator(ACCOUNTS) as simulator:
        yield simulator


def _register(api: Simulator, folder: Path, numbers: list[str], public_key: str, **options: Any) -> dict[str, Any]:
    params = {name: option.get("default") for name, option in SPEC.argument_spec.items()}
    params.update(api_url=api.url, sid=SID, api_key=API_KEY, phone_numbers=numbers, business_public_key=public_key, **options)
    return SPEC.run({**params, "cache_path": str(folder / "records")}, check_mode=False, diff_mode=False)


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGHUP])
def test_a_list_ends_with_its_run(api: Simulator, key: KeyPair, tmp_path: Path, ending: signal.Signals) -> None:
    """Else it would undo what the next run registers."""
    numbers, other = [f"+9198765{n:05}" for n in range(100)], KeyPair.make("RSA", "rsa_keygen_bits:2048")
    options = {"api_url": api.url, "sid": SID, "api_key": API_KEY, "business_public_key": key.public, "cache_path": str(tmp_path / "records")}
    task = {MODULE: {**options, "phone_numbers": numbers, "max_requests_per_second": 10}}
    playbook = tmp_path / "play.yml"
    playbook.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": [task]}]))
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "LANG": "C.UTF-8", "ANSIBLE_COLLECTIONS_PATH": COLLECTIONS}
    command = [str(BIN / "ansible-playbook"), "-i", "localhost,", "-c", "local", str(playbook)]
    with open(tmp_path / "output", "w") as output:
        run = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        until = time.monotonic() + 120
        while api.count() < 5 and run.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        run.send_signal(ending)
        run.wait()
    assert 5 <= api.count() < 60, (tmp_path / "output").read_text()

    assert "failed" not in _register(api, tmp_path, numbers, other.public)
    sent = api.count()
    time.sleep(3)  # enough for thirty more of the first run
    assert api.count() == sent
    assert set(api.registered()[SID].values()) == {other.fingerprint} and len(api.registered()[SID]) == len(numbers)


def test_what_is_given_up_is_closed(api: Simulator, key: KeyPair, tmp_path: Path) -> None:
    concurrency, numbers = 50, [f"+9198765{n:05}" for n in range(1200)]
    api.faults({"*": [{"do": "trickle", "where": "body", "interval": 0.2, "always": True}]})
    peak = {"descriptors": 0, "threads": 0}
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.1):
            peak["descriptors"] = max(peak["descriptors"], len(os.listdir("/dev/fd")))
            peak["threads"] = max(peak["threads"], threading.active_count())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        result = _register(api, tmp_path, numbers, key.public, timeout=1, retries=0, concurrency=concurrency)
    finally:
        ended.set()
        watcher.join()
    assert {number["outcome"] for number in result["numbers"]} == {"unknown"}
    assert peak["threads"] <= 4 * concurrency and peak["descriptors"] <= 6 * concurrency, peak
    api.faults({})
    assert "failed" not in _register(api, tmp_path, numbers[:100], key.public, concurrency=concurrency)
