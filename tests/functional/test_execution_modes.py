# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which way the work is done: inside Ansible's own worker, or as a module in a process of its own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from support.keys import KeyPair
from support.playbook_runs import EXECUTION_MODES, SID, WA_400, WORKER, Playbooks, new_number
from support.simulator.client import Simulator

# Hides packages from one process, as if they were not installed. The names are in HIDDEN_PACKAGES.
HIDE = """
import importlib.machinery, os, sys

class Finder(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] in os.environ["HIDDEN_PACKAGES"].split():
            return None
        return super().find_spec(name, path, target)

sys.meta_path[:] = [Finder if f is importlib.machinery.PathFinder else f for f in sys.meta_path]
"""


def site(folder: Path, code: str) -> str:
    """A folder for PYTHONPATH that runs the code as Python starts."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(code)
    return str(folder)


@pytest.mark.slow
def test_only_what_asks_for_a_process_gets_one(playbooks: Playbooks, simulator: Simulator, key: KeyPair) -> None:
    # Stands in for sudo, which is not everywhere: does the command that comes after its own arguments.
    sudo = playbooks.inputs / "sudo"
    sudo.write_text('#!/bin/sh\necho used >> "$SUDO_FILE"\nwhile [ "$1" != /bin/sh ]; do shift; done\nexec "$@"\n')
    sudo.chmod(0o755)
    used = playbooks.logs / "sudo"
    become = {"become": True, "become_method": "ansible.builtin.sudo", "become_exe": str(sudo)}
    in_worker: dict[str, dict[str, Any]] = {"plain": {}, "no become": {"become": False}, "empty environment": {"environment": {}}}
    as_module: dict[str, dict[str, Any]] = {"become": become, "async": {"async": 60, "poll": 1}, "environment": {"environment": {"SOME": "thing"}}}
    # The module gets its credentials from there.
    outside = {"environment": {"KALEYRA_SID": SID}}
    numbers = {name: new_number() for name in (*in_worker, *as_module, "block", "play")}

    def tasks(ways: dict[str, dict[str, Any]], **options: Any) -> list[dict[str, Any]]:
        return [
            playbooks.task(name, WORKER, keywords, phone_number=numbers[name], business_public_key=key.public, **options)
            for name, keywords in ways.items()
        ]

    env = {"ANSIBLE_BECOME_ALLOW_SAME_USER": "1", "SUDO_FILE": str(used)}
    first = playbooks.run_tasks(tasks(in_worker), "-vvv", env=env)
    # No process at all, not even a shell that makes a temporary folder.
    assert first.modules == []
    for mark in ("Using module file", "ansible-tmp", "EXEC"):
        assert mark not in first.output

    plays: list[dict[str, Any]] = [
        {"hosts": "all", "gather_facts": False, "tasks": [*tasks(as_module), {"block": tasks({"block": {}}, sid=""), **outside}]},
        {"hosts": "all", "gather_facts": False, "tasks": tasks({"play": {}}, sid=""), **outside},
    ]
    second = playbooks.run(plays, {"all": {"hosts": {"here": {"ansible_connection": "local"}}}}, "-vvv", env=env)
    assert second.modules.count("kaleyra_flows_encryption") == 5
    assert "async_status" in second.modules
    assert second.stdout.count("plugins/modules/kaleyra_flows_encryption.py") >= 5  # "Using module file"
    assert used.read_text()

    # And all came to the same.
    for name, number in numbers.items():
        result = (first if name in in_worker else second).one(name)
        own = {"ansible_job_id", "started", "finished", "results_file", "stdout", "stdout_lines", "stderr", "stderr_lines"}
        assert {k: v for k, v in result.items() if k not in own} == {
            "changed": True,
            "failed": False,
            "phone_number": number,
            "fingerprint": key.fingerprint,
            "previous_fingerprint": None,
            "reason": "absent",
            "attempts": 1,
            "http_status": 200,
            "code": "WA-200",
            "message": "Request Processed Successfully",
        }
    assert simulator.registered() == {SID: dict.fromkeys(numbers.values(), key.fingerprint)}


@pytest.mark.slow
def test_module_runs_without_requests_on_controller(
    playbooks: Playbooks, simulator: Simulator, key: KeyPair, tmp_path: Path
) -> None:
    hide = site(tmp_path / "hide", HIDE)
    register = playbooks.task("register", phone_number=new_number(), business_public_key=key.public)
    run = playbooks.run_tasks([register], env={"PYTHONPATH": hide, "HIDDEN_PACKAGES": "requests cryptography"})
    assert (run.modules, run.changed()) == (["kaleyra_flows_encryption"], 1)
    assert simulator.count() == 1

    # Missing on both sides: it says what is missing, and where.
    for hidden in ("requests", "cryptography"):
        tasks = [playbooks.task("register", phone_number=new_number(), business_public_key=key.public)]
        tasks.append({**tasks[0], "name": "check", "check_mode": True})
        run = playbooks.run_tasks(tasks, env={"PYTHONPATH": hide, "MODULE_PYTHONPATH": hide, "HIDDEN_PACKAGES": hidden})
        result, predicted = run.one("register"), run.one("check")
        assert result["failed"] and (predicted["failed"], predicted["msg"]) == (True, result["msg"])
        for part in (f"The Python library {hidden}", sys.executable, f"-m pip install {hidden}", "ansible_python_interpreter"):
            assert part in result["msg"]
        assert result["attempts"] == 0
        # Nothing was sent, so nothing is uncertain.
        assert not list(playbooks.default_cache.glob(f"*{result['phone_number']}*"))
    assert simulator.count() == 1


@pytest.mark.slow
def test_loop_goes_on_and_keeps_its_connection(playbooks: Playbooks, simulator: Simulator, key: KeyPair) -> None:
    loops = {mode: [new_number() for dummy in range(3)] for mode in EXECUTION_MODES}
    refused = {numbers[1] for numbers in loops.values()}
    simulator.faults({number: [WA_400] for number in refused})
    tasks = [
        playbooks.task(mode, mode, {"loop": numbers}, phone_number="{{ item }}", business_public_key=key.public) for mode, numbers in loops.items()
    ]
    run = playbooks.run_tasks(tasks)
    for mode, numbers in loops.items():
        assert {number: result["failed"] for number, result in run.by_item(mode).items()} == {number: number in refused for number in numbers}
        assert [o.status for o in run.of(mode)] == ["failed"]
    state = simulator.state()
    assert set(state["registered"][SID]) == {number for numbers in loops.values() for number in numbers} - refused
    assert state["request_count"] == 6
    assert state["connection_count"] == 1 + 3

    # The next run sends what failed, and nothing else.
    run = playbooks.run_tasks(tasks[:1])
    assert {number for number, result in run.by_item(WORKER).items() if result["changed"]} == {loops[WORKER][1]}
    assert simulator.count() == 7
