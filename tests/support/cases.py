# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Cases that are run in both execution modes: many hosts of one play, each with its own number, options and environment."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from support.keys import KeyPair
from support.playbook_runs import AS_A_MODULE, FOLDER, Playbooks

# More than a busy machine needs to start a worker or a module. What is tested is that nothing waits without end.
START_UP = 30.0

# Runs as the module's Python starts. VmHWM is of this process alone, where ru_maxrss is inherited through exec.
_METER = """
import atexit, os

def write():
    with open("/proc/self/status") as status:
        peak = next(line.split()[1] for line in status if line.startswith("VmHWM:"))
    with open(os.path.join(os.environ["METER_FOLDER"], os.environ["CASE"]), "w") as file:
        file.write(peak)

if "CASE" in os.environ:
    atexit.register(write)
"""


@dataclasses.dataclass(frozen=True)
class Try:
    """One case in one execution mode.

    :param facts: the task's result
    :param then: the result of the same task in check mode that follows
    :param records: fields of every record file that it left
    :param leftovers: names of other files beside them, the lock left out
    :param peak_mib: largest memory of the module's process, None for the worker
    """

    facts: dict[str, Any]
    seconds: float
    then: dict[str, Any]
    records: list[dict[str, Any]]
    leftovers: list[str]
    peak_mib: float | None = None


@dataclasses.dataclass(frozen=True)
class ToDo:
    """What a host of the play is to do.

    :param options: of the module, on top of account and key
    :param environment: of the process that does the work
    """

    name: str
    number: str
    options: Mapping[str, Any]
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)


def try_all(
    playbooks: Playbooks, to_do: Sequence[ToDo], key: KeyPair, execution_mode: str, *, forks: int
) -> tuple[dict[str, Try], str]:
    """Run the cases with few starts of Ansible, and return what came of them, and all that was written anywhere.

    The environment of a worker is that of ``ansible-playbook``, so that each different one costs a run there; a module has one
    of its own.
    """
    groups: dict[Any, list[ToDo]] = {}
    for place, one in enumerate(to_do):
        # Not too many modules in one run, whose time is limited.
        group = place // 40 if execution_mode == AS_A_MODULE else tuple(sorted(one.environment.items()))
        groups.setdefault(group, []).append(one)
    tried: dict[str, Try] = {}
    outputs = []
    for members in groups.values():
        done, output = _run(playbooks, members, key, execution_mode, forks, {} if execution_mode == AS_A_MODULE else members[0].environment)
        tried.update(done)
        outputs.append(output)
    # Everything that somebody could read afterwards, not the input files.
    outputs.extend(playbooks.leftovers().values())
    return tried, "\n".join(outputs)


def _run(
    playbooks: Playbooks, to_do: Sequence[ToDo], key: KeyPair, execution_mode: str, forks: int, environment: Mapping[str, str]
) -> tuple[dict[str, Try], str]:
    caches = playbooks.folder / "caches" / execution_mode
    meters = playbooks.folder / "meters" / execution_mode
    meters.mkdir(parents=True, exist_ok=True)
    site = playbooks.inputs / "site"
    site.mkdir(exist_ok=True)
    (site / "sitecustomize.py").write_text(_METER)
    stopwatch = playbooks.logs / "stopwatch"
    stopwatch.write_text("")

    options = sorted({name for one in to_do for name in one.options} | {"timeout", "retries"})
    given = {name: f"{{{{ case.{name} | default(omit) }}}}" for name in options}
    given.update(phone_number="{{ number }}", business_public_key=key.public, cache_path=f"{caches}/{{{{ inventory_hostname }}}}")
    keywords: dict[str, Any] = {"ignore_errors": True}
    if execution_mode == AS_A_MODULE:
        keywords["environment"] = "{{ case_environment }}"
    tasks = [
        playbooks.task("try", execution_mode, keywords, **given),
        # By the other way, where that is the module's: the records are the same.
        playbooks.task("look", keywords={"check_mode": True, "ignore_errors": True}, **given),
    ]
    hosts = {
        one.name: {
            "ansible_connection": "local",
            "number": one.number,
            "case": dict(one.options),
            "case_environment": {"CASE": one.name, "METER_FOLDER": str(meters), **one.environment},
        }
        for one in to_do
    }
    env = {
        **environment,
        "ANSIBLE_CALLBACK_PLUGINS": str(FOLDER / 'callback_plugins'),
        "ANSIBLE_CALLBACKS_ENABLED": "recorder,stopwatch",
        "ANSIBLE_LOG_PATH": str(playbooks.logs / f"ansible-{execution_mode}.log"),
        "STOPWATCH_FILE": str(stopwatch),
        "MODULE_PYTHONPATH": str(site),
        # Half the processes for each module, as there are many here.
        "ANSIBLE_PIPELINING": "1",
    }
    play = {"hosts": "all", "gather_facts": False, "tasks": tasks}
    run = playbooks.run([play], {"all": {"hosts": hosts}}, "-f", str(forks), env=env)
    by_host, then = run.by_host("try"), run.by_host("look")
    assert by_host.keys() == then.keys() == hosts.keys(), run.output
    # Each process has left its figure: that is how it shows which way the work went.
    metered = {path.name for path in meters.iterdir()} & hosts.keys()
    assert metered == (hosts.keys() if execution_mode == AS_A_MODULE else set())
    seconds = {(line["host"], line["task"]): line["seconds"] for line in map(json.loads, stopwatch.read_text().splitlines())}
    tried = {}
    for name in hosts:
        files = [path for path in (caches / name).glob("*") if path.name != ".lock"]
        tried[name] = Try(
            facts=by_host[name],
            seconds=seconds[name, "try"],
            then=then[name],
            records=[json.loads(path.read_text()) for path in files if path.suffix == ".json"],
            leftovers=[path.name for path in files if path.suffix != ".json"],
            peak_mib=int((meters / name).read_text()) / 1024 if execution_mode == AS_A_MODULE else None,
        )
    return tried, run.output
