# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What other users of the machine could see while a task runs. What a run leaves behind: ``functional/test_secrets.py``."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.keys import KeyPair
from support.playbook_runs import API_KEY, EXECUTION_MODES, Playbooks, new_number
from support.process_watch import ProcessWatch
from support.simulator.client import Simulator


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="shows processes in another way")
def test_no_process_shows_the_api_key(playbooks: Playbooks, simulator: Simulator, key: KeyPair) -> None:
    # Long enough to be seen at work.
    simulator.faults({"*": [{"do": "answer", "status": 400, "body": {}, "delay": 1, "always": True}]})
    tasks = [playbooks.task(mode, mode, phone_number=new_number(), business_public_key=key.public) for mode in EXECUTION_MODES]
    with ProcessWatch() as watch:
        run = playbooks.run_tasks(tasks)
    assert [run.one(mode)["outcome"] for mode in EXECUTION_MODES] == ["rejected"] * 2
    seen = [f"{command} {environment}" for dummy, command, environment in watch.seen if f"HOME={playbooks.home} " in environment]
    for process in ("ansible-playbook", "AnsiballZ_kaleyra_flows_encryption"):
        assert any(process in text for text in seen)
    assert [text for text in seen if API_KEY in text] == []
