# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real runs of ``ansible-playbook``, apart from the machine's own settings, and their results read by machine."""

from __future__ import annotations

import base64
import dataclasses
import itertools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

FOLDER = Path(__file__).resolve().parent
CHECKOUT = FOLDER.parents[1]
COLLECTIONS = os.environ.get("ANSIBLE_COLLECTIONS_PATH") or str(CHECKOUT / ".cache/collections")
BIN = Path(sys.executable).parent

SID = "HXAP16FUNC0097IN"
API_KEY = "Functional-Tests-Api-Key-0f9d1c"
CLOSED_SID = "HXAP16FUNC0098IN"
CLOSED_API_KEY = "Functional-Tests-Api-Key-Closed"
"""Of an account that gets 401 WA-401."""
ACCOUNTS: dict[str, str | dict[str, Any]] = {SID: API_KEY, CLOSED_SID: {"api_key": CLOSED_API_KEY, "available": False}}

MODULE = "kaleyra.whatsapp.kaleyra_flows_encryption"
INFO = f"{MODULE}_info"

# The two ways to the same work: inside Ansible's worker, or as a module in a process of its own.
WORKER, AS_A_MODULE = "worker", "module"
EXECUTION_MODES = (WORKER, AS_A_MODULE)


def _answer(status: int, code: str, message: str, error: Any, data: Any, *, apply: bool = False) -> dict[str, Any]:
    body = {"code": code, "message": message, "data": data, "error": error}
    return {"do": "answer", "status": status, "body": body, "apply": apply}


# Faults of the simulator: answers of the API as its vendor's page prints them, and an answer that is lost.
WA_200 = _answer(200, "WA-200", "Request Processed Successfully", {}, {"success": True}, apply=True)
WA_400 = _answer(400, "WA-400", "Refer to correct payload format", {"payload": "Incorrect payload format"}, {})
WA_500 = _answer(500, "WA-500", "Please try again later", {"error": "Internal server error"}, {})
RBC001 = _answer(401, "RBC001", "Incorrect SID or API key.", {"error": "Incorrect SID or API key."}, [])
LOST: dict[str, Any] = {"do": "reset", "apply": True}

_numbers = itertools.count(int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").lstrip("gw")) * 1_000_000 + 919_870_000_001)


def new_number() -> str:
    """A number that no other test uses."""
    return f"+{next(_numbers)}"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What one task did on one host, or with one item of its loop."""

    play: str
    task: str
    action: str
    host: str
    is_item: bool
    status: str
    result: dict[str, Any]

    @property
    def facts(self) -> dict[str, Any]:
        """The result without what Ansible and loops add to it, and ``failed`` in every one, which newer cores leave out."""
        added = ("invocation", "ansible_facts", "ansible_loop_var", "exception", "_ansible", "item")
        facts = {key: value for key, value in self.result.items() if not key.startswith(added)}
        return {**facts, "failed": self.status == "failed"}


@dataclasses.dataclass(frozen=True)
class Run:
    """A run of ``ansible-playbook`` that has ended.

    :param modules: names of the modules that ran as processes of their own, in order
    """

    rc: int
    stdout: str
    stderr: str
    outcomes: list[Outcome]
    recap: dict[str, dict[str, int]]
    modules: list[str]

    @property
    def output(self) -> str:
        return self.stdout + self.stderr

    @property
    def text(self) -> str:
        """The output in one line with single blanks, to look for sentences that were wrapped."""
        return " ".join(self.output.split())

    def of(self, task: str, *, items: bool = False) -> list[Outcome]:
        """Outcomes of the task with this name, skipped hosts left out."""
        return [o for o in self.outcomes if o.task == task and o.is_item == items and o.status != "skipped"]

    def one(self, task: str) -> dict[str, Any]:
        """The one result of this task."""
        found = self.of(task)
        assert len(found) == 1, f"{len(found)} results of {task!r}:\n{self.output}"
        return found[0].facts

    def by_host(self, task: str) -> dict[str, dict[str, Any]]:
        return {outcome.host: outcome.facts for outcome in self.of(task)}

    def by_item(self, task: str) -> dict[str, dict[str, Any]]:
        """Results of a loop over numbers."""
        return {outcome.result["phone_number"]: outcome.facts for outcome in self.of(task, items=True)}

    def changed(self) -> int:
        """How many changes Ansible's summary counts, over all hosts."""
        return sum(host["changed"] for host in self.recap.values())

    def failed(self) -> set[str]:
        """Hosts with a failure that was not ignored."""
        return {host for host, counts in self.recap.items() if counts["failures"] or counts["unreachable"]}


class Playbooks:
    """Runs playbooks below one folder. Nothing of the caller's environment or home counts.

    :param api_url: where the simulator is
    :param programs: folder of the ansible-core to run them with
    """

    def __init__(self, folder: Path, api_url: str, programs: Path = BIN) -> None:
        self.api_url = api_url
        self.programs = programs
        self.folder = folder
        self.home = folder / "home"
        self.inputs = folder / "inputs"
        self.logs = folder / "logs"
        # Not below pytest's folder: Ansible makes a socket in there, whose path may have 107 characters at most.
        self.temporary = Path(tempfile.mkdtemp(prefix="k"))
        weakref.finalize(self, shutil.rmtree, self.temporary, ignore_errors=True)
        for path in (self.home, self.inputs, self.logs):
            path.mkdir()
        # An empty file of settings: /etc/ansible/ansible.cfg must not count.
        self._settings = self._input("ansible.cfg", "[defaults]\n")
        self._processes = self.logs / "processes"
        self._recorder = self.logs / "results"
        self.interpreter = self._input(
            "python",
            "#!/bin/sh\n"
            "# The Python of modules: takes down which of them come here, so that processes can be counted.\n"
            'case $1 in *AnsiballZ_*.py) echo "$1" >> "$PROCESSES_FILE"; esac\n'
            'export PYTHONPATH="$MODULE_PYTHONPATH"\n'
            f'exec {shlex.quote(str(programs))}/python "$@"\n',
        )
        self.interpreter.chmod(0o755)
        # Makes all hosts by SSH unreachable, also on a machine without ssh.
        self._ssh = self._input("ssh", "#!/bin/sh\nexit 255\n")
        self._ssh.chmod(0o755)
        self._count = itertools.count(1)

    @property
    def default_cache(self) -> Path:
        return self.home / ".ansible/kaleyra_flows_encryption"

    def _input(self, name: str, text: str) -> Path:
        path = self.inputs / name
        path.write_text(text)
        return path

    def task(self, name: str, execution_mode: str = WORKER, keywords: Mapping[str, Any] | None = None, **options: Any) -> dict[str, Any]:
        """A task with the module, its account given by variables; an option that is None is left out."""
        given = {"api_url": "{{ api_url }}", "sid": "{{ sid }}", "api_key": "{{ api_key }}", **options}
        task: dict[str, Any] = {"name": name, MODULE: {key: value for key, value in given.items() if value is not None}}
        if execution_mode == AS_A_MODULE:
            task["environment"] = {"ASKS_FOR_A_PROCESS": "yes"}
        return {**task, **(keywords or {})}

    def run_tasks(self, tasks: list[dict[str, Any]], *args: str, **settings: Any) -> Run:
        """Run tasks on one host with a local connection; a failure does not keep the following ones from running."""
        tasks = [{"ignore_errors": True, **task} for task in tasks]
        play = {"hosts": "all", "gather_facts": False, "tasks": tasks}
        return self.run([play], {"all": {"hosts": {"here": {"ansible_connection": "local"}}}}, *args, **settings)

    def _command(
        self, playbook: str | list[dict[str, Any]], inventory: str | Mapping[str, Any], args: Iterable[str], variables: Mapping[str, Any] | None
    ) -> list[str]:
        number = next(self._count)
        if not isinstance(playbook, str):
            playbook = str(self._input(f"play{number}.yml", json.dumps(playbook, indent=2)))
        if isinstance(inventory, str):
            hosts = self._input(f"inventory{number}.ini", inventory)
        else:
            hosts = self._input(f"inventory{number}.yml", json.dumps(inventory, indent=2))
        python = {"ansible_python_interpreter": str(self.interpreter)}
        extra = {**python, "api_url": self.api_url, "sid": SID, "api_key": API_KEY, **(variables or {})}
        given = ("-i", str(hosts), "-e", f"@{self._input(f'variables{number}.yml', json.dumps(extra))}")
        return [str(self.programs / "ansible-playbook"), *given, *args, playbook]

    def _environment(self, env: Mapping[str, str] | None) -> dict[str, str]:
        for path in (self._processes, self._recorder):
            path.write_text("")
        return {
            "PATH": f"{self.programs}:{os.environ['PATH']}",
            "LANG": "C.UTF-8",
            "HOME": str(self.home),
            "TMPDIR": str(self.temporary),
            "ANSIBLE_CONFIG": str(self._settings),
            "ANSIBLE_COLLECTIONS_PATH": COLLECTIONS,
            "ANSIBLE_HOME": str(self.home / ".ansible"),
            "ANSIBLE_REMOTE_TEMP": str(self.temporary / "remote"),
            "ANSIBLE_ASYNC_DIR": str(self.temporary / "async"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_SSH_EXECUTABLE": str(self._ssh),
            "ANSIBLE_CALLBACK_PLUGINS": str(FOLDER / "callback_plugins"),
            "ANSIBLE_CALLBACKS_ENABLED": "recorder",
            "RECORDER_FILE": str(self._recorder),
            "PROCESSES_FILE": str(self._processes),
            **(env or {}),
        }

    def start(
        self,
        playbook: list[dict[str, Any]],
        inventory: Mapping[str, Any],
        *args: str,
        env: Mapping[str, str] | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a run, to be killed: what it prints goes to the file ``output``."""
        with (self.logs / "output").open("wb") as output:
            return subprocess.Popen(
                self._command(playbook, inventory, args, variables),
                cwd=self.inputs,
                env=self._environment(env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def run(
        self,
        playbook: str | list[dict[str, Any]],
        inventory: str | Mapping[str, Any],
        *args: str,
        env: Mapping[str, str] | None = None,
        variables: Mapping[str, Any] | None = None,
        kill_after: tuple[str, int] | None = None,
    ) -> Run:
        """Run a playbook, given by its name or as what its YAML would hold.

        :param inventory: INI text, or what its YAML would hold
        :param env: for ``ansible-playbook``, on top of next to nothing
        :param variables: extra variables, by way of a file
        :param kill_after: name of a task, and how many of its results come before the one after which all processes are killed
        """
        kill = {"KILL_AFTER": "{}#{}".format(*kill_after)} if kill_after else {}
        done = subprocess.run(
            self._command(playbook, inventory, args, variables),
            check=False,
            cwd=self.inputs,
            env=self._environment({**kill, **(env or {})}),
            capture_output=True,
            text=True,
            timeout=300,  # against a run that hangs, not a measure
            start_new_session=True,  # what kill_after kills is the run alone
        )
        outcomes: list[Outcome] = []
        recap: dict[str, dict[str, int]] = {}
        for line in self._recorder.read_text().splitlines():
            document = json.loads(line)
            if "recap" in document:
                recap = document["recap"]
            else:
                outcomes.append(Outcome(**document))
        modules = re.findall(r"AnsiballZ_(\w+)\.py", self._processes.read_text())
        run = Run(done.returncode, done.stdout, done.stderr, outcomes, recap, modules)
        # Whatever a test is about: no run may end in a stack trace, or before its summary, or lean on what Ansible drops.
        for mark in ("Traceback (most recent call last)", "DEPRECATION WARNING", "Found duplicate mapping key", "Unexpected failure", "crashed"):
            assert mark not in run.output, run.output
        assert (done.returncode == -signal.SIGKILL) is (kill_after is not None), run.output
        assert recap or kill_after or "--syntax-check" in args, run.output
        return run

    def leftovers(self) -> dict[Path, str]:
        """Text of every file that the runs left, apart from what the test itself had put there."""
        return {
            path: path.read_text(errors="replace")
            for path in itertools.chain(self.folder.rglob("*"), self.temporary.rglob("*"))
            if path.is_file() and self.inputs not in path.parents
        }


def assert_execution_mode(run: Run, execution_mode: str) -> None:
    """Check by the processes in which mode every task with the module was run."""
    tasks = [o for o in run.outcomes if o.action == MODULE and o.status in ("ok", "failed") and "results" not in o.result]
    assert tasks
    expected = len(tasks) if execution_mode == AS_A_MODULE else 0
    assert run.modules.count("kaleyra_flows_encryption") == expected, run.modules


def spellings(secret: str) -> list[str]:
    """The ways in which a secret can get into a text."""
    return [secret, quote_plus(secret), base64.b64encode(secret.encode()).decode().rstrip("=")[:-1], secret[::-1]]


def assert_nowhere(secrets: Iterable[str], places: Mapping[Any, str]) -> None:
    """Look for secrets, also where JSON or base64 text has lost its line breaks."""
    secrets = list(secrets)
    assert secrets
    for place, text in places.items():
        for secret in secrets:
            assert secret not in text, f"{secret!r} is in {place}: {text[max(0, text.find(secret) - 500) :][:1000]}"
