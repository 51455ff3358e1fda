# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A list sends nothing once its run has ended."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import pytest
from support.keys import KeyPair
from support.playbook_runs import SID, Playbooks
from support.processes import register_all
from support.simulator.client import Simulator


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGHUP])
def test_list_ends_with_its_run(
    playbooks: Playbooks, simulator: Simulator, key: KeyPair, tmp_path: Path, ending: signal.Signals
) -> None:
    """Else it would undo what the next run registers."""
    numbers, other = [f"+9198765{n:05}" for n in range(100)], KeyPair.make("RSA", "rsa_keygen_bits:2048")
    given: dict[str, Any] = {"business_public_key": key.public, "cache_path": str(tmp_path / "records"), "max_requests_per_second": 10}
    play = {"hosts": "localhost", "gather_facts": False, "tasks": [playbooks.task("register", phone_numbers=numbers, **given)]}
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # children of nohup inherit that it is ignored
    run = playbooks.start([play], {"all": {"hosts": {"localhost": {"ansible_connection": "local"}}}})
    until = time.monotonic() + 120
    while simulator.count() < 5 and run.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    run.send_signal(ending)
    run.wait()
    assert 5 <= simulator.count() < 60, (playbooks.logs / "output").read_text()

    assert "failed" not in register_all(simulator.url, tmp_path / "records", numbers, other.public)
    sent = simulator.count()
    time.sleep(3)  # enough for thirty more of the first run
    assert simulator.count() == sent
    assert set(simulator.registered()[SID].values()) == {other.fingerprint} and len(simulator.registered()[SID]) == len(numbers)
