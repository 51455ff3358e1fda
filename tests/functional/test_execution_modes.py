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
from support.playbook_runs import EXECUTION_MODES, SID, WA_400, WORKER, Playbooks, assert_execution_mode, new_number
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

# Takes down each import of these packages, with the process that asked for it; children of a fork inherit the hook.
WATCH = """
import os, sys

def hook(event, arguments):
    if event == "import" and arguments[0].partition(".")[0] in ("requests", "cryptography"):
        with open(os.environ["IMPORTS_FILE"], "a") as file:
            file.write(f"{os.getpid()} {arguments[0]}\\n")

sys.addaudithook(hook)
"""


def site(folder: Path, code: str) -> str:
    """A folder for PYTHONPATH that runs the code as Python starts."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(code)
    return str(folder)


def test_only_what_asks_for_a_process_gets_one(playbooks: Playbooks, simulator: Simulator, key: KeyPair) -> None:
    # Stands in for sudo, which is not everywhere: does the command that comes after its own arguments.
    sudo = playbooks.inputs / "sudo"
    sudo.write_text('#!/bin/sh\necho used >> "$SUDO_FILE"\nwhile [ "$1" != /bin/sh ]; do shift; done\nexec "$@"\n')
    sudo.chmod(0o755)
    used = playbooks.logs / "sudo"
    become = {"become": True, "become_method": "ansible.builtin.sudo", "become_exe": str(sudo)}
    ways: dict[str, dict[str, Any]] = {
        "plain": {},
        "become": become,
        "async": {"async": 60, "poll": 1},
        "environment": {"environment": {"SOME": "thing"}},
        "no become": {"become": False},
        "empty environment": {"environment": {}},
    }
    results = {}
    numbers = {name: new_number() for name in ways}
    tasks = {
        name: playbooks.task(name, WORKER, keywords, phone_number=numbers[name], business_public_key=key.public)
        for name, keywords in ways.items()
    }
    env = {"ANSIBLE_BECOME_ALLOW_SAME_USER": "1", "SUDO_FILE": str(used)}
    in_process, not_in_process = ["plain", "no become", "empty environment"], ["become", "async", "environment"]

    run = playbooks.run_tasks([tasks[name] for name in in_process], "-vvv", env=env)
    results.update({name: run.one(name) for name in in_process})
    # No process at all, not even a shell that makes a temporary folder.
    assert run.modules == []
    for mark in ("Using module file", "ansible-tmp", "EXEC"):
        assert mark not in run.output

    run = playbooks.run_tasks([tasks[name] for name in not_in_process], "-vvv", env=env)
    results.update({name: run.one(name) for name in not_in_process})
    assert run.modules.count("kaleyra_flows_encryption") == 3
    assert "async_status" in run.modules
    assert run.stdout.count("plugins/modules/kaleyra_flows_encryption.py") >= 3  # "Using module file"
    assert used.read_text()

    # And all came to the same.
    for name, result in results.items():
        own = {"ansible_job_id", "started", "finished", "results_file", "stdout", "stdout_lines", "stderr", "stderr_lines"}
        assert {k: v for k, v in result.items() if k not in own} == {
            "changed": True,
            "failed": False,
            "phone_number": numbers[name],
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
def test_environment_and_become_of_the_play_count(playbooks: Playbooks, simulator: Simulator, key: KeyPair) -> None:
    task = playbooks.task("register", WORKER, phone_number="{{ number }}", business_public_key=key.public)
    hosts = {"hosts": {"here": {"ansible_connection": "local", "number": new_number()}}}
    # The task's own environment is what the module gets its credentials from.
    block = {"block": [task], "environment": {"KALEYRA_SID": SID}}
    plays: list[dict[str, Any]] = [
        {"hosts": "all", "gather_facts": False, "tasks": [block]},
        {"hosts": "all", "gather_facts": False, "environment": {"KALEYRA_SID": SID}, "tasks": [{**task, "name": "again"}]},
    ]
    run = playbooks.run(plays, {"all": hosts}, variables={"sid": ""})
    assert run.modules == ["kaleyra_flows_encryption"] * 2
    assert run.one("register")["reason"] == "absent"
    assert run.one("again")["reason"] == "up_to_date"
    assert simulator.count() == 1


@pytest.mark.slow
def test_module_runs_without_requests_on_controller(
    playbooks: Playbooks, simulator: Simulator, key: KeyPair, tmp_path: Path
) -> None:
    hide = site(tmp_path / "hide", HIDE)
    tasks = [playbooks.task("register", phone_number=new_number(), business_public_key=key.public)]
    for hidden in ("requests", "requests cryptography"):
        run = playbooks.run_tasks(tasks, env={"PYTHONPATH": hide, "HIDDEN_PACKAGES": hidden})
        assert run.modules == ["kaleyra_flows_encryption"], hidden
    assert simulator.count() == 1

    # Missing on both sides: it says what is missing, and where.
    for hidden in ("requests", "cryptography"):
        tasks = [playbooks.task("register", phone_number=new_number(), business_public_key=key.public)]
        env = {"PYTHONPATH": hide, "MODULE_PYTHONPATH": hide, "HIDDEN_PACKAGES": hidden}
        result, predicted = (playbooks.run_tasks(tasks, *mode, env=env).one("register") for mode in ([], ["--check"]))
        assert result["failed"]
        assert (predicted["failed"], predicted["msg"]) == (True, result["msg"])
        for part in (f"The Python library {hidden}", sys.executable, f"-m pip install {hidden}", "ansible_python_interpreter"):
            assert part in result["msg"]
        assert result["attempts"] == 0
        # Nothing was sent, so nothing is uncertain.
        assert not list(playbooks.default_cache.glob(f"*{result['phone_number']}*"))
    assert simulator.count() == 1


@pytest.mark.parametrize("execution_mode", EXECUTION_MODES)
@pytest.mark.slow
def test_unchanged_run_imports_no_library(
    playbooks: Playbooks, key: KeyPair, execution_mode: str, tmp_path: Path
) -> None:
    imports = tmp_path / "imports"
    watch = site(tmp_path / "watch", WATCH)
    env = {"PYTHONPATH": watch, "MODULE_PYTHONPATH": watch, "IMPORTS_FILE": str(imports)}
    tasks = [playbooks.task("register", execution_mode, phone_number=new_number(), business_public_key=key.public)]

    def imported() -> tuple[set[str], set[str]]:
        """What the first process has imported, which is Ansible itself, and what all others have."""
        lines = [line.split() for line in imports.read_text().splitlines()]
        imports.unlink()
        own = {name for pid, name in lines if pid == lines[0][0]}
        return own, {name for pid, name in lines if pid != lines[0][0]}

    run = playbooks.run_tasks(tasks, env=env)
    assert run.changed() == 1
    dummy, others = imported()
    assert "requests" in others  # so this test would see it

    run = playbooks.run_tasks(tasks, env=env)
    assert run.changed() == 0
    assert_execution_mode(run, execution_mode)
    own, others = imported()
    assert "requests" not in own
    assert others == set()


@pytest.mark.parametrize("execution_mode", EXECUTION_MODES)
@pytest.mark.slow
def test_loop_goes_on_and_keeps_its_connection(
    playbooks: Playbooks, simulator: Simulator, key: KeyPair, execution_mode: str
) -> None:
    numbers = [new_number() for dummy in range(5)]
    simulator.faults({numbers[1]: [WA_400]})
    loop = {"loop": numbers}
    tasks = [playbooks.task("register", execution_mode, loop, phone_number="{{ item }}", business_public_key=key.public)]

    run = playbooks.run_tasks(tasks)
    assert {number: result["failed"] for number, result in run.by_item("register").items()} == {
        number: number == numbers[1] for number in numbers
    }
    assert [o.status for o in run.of("register")] == ["failed"]
    state = simulator.state()
    assert set(state["registered"][SID]) == {*numbers} - {numbers[1]}
    assert state["request_count"] == 5
    assert state["connection_count"] == (1 if execution_mode == WORKER else 5)

    # The next run sends what failed, and nothing else.
    run = playbooks.run_tasks(tasks)
    assert [number for number, result in run.by_item("register").items() if result["changed"]] == [numbers[1]]
    assert simulator.count() == 6


def test_parallel_hosts_register_once_each(playbooks: Playbooks, simulator: Simulator, key: KeyPair) -> None:
    numbers = [new_number() for dummy in range(12)]
    hosts = {number: {"ansible_connection": "local"} for number in numbers}
    task = playbooks.task("register", phone_number="{{ inventory_hostname }}", business_public_key=key.public)
    play = {"hosts": "all", "gather_facts": False, "tasks": [task, {**task, "name": "again"}]}
    run = playbooks.run([play], {"all": {"hosts": hosts}}, "--forks", "6")
    assert run.rc == 0
    assert run.modules == []
    assert {host: result["reason"] for host, result in run.by_host("register").items()} == dict.fromkeys(numbers, "absent")
    assert {host: result["reason"] for host, result in run.by_host("again").items()} == dict.fromkeys(numbers, "up_to_date")
    assert simulator.count() == 12
    assert simulator.registered() == {SID: dict.fromkeys(numbers, key.fingerprint)}
