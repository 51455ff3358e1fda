# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What other users of the machine could see while a task runs. What a run leaves behind: ``functional/test_secrets.py``."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.keys import KeyPair
from support.playbook_runs import API_KEY, AS_A_MODULE, EXECUTION_MODES, Playbooks, new_number
from support.simulator.client import Simulator


@contextmanager
def watching_processes(home: Path) -> Iterator[dict[str, str]]:
    """Collect command lines and environments of all processes with this home that there are meanwhile, as the system shows them."""
    seen: dict[str, str] = {}
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.02):
            for process in Path("/proc").glob("[0-9]*"):
                try:
                    texts = [(process / name).read_bytes().replace(b"\0", b" ").decode(errors="replace") for name in ("cmdline", "environ")]
                except OSError:  # it has ended, or is somebody else's
                    continue
                if f"HOME={home} " in texts[1]:
                    seen.update({f"{process.name} {hash(text)}": text for text in texts})

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="shows processes in another way")
@pytest.mark.parametrize("mode", EXECUTION_MODES)
def test_no_process_shows_the_api_key(playbooks: Playbooks, simulator: Simulator, key: KeyPair, mode: str) -> None:
    number = new_number()
    # Long enough to be seen at work.
    simulator.faults({number: [{"do": "answer", "status": 400, "body": {}, "delay": 1.5}]})
    with watching_processes(playbooks.home) as seen:
        run = playbooks.run_tasks([playbooks.task("slow", mode, phone_number=number, business_public_key=key.public)])
    assert run.one("slow")["outcome"] == "rejected"
    assert any("ansible-playbook" in text for text in seen.values())
    # The module's process was among them, where there was one.
    assert any("AnsiballZ_kaleyra_flows_encryption" in text for text in seen.values()) == (mode == AS_A_MODULE)
    assert [name for name, text in seen.items() if API_KEY in text] == []
