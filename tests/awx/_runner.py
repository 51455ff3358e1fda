# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Jobs as AWX runs them: ansible-runner transmits a private data directory to a worker, from which only the artifacts come back.

What AWX 24.6 puts into that directory, and passes to ansible-runner, is in ``awx/main/tasks/jobs.py`` (`BaseTask.run`, `RunJob`). The worker is a
process with next to no environment, and with a home, a temporary folder and collections of its own, in place of a container.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ansible_runner.interface
import pytest
import yaml
from ansible_runner.utils import args2cmdline
from jinja2.sandbox import ImmutableSandboxedEnvironment
from support.role import prefixed

CHECKOUT = Path(__file__).resolve().parents[2]
PROJECT = CHECKOUT / "docs/examples/awx_project"

# Playbooks of the project, and the group that they are for.
REGISTER, ENSURE_KEY_PAIR, ROTATE = "register.yml", "ensure_key_pair.yml", "rotate.yml"
NUMBERS = "whatsapp_numbers"

# Tasks of the role.
CREATE = "Ensure the key pairs"
REGISTERS = "Register the public key of each number"


class _UnsafeDumper(yaml.SafeDumper):
    def represent_data(self, data: Any) -> Any:
        return self.represent_scalar("!unsafe", data) if isinstance(data, str) else super().represent_data(data)


def unsafe_yaml(variables: Mapping[str, Any]) -> str:
    """Return extra variables as awx/main/utils/safe_yaml.py writes them. ansible-core 2.19 and newer resolve the tagged text to other types."""
    return yaml.dump(dict(variables), Dumper=_UnsafeDumper, default_flow_style=False)


@dataclasses.dataclass
class Inventory:
    """Hosts and groups with variables, as AWX's database has them."""

    hosts: dict[str, dict[str, Any]]
    groups: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    variables: dict[str, Any] = dataclasses.field(default_factory=dict)
    disabled: frozenset[str] = frozenset()

    @classmethod
    def of_numbers(cls, *numbers: str, hosts: Mapping[str, dict[str, Any]] | None = None, **variables: Any) -> Inventory:
        """Return one with numbers, further hosts, and variables of the role without its prefix."""
        return cls({**{number: {} for number in numbers}, **(hosts or {})}, {NUMBERS: [*numbers]}, prefixed(variables))

    def script(self, slice_number: int, slice_count: int) -> str:
        """Return the script that is the job's inventory: in a slice without the other slices' hosts, and without empty groups.

        Source: awx/main/models/inventory.py, Inventory.get_script_data
        """
        hosts = sorted(host for host in self.hosts if host not in self.disabled)[slice_number - 1 :: slice_count]
        members = {name: [host for host in group if host in hosts] for name, group in self.groups.items()}
        data: dict[str, Any] = {name: {"hosts": found, "children": [], "vars": {}} for name, found in members.items() if found}
        grouped = set(itertools.chain(*members.values()))
        data["all"] = {"vars": self.variables, "hosts": [host for host in hosts if host not in grouped]}
        data["_meta"] = {"hostvars": {host: {**self.hosts[host], "remote_tower_enabled": "true"} for host in hosts}}
        return f"#! /usr/bin/env python3\n# -*- coding: utf-8 -*-\nprint({json.dumps(data)!r})\n"


@dataclasses.dataclass
class Credential:
    """A credential of a custom type.

    :param definition: the type, with ``inputs`` and ``injectors``
    :param inputs: what its form was filled in with
    """

    definition: Mapping[str, Any]
    inputs: Mapping[str, Any]

    def but(self, **inputs: Any) -> Credential:
        """Return one with other inputs."""
        return dataclasses.replace(self, inputs={**self.inputs, **inputs})

    def inject(self, env: dict[str, str], directory: Path, container: Path) -> None:
        """Add the variables to the job's environment, and the files to its private data directory.

        Source: awx_plugins/interfaces/_temporary_private_inject_api.py, inject_credential
        """
        namespace: dict[str, Any] = {name: value for name, value in self.inputs.items() if value}
        for field in self.definition["inputs"]["fields"]:
            if field.get("format") == "ssh_private_key" and namespace.get(field["id"], "\n")[-1] != "\n":
                namespace[field["id"]] += "\n"
        sandbox = ImmutableSandboxedEnvironment()
        files = SimpleNamespace()
        for label, template in self.definition["injectors"].get("file", {}).items():
            handle, name = tempfile.mkstemp(dir=directory / "env")
            with os.fdopen(handle, "w", newline="") as file:
                file.write(sandbox.from_string(template).render(**namespace))
            setattr(files, label.split(".")[1], str(container / "env" / Path(name).name))
        namespace["tower"] = SimpleNamespace(filename=files)
        for name, template in self.definition["injectors"].get("env", {}).items():
            env[name] = sandbox.from_string(template).render(**namespace)


@dataclasses.dataclass(frozen=True)
class Core:
    """An ansible-core: the folder of its programs."""

    version: str
    bin: Path


def on_cores(*versions: str) -> pytest.MarkDecorator:
    """Mark tests to be run with these. AAP has 2.16, which keeps a survey's answers as text. The newest one retypes them."""
    return pytest.mark.parametrize("core", versions, indirect=True)


@dataclasses.dataclass(frozen=True)
class Job:
    """A job that has ended, and all that AWX gets of it.

    :param files: the artifacts, from the files' names to their texts
    :param vanished: the same of the files that went with the home and the temporary folder of the job
    """

    status: str
    events: list[dict[str, Any]]
    files: dict[str, str]
    vanished: dict[str, str]

    @property
    def stdout(self) -> str:
        return "\n".join(event["stdout"] for event in self.events if event.get("stdout"))

    @property
    def text(self) -> str:
        """The output in one line with single blanks, to look for sentences that were wrapped."""
        return " ".join(self.stdout.split())

    @property
    def artifacts(self) -> dict[str, Any]:
        """What the job published by set_stats. AWX shows it, and gives it to the next node of a workflow as extra variables."""
        return self.summary("artifact_data")

    def summary(self, count: str) -> dict[str, Any]:
        """Return how many ``changed`` or ``failures`` the job's page shows for each host, hosts without one left out."""
        (stats,) = [event["event_data"] for event in self.events if event["event"] == "playbook_on_stats"]
        return dict(stats[count])

    def of(self, task: str) -> dict[str, dict[str, Any]]:
        """Return a task's result on each host that was not skipped."""
        return {
            event["event_data"]["host"]: event["event_data"]["res"]
            for event in self.events
            if event["event"] in ("runner_on_ok", "runner_on_failed") and event["event_data"].get("task") == task
        }

    def reasons(self) -> dict[str, str]:
        """Return each number's reason, over all hosts."""
        return {number["phone_number"]: number["reason"] for result in self.of(REGISTERS).values() for number in result["numbers"]}


class AWX:
    """Runs jobs.

    :ivar lasting: a folder that is exposed to jobs; all else that a job writes vanishes with it
    """

    def __init__(self, core: Core) -> None:
        self.core = core
        # Not below pytest's folder: the paths of Ansible's and ssh's sockets may have 107 characters at most.
        self.folder = Path(tempfile.mkdtemp(prefix="k"))
        self._sockets = Path(tempfile.mkdtemp(prefix="k", dir="/tmp"))
        self.lasting = self.folder / "lasting"
        self.lasting.mkdir()
        self._ids = itertools.count(1)

    def remove(self) -> None:
        shutil.rmtree(self.folder)
        # An ssh that waited for another task may be removing its socket at this moment.
        shutil.rmtree(self._sockets, ignore_errors=True)

    def run(
        self,
        playbook: str,
        inventory: Inventory,
        *,
        credentials: Sequence[Credential] = (),
        extra_vars: Mapping[str, Any] | None = None,
        machine: tuple[str, str] | None = None,
        check: bool = False,
        diff: bool = False,
        verbosity: int = 0,
        limit: str = "",
        slice_of: tuple[int, int] = (1, 1),
        fact_cache: bool = False,
        project: Mapping[str, str] | None = None,
    ) -> Job:
        """Run a job template.

        :param machine: user name and private key of a machine credential
        :param slice_of: which slice, of how many
        :param project: further files of the project
        """
        number = next(self._ids)
        directory, container = self.folder / f"awx_{number}", self.folder / f"r{number}"
        # All that a job finds is in these, and in `lasting`.
        home, temporary = (container.with_name(f"{container.name}_{name}") for name in ("home", "tmp"))
        for folder in (directory, directory / "env", directory / "inventory", container, home, temporary):
            folder.mkdir(mode=0o700)
        try:
            shutil.copytree(PROJECT, directory / "project")
            for name, text in (project or {}).items():
                (directory / "project" / name).write_text(text)
            _install_collection(directory / "requirements_collections")
            script = directory / "inventory/hosts"
            script.write_text(inventory.script(*slice_of))
            script.chmod(0o700)
            (directory / "env/extravars").write_text(unsafe_yaml({**(extra_vars or {}), **_meta_variables(number, is_slice=slice_of[1] > 1)}))
            given = {"--check": check, "--diff": diff, f"-{'v' * verbosity}": verbosity, f"-l{limit}": limit}
            arguments = ["-u", machine[0] if machine else "root", *(argument for argument, wanted in given.items() if wanted)]
            (directory / "env/cmdline").write_text(args2cmdline(*arguments))
            settings = {"suppress_ansible_output": True, "suppress_output_file": False, "pexpect_timeout": 1}
            (directory / "env/settings").write_text(json.dumps(settings))
            env = {
                "AWX_PRIVATE_DATA_DIR": str(directory),
                "JOB_ID": str(number),
                "INVENTORY_ID": "1",
                "AWX_HOST": "https://awx.example.com",
                "MAX_EVENT_RES": "700000",
                "ANSIBLE_COLLECTIONS_PATH": f"{container}/requirements_collections",
                "ANSIBLE_SSH_CONTROL_PATH_DIR": f"{self._sockets}/{number}",
                # Results with the module's arguments, as before ansible-core 2.21, so that secrets would be seen.
                "ANSIBLE_INJECT_INVOCATION": "1",
                # With `-u root` Ansible would use root's folder on this machine.
                "ANSIBLE_REMOTE_TEMP": f"{temporary}/ansible",
            }
            for credential in credentials:
                credential.inject(env, directory, container)
            parameters = {
                "ident": str(number),
                "playbook": playbook,
                "envvars": env,
                "suppress_env_files": True,
                "fact_cache_type": "jsonfile" if fact_cache else "",
                **({"ssh_key": machine[1]} if machine else {}),
            }
            return self._run(directory, container, home, temporary, parameters)
        finally:
            for folder in (directory, container, home, temporary):
                shutil.rmtree(folder)

    def _run(self, directory: Path, container: Path, home: Path, temporary: Path, parameters: Mapping[str, Any]) -> Job:
        with tempfile.NamedTemporaryFile() as stream:
            ansible_runner.interface.run(streamer="transmit", _output=stream, private_data_dir=str(directory), **parameters)
            stream.seek(0)
            sent = stream.read()
        worker = subprocess.run(
            [sys.executable, "-m", "ansible_runner", "worker", "--private-data-dir", container],
            input=sent,
            capture_output=True,
            cwd=home,
            env={
                "PATH": f"{self.core.bin}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "LANG": "C.UTF-8",
                "HOME": str(home),
                "TMPDIR": str(temporary),
            },
            timeout=900,  # against a job that hangs, not a measure
            check=False,
        )
        assert worker.stderr == b"", worker.stderr.decode()
        events: list[dict[str, Any]] = []

        def keep(event: dict[str, Any]) -> bool:
            events.append(event)
            return True

        results = directory / "results"
        done = ansible_runner.interface.run(
            streamer="process",
            _input=io.BytesIO(worker.stdout),
            private_data_dir=str(results),
            ident=parameters["ident"],
            quiet=True,
            event_handler=keep,
        )
        files = _texts(results / "artifacts" / parameters["ident"])
        del files["command"]  # with the job's environment, which AWX shows to nobody
        assert {"stdout", "rc"} <= files.keys() and len(files) > len(events)
        job = Job(done.status, events, files, {**_texts(home), **_texts(temporary)})
        # No job may end in a stack trace, or rely on what Ansible will drop.
        for mark in ("Traceback (most recent call last)", "DEPRECATION WARNING", "Found duplicate mapping key", "Unexpected failure"):
            assert mark not in job.stdout, job.stdout
        assert [event["event"] for event in events].count("playbook_on_stats") == 1, job.stdout + worker.stdout.decode()
        return job


def _texts(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file()}


def _install_collection(path: Path) -> None:
    """Do what a project's update does with collections/requirements.yml."""
    target = path / "ansible_collections/kaleyra/whatsapp"
    target.mkdir(parents=True)
    for name in ("meta", "playbooks", "plugins", "roles"):
        shutil.copytree(CHECKOUT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(CHECKOUT / "galaxy.yml", target)


def _meta_variables(number: int, is_slice: bool) -> dict[str, Any]:
    """Return the variables that AWX gives to each job, above all others.

    Source: awx/main/models/unified_jobs.py, awx_meta_vars; AWX names the workflow of a sliced job after the job template
    """
    about = {"job_id": number, "job_launch_type": "manual", "job_template_id": 7, "job_template_name": "Register", "inventory_id": 1}
    if is_slice:
        about["workflow_job_name"] = "Register"
    return {f"{prefix}_{name}": value for prefix in ("awx", "tower") for name, value in about.items()}
