# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The example project: its playbooks with the answers of surveys, and what ansible-builder makes of it.

On the newest ansible-core, which retypes answers; tests/integration gives answers to register.yml on each.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from awx import _rules
from awx._runner import PROJECT, REGISTER, REGISTERS, Credential, unsafe_yaml
from support.endpoint.client import Endpoint
from support.keys import KeyPair
from support.playbook_runs import BIN, CHECKOUT, SID, Playbooks, Run, new_number
from support.role import prefixed
from support.simulator.client import Simulator

FILES = CHECKOUT / "roles/awx_setup/files"
ENVIRONMENT = dict(os.environ)  # before tests clear the settings that a package index may need


class Jobs:
    """Runs playbooks of the project with the environment of a credential, as AWX saves and injects it."""

    def __init__(self, playbooks: Playbooks, account: Credential) -> None:
        self.playbooks = playbooks
        self.numbers = [new_number(), new_number()]
        folder = playbooks.inputs / "awx"
        (folder / "env").mkdir(parents=True)
        self.env: dict[str, str] = {}
        account.but(**_rules.save_credential(account.definition["inputs"]["fields"], account.inputs)).inject(self.env, folder, folder)

    def run(self, playbook: str, *args: str, variables: dict[str, Any], **answers: str) -> Run:
        """Run a playbook of the project on the inventory's numbers, with variables of the inventory and answers of a survey."""
        group = {"hosts": {number: {} for number in self.numbers}, "vars": {"ansible_connection": "local"}}
        inventory = {"all": {"children": {"whatsapp_numbers": group}, "vars": variables}}
        written = self.playbooks.inputs / "answers.yml"
        written.write_text(unsafe_yaml({"awx_job_id": 1, **prefixed(answers)}))
        return self.playbooks.run(str(PROJECT / playbook), inventory, "-e", f"@{written}", *args, env=self.env)


@pytest.fixture
def jobs(playbooks: Playbooks, account: Credential) -> Jobs:
    return Jobs(playbooks, account)


def reasons(run: Run) -> dict[str, str]:
    assert run.rc == 0, run.output
    return {number["phone_number"]: number["reason"] for outcome in run.of(REGISTERS) for number in outcome.result["numbers"]}


def test_survey_answers_count_as_meant(jobs: Jobs, simulator: Simulator, key: KeyPair) -> None:
    """Blank, one number, several, and yes; with and without an inventory."""
    one, two = jobs.numbers
    third, fourth = new_number(), new_number()
    records = {"flows_encryption_cache_path": str(jobs.playbooks.folder / "records")}

    def register(phone_numbers: str = "", force: str = "") -> Run:
        answers = {"phone_numbers": phone_numbers, "force": force, "public_key": key.public.replace("\n", "\r\n")}
        return jobs.run(REGISTER, variables=records, **answers)

    assert reasons(register()) == dict.fromkeys(jobs.numbers, "absent")
    # One number of the inventory, as AWX's form gives it: once, and on no host of the inventory.
    again = register(one.removeprefix("+"), force="yes")
    assert reasons(again) == {one: "forced"} and {outcome.host for outcome in again.of(REGISTERS)} == {"localhost"}

    jobs.numbers = []
    nothing = register()
    assert nothing.rc != 0 and "there is no number to register" in nothing.text, nothing.output
    assert simulator.count() == 3
    assert reasons(register(f"{third}\r\n  {fourth[:3]} {fourth[3:]},\r\n")) == dict.fromkeys((third, fourth), "absent")
    assert set(simulator.registered()[SID]) == {one, two, third, fourth}

    checked = jobs.run("check.yml", variables={**records, "flows_encryption_public_key": key.public})
    assert checked.rc == 0 and "4 numbers: 4 ok." in checked.text, checked.output


def test_rotation_answers_count_as_meant(jobs: Jobs, key: KeyPair) -> None:
    folder = jobs.playbooks.folder
    private = folder / "private.pem"
    private.write_text(key.private)
    with Endpoint(folder / "endpoint-keys", [private]) as endpoint:
        variables = {
            "flows_encryption_private_key_path": str(private),
            "flows_encryption_key_path_is_persistent": True,
            "flows_encryption_cache_path": str(folder / "records"),
            "flows_encryption_cache_path_is_persistent": True,
            "flows_encryption_endpoint_url": endpoint.url,
        }
        for answers, said in (
            ({"rotate_after": "", "retire_previous": "", "deploy_tasks": ""}, "No rotation begins: the current key is due"),
            ({"rotate_after": "0", "retire_previous": "no"}, "A rotation begins"),
            ({"rotate_after": "0", "retire_previous": "yes"}, "There is no previous key to remove."),
        ):
            run = jobs.run("rotate.yml", "--check", variables=variables, **answers)
            assert run.rc == 0 and said in run.text, run.output


def test_project_playbooks_are_offered_by_awx() -> None:
    playbooks = {path.name for path in PROJECT.glob("*.yml") if _rules.could_be_playbook(path.read_text())}
    assert playbooks == {"ensure_key_pair.yml", "register.yml", "rotate.yml", "report.yml", "check.yml"}


def test_project_requires_what_the_collection_does() -> None:
    needed = yaml.safe_load((CHECKOUT / "galaxy.yml").read_text())["dependencies"]
    asked = yaml.safe_load((PROJECT / "collections/requirements.yml").read_text())["collections"]
    assert {item["name"]: item.get("version") for item in asked} == {"kaleyra.whatsapp": None, **needed}


def _built(*command: str | Path) -> str:
    done = subprocess.run([BIN / command[0], *command[1:]], cwd=PROJECT, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_ansible_builder_finds_requirements(tmp_path: Path) -> None:
    namespace = tmp_path / "ansible_collections/kaleyra"
    namespace.mkdir(parents=True)
    (namespace / "whatsapp").symlink_to(CHECKOUT)
    found = yaml.safe_load(_built("ansible-builder", "introspect", "--sanitize", tmp_path))
    assert [entry.split(">=")[0] for entry in found["python"]] == ["requests", "cryptography"]
    assert found["system"] == []


@pytest.mark.parametrize("python", ["3.9", "3.13"])
def test_requirements_can_be_installed(python: str) -> None:
    resolved = _built("uv", "pip", "compile", "--quiet", "--no-header", "--python-version", python, CHECKOUT / "requirements.txt")
    assert "requests==" in resolved and "cryptography==" in resolved


def test_ansible_builder_creates_a_context(tmp_path: Path) -> None:
    _built("ansible-builder", "create", "--output-filename", "Containerfile", "--context", tmp_path)
    assert "ansible-galaxy collection install" in (tmp_path / "Containerfile").read_text()
    asked = yaml.safe_load((tmp_path / "_build/requirements.yml").read_text())
    assert asked == yaml.safe_load((PROJECT / "collections/requirements.yml").read_text())
