# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the documentation shows can be done as it stands, and shows what there is.

The API hosts and the endpoint of the examples are reached by their names, over TLS: a proxy in the environment leads to servers on this
machine. Only the folders that need root are others, and the dots in ``KALEYRA_API_KEY=...`` an API key.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import textwrap
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._account import PODS
from support.authority import Authority
from support.endpoint.client import Endpoint
from support.keys import openssl
from support.playbook_runs import BIN, CHECKOUT, COLLECTIONS, WA_400, Playbooks, Run
from support.servers import Proxy, Servers, leading_to
from support.simulator.client import Simulator, waba_numbers

API_KEY = "Api-Key-Of-The-Documentation-7d1f"
META_ACCESS_TOKEN = "EAAtoken-of-the-documentation-7d1f"
MODULES = sorted(path.stem for path in (CHECKOUT / "plugins/modules").glob("[!_]*.py"))
# AWX's files and jobs are no snippets to be run one by one: they have tests of their own.
_TEXTS = [str(path.relative_to(CHECKOUT)) for pattern in ("*.md", "docs/*.md", "roles/*/*.md") for path in CHECKOUT.glob(pattern)]
PAGES = sorted(text for text in _TEXTS if "awx" not in text)

# What sets up the machine, and not the collection's work.
_NOT_RUN = ("make ", "ansible-galaxy collection install ", "python -m pip install ", "python -m pytest ", "git clone ", "cd ", ". .cache/")
_ROOTS = ("/etc/flows", "/srv/reports", "/var/lib/flows")
_REGISTER = "kaleyra.whatsapp.flows_encryption"


@dataclasses.dataclass(frozen=True)
class Block:
    """A block of code on a page.

    :param name: of the file that it says to be, empty if it says none
    """

    language: str
    text: str

    @property
    def name(self) -> str:
        match = re.match(r"# ([\w./-]+\.(?:yml|txt))\b", self.text)
        return match.group(1) if match else ""


def blocks(page: str) -> list[Block]:
    return [Block(*found) for found in re.findall(r"^```(\w+)\n(.*?)^```", (CHECKOUT / page).read_text(), flags=re.DOTALL | re.MULTILINE)]


def examples(module: str) -> str:
    """The text of a module's examples."""
    text: str = importlib.import_module(f"ansible_collections.kaleyra.whatsapp.plugins.modules.{module}").EXAMPLES
    return text


def names(tasks: Any) -> Iterator[str]:
    """Names of the tasks in what a YAML text holds, those of blocks included."""
    for task in tasks:
        inner = [task[part] for part in ("block", "rescue", "always", "tasks") if part in task]
        if not inner and "roles" not in task:
            yield task["name"]
        for part in inner:
            yield from names(part)


class Reader:
    """Does what a page says, from the top to the bottom, in one folder.

    :ivar environment: of the runs
    :ivar done: how many runs and commands there were
    """

    def __init__(self, playbooks: Playbooks, folder: Path) -> None:
        self._playbooks, self.folder, self.done = playbooks, playbooks.inputs, 0
        self._simulator = Simulator({sid: API_KEY for page in _everything() for sid in re.findall(r"HXAP16\w+", page)})
        self._simulator.configure(
            access_token=META_ACCESS_TOKEN,
            kaleyra_get="data",
            wabas={
                "102290129340398": waba_numbers([f"+91987654321{n}" for n in range(3)], status="CONNECTED"),
                "104996122399160": waba_numbers(["+393331234567"], first_id=3_000_001, status="CONNECTED"),
            },
        )
        self._prepare()
        self._endpoint = Endpoint(folder / "endpoint-keys", self._private_keys())
        servers, authority = Servers(), Authority(folder, "authority")
        places = {}
        for host, url in {
            **{urlsplit(url).hostname or "": self._simulator.url for url in PODS.values()},
            "flows.example.com": self._endpoint.url,
            "graph.facebook.com": self._simulator.url,
        }.items():
            places[host] = servers.start(leading_to(urlsplit(url).port or 0), certificate=authority.issue(host))
        self.environment = {
            "ANSIBLE_PIPELINING": "true",  # fewer files, so that many runs take less time
            "KALEYRA_API_KEY": API_KEY,
            "META_ACCESS_TOKEN": META_ACCESS_TOKEN,
            "HTTPS_PROXY": f"http://127.0.0.1:{servers.start(Proxy(places=places))}",
            "SSL_CERT_FILE": str(authority.path),
        }
        self._write(
            "group_vars/all/world.yml",
            yaml.safe_dump(
                {
                    "vault_kaleyra_api_key": API_KEY,
                    "vault_meta_access_token": META_ACCESS_TOKEN,
                    "vault_meta_app_secret": "the secret of an app",
                    "vault_flows_passphrase": "the passphrase of a key",
                    "flows_public_key": (self.folder / "public.pem").read_text(),
                    "flows_endpoint_keys_file": str(self._endpoint.keys),
                    "flows_endpoint_pid": self._endpoint.pid,
                }
            ),
        )

    def _prepare(self) -> None:
        """What the examples take for granted: a key of some days' age, numbers, deploy tasks."""
        keys = self.folder / "etc/flows"
        keys.mkdir(parents=True)
        private, public = keys / "private.pem", keys / "private.pub.pem"
        openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", private)
        openssl("pkey", "-in", private, "-pubout", "-out", public)
        self._encrypted = keys / "encrypted.pem"
        openssl("pkey", "-in", private, "-aes256", "-passout", "pass:the passphrase of a key", "-out", self._encrypted)
        then = time.time() - 2 * 86400
        os.utime(private, (then, then))
        for path in (keys / "public.pem", self.folder / "public.pem", self.folder / "next.pub.pem"):
            shutil.copyfile(public, path)
        shutil.copyfile(CHECKOUT / "docs/examples/deploy_to_endpoint.yml", self.folder / "deploy.yml")
        self._write("numbers.txt", "+919876543210\n+919876543211\n+919876543212\n")
        self._write(
            "inventory.yml",
            yaml.safe_dump(
                {
                    "whatsapp_numbers": {
                        "hosts": {"+919876543210": {}},
                        "vars": {
                            "ansible_connection": "local",
                            "flows_encryption_pod": "in",
                            "flows_encryption_sid": "HXAP16XXXXXX97IN",
                            "flows_encryption_private_key_path": "/etc/flows/private.pem",
                        },
                    }
                }
            ),
        )
        shutil.copyfile(self.folder / "inventory.yml", self.folder / "default_inventory.yml")

    def _private_keys(self) -> list[Path]:
        return [path for path in self.folder.rglob("*.pem") if re.match(r"-----BEGIN (RSA )?PRIVATE KEY", path.read_text())]

    def _write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        for root in _ROOTS:
            text = text.replace(root, f"{self.folder}{root}")
        path.write_text(text)
        return path

    def page(self, page: str) -> None:
        unused = False  # an inventory or variables, by the commands that follow
        shown: list[str] = []  # tasks that follow each other: one run does for them
        for block in [*blocks(page), Block("text", "")]:
            content = yaml.safe_load(block.text) if block.language == "yaml" else None
            if isinstance(content, list) and not block.name:
                shown.append(block.text)
                continue
            if shown:
                self.tasks(*shown)
                shown = []
            if block.language == "console":
                for line in block.text.splitlines():
                    unused = unused and "-i inventory.yml" not in line
                    self._command(line)
            elif content and "groups" not in content:  # those are rules of Prometheus
                unused = unused or (isinstance(content, dict) and "plugin" not in content)
                self._write(block.name or "group_vars/all/page.yml", block.text)
            elif block.language not in ("yaml", "text"):  # text is what a command prints
                raise AssertionError(f"{page} has a block of {block.language}, which nobody runs")
        if unused:
            # With a key that is there.
            path = str(self._encrypted)
            own: dict[str, Any] = {"flows_encryption_private_key_path": path} if "_passphrase:" in (CHECKOUT / page).read_text() else {}
            self._run(_REGISTER, "-i", "inventory.yml", **own)

    def tasks(self, *texts: str) -> None:
        """Run tasks or plays, on one number whose key is registered already unless they are about that; those for a failure need one."""
        for rescues in (True, False):
            if chosen := [text for text in texts if ("rescue:" in text) is rescues]:
                self._tasks(chosen, rescues)

    def _tasks(self, texts: list[str], rescues: bool) -> None:
        expected: Counter[str] = Counter()
        plays = ""
        for text in texts:
            content = yaml.safe_load(text)
            in_play = "hosts" in content[0]
            plays += text if in_play else f"- hosts: whatsapp_numbers\n  gather_facts: false\n  tasks:\n{textwrap.indent(text, '    ')}"
            expected.update(names(content) if "include_role" not in text else ())
        self._simulator.faults({"*": [WA_400] * 10} if rescues else {})
        path = self._write(f"shown{self.done}.yml", plays)
        run = self._run(str(path), "-i", "default_inventory.yml", may_fail=rescues, **({"flows_encryption_force": True} if rescues else {}))
        self._simulator.faults({})
        done = ("ok", "failed") if rescues else ("ok",)
        missing = expected - Counter(outcome.task for outcome in run.outcomes if outcome.status in done and not outcome.is_item)
        assert not missing, (missing, run.output)

    def _command(self, line: str) -> None:
        assert line.startswith("$ "), f"not a command: {line}"
        line = line[2:]
        words = [word.replace("$PWD", str(self.folder)) for word in shlex.split(line, comments=True)]
        if line.startswith(_NOT_RUN):
            return
        if words[0] == "export":
            name, dummy, value = words[1].partition("=")
            self.environment[name] = value.replace("...", API_KEY)
        elif words[0] == "openssl":
            subprocess.run(words, cwd=self.folder, check=True, capture_output=True)
            self.done += 1
        elif words[0] in ("ansible", "ansible-inventory"):
            clean = {"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(self.folder), "LANG": "C.UTF-8", "ANSIBLE_COLLECTIONS_PATH": COLLECTIONS}
            environment = {**clean, **self.environment}
            command = [str(BIN / words[0]), *words[1:]]
            done = subprocess.run(command, cwd=self.folder, env=environment, check=False, capture_output=True, text=True)
            assert done.returncode == 0 and "unreachable" not in done.stdout.lower(), done.stdout + done.stderr
            self.done += 1
        elif words[0] == "ansible-playbook":
            sent = self._simulator.count()
            for root in _ROOTS:
                words = [word.replace(root, f"{self.folder}{root}") for word in words]
            run = self._run(*words[1:])
            if "--check" in words or "changed=0" in line:
                assert self._simulator.count() == sent, line
            if "changed=0" in line:
                assert run.changed() == 0, run.output
        else:
            raise AssertionError(f"nobody runs: {line}")

    def _run(self, *words: str, may_fail: bool = False, **variables: Any) -> Run:
        self._endpoint.hold(self._private_keys())
        self._endpoint.reload()
        run = self._playbooks.run(words[0], "", *words[1:], env=self.environment, variables=variables)
        assert run.rc == 0, run.output
        assert run.recap and not run.failed(), run.output
        assert may_fail or not [outcome for outcome in run.outcomes if outcome.status == "failed"], run.output
        self.done += 1
        return run

    def close(self) -> None:
        self._simulator.stop()
        self._endpoint.__exit__()


def _everything() -> list[str]:
    return [*((CHECKOUT / page).read_text() for page in PAGES), *map(examples, MODULES), "HXAP16XXXXXX97IN"]


# Pages that are read after another: they are about numbers that are registered already.
AFTERWARDS = {"docs/first_registration.md": ["docs/check.md", "docs/report.md"]}
FIRST = [page for page in PAGES if blocks(page) and not any(page in pages for pages in AFTERWARDS.values())]


@pytest.fixture
def reader(playbooks: Playbooks, tmp_path: Path) -> Iterator[Reader]:
    made = Reader(playbooks, tmp_path)
    yield made
    made.close()


@pytest.mark.slow
def test_examples_of_the_modules_run(reader: Reader) -> None:
    reader.environment["KALEYRA_SID"] = "HXAP16XXXXXX97IT"
    reader.tasks(*(examples(module).strip() + "\n" for module in MODULES))


@pytest.mark.parametrize("page", FIRST)
@pytest.mark.slow
def test_page_can_be_followed(reader: Reader, page: str) -> None:
    for each in [page, *AFTERWARDS.get(page, [])]:
        before = reader.done
        reader.page(each)
        assert reader.done > before or each == "CONTRIBUTING.md"


def test_pictures_are_what_their_script_draws() -> None:
    spec = importlib.util.spec_from_file_location("draw", CHECKOUT / "docs/images/draw.py")
    assert spec and spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    for path, draw in script.PICTURES.items():
        assert path.read_text() == draw().svg()
