# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Jobs as AWX runs them: ansible-runner transmits a private data directory to a worker, of which nothing stays but the artifacts.

What AWX puts into that directory, and hands to ansible-runner, follows ``awx/main/tasks/jobs.py`` (`BaseTask.run`, `RunJob`),
``awx/main/models/inventory.py`` (`Inventory.get_script_data`) and ``awx_plugins/interfaces/_temporary_private_inject_api.py``
(`inject_credential`) of AWX 24.6. The worker is a process with next to no environment, a home, temporary folder and collections of its
own, in place of a container.
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
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ansible_runner.interface
import yaml
from ansible_runner.utils import args2cmdline
from jinja2.sandbox import ImmutableSandboxedEnvironment

CHECKOUT = Path(__file__).resolve().parents[2]

PROJECT = CHECKOUT / "docs/examples/awx_project"


class _UnsafeDumper(yaml.SafeDumper):
    """As awx/main/utils/safe_yaml.py writes answers: text is tagged, which ansible-core 2.19 and newer resolve to other types again."""

    def represent_data(self, data: Any) -> Any:
        return self.represent_scalar("!unsafe", data) if isinstance(data, str) else super().represent_data(data)


def unsafe_yaml(variables: Mapping[str, Any]) -> str:
    """Extra variables of a job, as AWX writes them."""
    return yaml.dump(dict(variables), Dumper=_UnsafeDumper, default_flow_style=False)


REGISTER, ENSURE_KEY_PAIR, ROTATE = "register.yml", "ensure_key_pair.yml", "rotate.yml"
"""Playbooks of the project."""
NUMBERS = "whatsapp_numbers"
"""The group that they are for."""
MAKE, REGISTERS, SUM_UP, PUBLISH = (
    "Create the private key",
    "Register the public key of each number",
    "Print the summary",
    "Publish the outcome of each number",
)
"""Tasks of the role."""


@dataclasses.dataclass
class Inventory:
    """An inventory of AWX: hosts and groups with variables, as the database has them."""

    hosts: dict[str, dict[str, Any]]
    groups: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    variables: dict[str, Any] = dataclasses.field(default_factory=dict)
    disabled: frozenset[str] = frozenset()

    def script(self, slice_number: int = 1, slice_count: int = 1) -> str:
        """The program that the job has for an inventory: of a sliced job, it knows of no other slice's hosts."""
        hosts = sorted(host for host in self.hosts if host not in self.disabled)[slice_number - 1 :: slice_count]
        data: dict[str, Any] = {"all": {"vars": self.variables}}
        for name, members in self.groups.items():
            there = [host for host in members if host in hosts]
            if there:
                data[name] = {"hosts": there, "children": [], "vars": {}}
        grouped = {host for members in self.groups.values() for host in members}
        data["all"]["hosts"] = [host for host in hosts if host not in grouped]
        added = {"remote_tower_enabled": "true", "remote_host_enabled": "true"}
        ids = {host: number for number, host in enumerate(self.hosts, start=1)}
        data["_meta"] = {
            "hostvars": {host: {**self.hosts[host], **added, "remote_tower_id": ids[host], "remote_host_id": ids[host]} for host in hosts}
        }
        return f"#! /usr/bin/env python3\n# -*- coding: utf-8 -*-\nprint({json.dumps(data)!r})\n"


@dataclasses.dataclass
class Credential:
    """A credential of a custom type: the type's ``inputs`` and ``injectors``, and what the form was filled in with."""

    definition: Mapping[str, Any]
    inputs: Mapping[str, Any]

    def but(self, **inputs: Any) -> Credential:
        """One that was filled in otherwise."""
        return dataclasses.replace(self, inputs={**self.inputs, **inputs})

    def inject(self, env: dict[str, str], directory: Path, container: Path) -> None:
        """Give a job what the type's injectors say: variables of its environment, and files in its private data directory."""
        tower = SimpleNamespace()
        namespace: dict[str, Any] = {"tower": tower}
        for name, value in self.inputs.items():
            if isinstance(value, bool) or value:
                namespace[name] = value
        for field in self.definition["inputs"]["fields"]:
            name = field["id"]
            if field.get("type") == "boolean":
                namespace.setdefault(name, False)
            if field.get("format") == "ssh_private_key" and name in namespace and not namespace[name].endswith("\n"):
                namespace[name] += "\n"
        injectors = self.definition["injectors"]
        sandbox = ImmutableSandboxedEnvironment()
        for label, template in injectors.get("file", {}).items():
            handle, name = tempfile.mkstemp(dir=directory / "env")
            with os.fdopen(handle, "w", newline="") as file:
                file.write(sandbox.from_string(template).render(**namespace))
            inside = str(container / "env" / Path(name).name)
            if "." not in label:
                tower.filename = inside
            else:
                tower.filename = getattr(tower, "filename", SimpleNamespace())
                setattr(tower.filename, label.split(".")[1], inside)
        for name, template in injectors.get("env", {}).items():
            env[name] = sandbox.from_string(template).render(**namespace)


@dataclasses.dataclass(frozen=True)
class Core:
    """An ansible-core: the folder of its programs."""

    version: str
    bin: Path


@dataclasses.dataclass(frozen=True)
class Job:
    """A job that has ended, and all that AWX gets of it.

    :param files: the artifacts, from the files' names to their texts
    :param vanished: names of the files that went with the home and the temporary folder of the job
    """

    status: str
    events: list[dict[str, Any]]
    files: dict[str, str]
    vanished: set[str]

    @property
    def stdout(self) -> str:
        return "\n".join(event["stdout"] for event in self.events if event.get("stdout"))

    @property
    def text(self) -> str:
        """The output in one line with single blanks, to look for sentences that were wrapped."""
        return " ".join(self.stdout.split())

    @property
    def artifacts(self) -> dict[str, Any]:
        """What the job has published by set_stats: AWX shows it, and hands it on to the next node of a workflow as extra variables."""
        artifacts: dict[str, Any] = self._stats["artifact_data"]
        return artifacts

    @property
    def _stats(self) -> dict[str, Any]:
        found: list[dict[str, Any]] = [event["event_data"] for event in self.events if event["event"] == "playbook_on_stats"]
        assert len(found) == 1, self.stdout
        stats: dict[str, Any] = found[0]
        return stats

    def summary(self, count: str) -> dict[str, int]:
        """How many times each host was ``changed`` or has ``failures``, as the job's page shows; only hosts with one."""
        counts: dict[str, int] = self._stats[count]
        return counts

    def of(self, task: str) -> dict[str, dict[str, Any]]:
        """The result of a task for each host that was not skipped."""
        return {
            event["event_data"]["host"]: event["event_data"]["res"]
            for event in self.events
            if event["event"] in ("runner_on_ok", "runner_on_failed") and event["event_data"].get("task") == task
        }

    def numbers(self) -> dict[str, dict[str, Any]]:
        """What came of each number, over all hosts."""
        results = self.of(REGISTERS).values()
        return {number["phone_number"]: number for result in results for number in result["numbers"]}

    def reasons(self) -> dict[str, str]:
        return {number: result["reason"] for number, result in self.numbers().items()}

    def count(self, event: str) -> int:
        """How many events of a kind there are."""
        return sum(found["event"] == event for found in self.events)


class AWX:
    """Runs jobs. What it has of its own it puts below one folder.

    :ivar lasting: a folder on the node that an administrator has exposed to jobs; all else that a job writes goes with the job
    """

    def __init__(self, core: Core) -> None:
        self.core = core
        # Not below pytest's folder: Ansible makes a socket in there, whose path may have 107 characters at most.
        self.folder = Path(tempfile.mkdtemp(prefix="k"))
        # ssh makes one as well, with a longer name.
        self._sockets = Path(tempfile.mkdtemp(prefix="k", dir="/tmp"))
        self.lasting = self.folder / "lasting"
        self.lasting.mkdir()
        self._ids = itertools.count(1)
        self._lock = threading.Lock()

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
        with self._lock:
            number = next(self._ids)
        directory, container = self.folder / f"awx_{number}", self.folder / f"r{number}"
        for folder in (directory, directory / "env", directory / "inventory"):
            folder.mkdir(mode=0o700)
        # All that is not in here, and not in `lasting`, does the job find as if it were the first one.
        world = {name: container.with_name(f"{container.name}_{name}") for name in ("home", "tmp")}
        for folder in (container, *world.values()):
            folder.mkdir(mode=0o700)
        try:
            shutil.copytree(PROJECT, directory / "project")
            for name, text in (project or {}).items():
                (directory / "project" / name).write_text(text)
            self._install_collection(directory / "requirements_collections")
            # AWX names the workflow of a sliced job after the job template.
            slice_variables = {"awx_job_template_name": "Register", "awx_workflow_job_name": "Register"} if slice_of[1] > 1 else {}
            script = directory / "inventory/hosts"
            script.write_text(inventory.script(*slice_of))
            script.chmod(0o700)
            (directory / "env/extravars").write_text(unsafe_yaml({**(extra_vars or {}), **self._variables_about(number), **slice_variables}))
            arguments = ["-u", machine[0] if machine else "root"]
            arguments += ["--check"] if check else []
            arguments += ["--diff"] if diff else []
            arguments += ["-l", limit] if limit else []
            arguments += [f"-{'v' * verbosity}"] if verbosity else []
            (directory / "env/cmdline").write_text(args2cmdline(*arguments))
            settings = {"suppress_ansible_output": True, "suppress_output_file": False, "pexpect_timeout": 1}
            (directory / "env/settings").write_text(json.dumps(settings))
            env = {
                "AWX_PRIVATE_DATA_DIR": str(directory),
                "JOB_ID": str(number),
                "INVENTORY_ID": "1",
                "PROJECT_REVISION": "0" * 40,
                "AWX_HOST": "https://awx.example.com",
                "MAX_EVENT_RES": "700000",
                "ANSIBLE_COLLECTIONS_PATH": f"{container}/requirements_collections",
                "ANSIBLE_SSH_CONTROL_PATH_DIR": f"{self._sockets}/{number}",
                # Results with the module's arguments, as all had them before core 2.21: so that secrets would be seen.
                "ANSIBLE_INJECT_INVOCATION": "1",
                # With `-u root`, Ansible takes the folder of root on this machine for that of a container.
                "ANSIBLE_REMOTE_TEMP": f"{world['tmp']}/ansible",
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
            return self._run(directory, container, world, parameters)
        finally:
            for folder in (directory, container, *world.values()):
                shutil.rmtree(folder)
            directory.with_name(f"{directory.name}_stream").unlink(missing_ok=True)

    def _run(self, directory: Path, container: Path, world: Mapping[str, Path], parameters: Mapping[str, Any]) -> Job:
        stream = directory.with_name(f"{directory.name}_stream")
        with stream.open("wb") as sent:
            ansible_runner.interface.run(streamer="transmit", _output=sent, private_data_dir=str(directory), **parameters)
        with stream.open("rb") as received:
            worker = subprocess.run(
                [sys.executable, "-m", "ansible_runner", "worker", "--private-data-dir", container],
                stdin=received,
                capture_output=True,
                cwd=world["home"],
                env={
                    "PATH": f"{self.core.bin}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                    "LANG": "C.UTF-8",
                    "HOME": str(world["home"]),
                    "TMPDIR": str(world["tmp"]),
                },
                timeout=300,  # against a job that hangs, not a measure
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
        artifacts = results / "artifacts" / parameters["ident"]
        # Not the command with its environment, which AWX shows to nobody.
        files = {
            str(path.relative_to(artifacts)): path.read_text(errors="replace")
            for path in artifacts.rglob("*")
            if path.is_file() and path != artifacts / "command"
        }
        assert {"stdout", "rc"} <= files.keys() and len(files) > len(events)
        vanished = {str(path) for folder in world.values() for path in folder.rglob("*") if path.is_file()}
        job = Job(done.status, events, files, vanished)
        # Whatever a test is about: no job may end in a stack trace, or lean on what Ansible drops.
        for mark in ("Traceback (most recent call last)", "DEPRECATION WARNING", "Found duplicate mapping key", "Unexpected failure"):
            assert mark not in job.stdout, job.stdout
        assert job.count("playbook_on_stats") == 1, job.stdout + worker.stdout.decode()
        return job

    @staticmethod
    def _install_collection(path: Path) -> None:
        """What a project's update does with collections/requirements.yml."""
        target = path / "ansible_collections/kaleyra/whatsapp"
        target.mkdir(parents=True)
        for name in ("meta", "playbooks", "plugins", "roles"):
            shutil.copytree(CHECKOUT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(CHECKOUT / "galaxy.yml", target)

    @staticmethod
    def _variables_about(number: int) -> dict[str, Any]:
        """What AWX says of each job, above all other variables."""
        about = {
            "job_id": number,
            "job_launch_type": "manual",
            "job_template_id": 7,
            "job_template_name": "Register WhatsApp numbers",
            "project_revision": "0" * 40,
            "project_scm_branch": "",
            "inventory_id": 1,
            "inventory_name": "WhatsApp numbers",
            "execution_node": "node1",
            "user_id": 1,
            "user_name": "admin",
            "user_email": "",
            "user_first_name": "",
            "user_last_name": "",
        }
        return {f"{prefix}_{name}": value for prefix in ("awx", "tower") for name, value in about.items()}
