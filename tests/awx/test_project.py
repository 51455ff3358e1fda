# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The example project: its playbooks with what credential and survey inject, and what ansible-builder makes of it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from awx import _rules
from awx._runner import Credential, unsafe_yaml
from support.keys import KeyPair, secret_lines
from support.playbook_runs import API_KEY, BIN, CHECKOUT, SID, Playbooks, Run, assert_nowhere, new_number
from support.simulator.client import Simulator

from dev.matrix.cores import environment

PROJECT = CHECKOUT / "docs/examples/awx_project"
FILES = CHECKOUT / "roles/awx_setup/files"
TYPE = yaml.safe_load((FILES / "credential_type.yml").read_text())
BLANK_ANSWERS = {question["variable"]: question["default"] for question in yaml.safe_load((FILES / "survey_register.yml").read_text())["spec"]}
REGISTER = "Register the public key of each number"


class Jobs:
    """Runs playbooks of the project with the environment of a credential, as AWX saves and injects it."""

    def __init__(self, playbooks: Playbooks, values: dict[str, str]) -> None:
        self.playbooks = playbooks
        self.numbers = [new_number(), new_number()]
        # Blank is what a form sends for a field that was not filled in.
        blank = {field["id"]: "" for field in TYPE["inputs"]["fields"]}
        folder = playbooks.inputs / "awx"
        (folder / "env").mkdir(parents=True)
        self.env: dict[str, str] = {}
        Credential(TYPE, _rules.save_credential(TYPE["inputs"]["fields"], {**blank, **values})).inject(self.env, folder, folder)

    def run(self, playbook: str, *args: str, variables: dict[str, Any] | None = None, **answers: str) -> Run:
        group = {"hosts": {number: {} for number in self.numbers}, "vars": {"ansible_connection": "local"}}
        inventory = {"all": {"children": {"whatsapp_numbers": group}, "vars": variables or {}}}
        job = {"awx_job_id": 1, "tower_job_id": 1}
        written = self.playbooks.inputs / "answers.yml"
        written.write_text(unsafe_yaml({**job, **answers}))
        return self.playbooks.run(str(PROJECT / playbook), inventory, "-e", f"@{written}", *args, env=self.env)

    def register(self, *args: str, variables: dict[str, Any] | None = None, **answers: str) -> Run:
        return self.run("register.yml", *args, variables=variables, **{**BLANK_ANSWERS, **answers})


def reasons(run: Run) -> dict[str, str]:
    assert run.rc == 0, run.output
    return {number["phone_number"]: number["reason"] for outcome in run.of(REGISTER) for number in outcome.result["numbers"]}


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_the_credential_brings_the_key(playbooks: Playbooks, simulator: Simulator, key: KeyPair, newline: str) -> None:
    text = key.private.replace("\n", newline)
    jobs = Jobs(playbooks, {"api_url": simulator.url, "sid": SID, "api_key": API_KEY, "private_key": text})
    variables = {"flows_encryption_cache_path": str(playbooks.folder / "records"), "flows_encryption_cache_path_is_persistent": True}
    ensured = jobs.run("ensure_key_pair.yml", variables=variables)
    assert ensured.rc == 0, ensured.output
    assert key.fingerprint in ensured.text

    runs = [
        jobs.register("--check", variables=variables),
        jobs.register("-vvvv", variables=variables),
        jobs.register(variables=variables),
        jobs.register(variables=variables, flows_encryption_phone_numbers="\r\n".join(["", *jobs.numbers, "+393330000000", ""])),
        jobs.register(variables=variables, flows_encryption_force="yes"),
    ]
    first, second = jobs.numbers
    assert [reasons(run) for run in runs] == [
        dict.fromkeys(jobs.numbers, "absent"),
        dict.fromkeys(jobs.numbers, "absent"),
        dict.fromkeys(jobs.numbers, "up_to_date"),
        {first: "up_to_date", second: "up_to_date", "+393330000000": "absent"},
        dict.fromkeys(jobs.numbers, "forced"),
    ]
    assert simulator.count() == 5
    assert runs[2].changed() == 0
    # A list is one task, on one host.
    assert {outcome.host for outcome in runs[3].of(REGISTER)} == {"localhost"}
    # In the place of the file that AWX made nothing has been written.
    secrets = [API_KEY, *secret_lines(key.private)]
    assert_nowhere(secrets, {**{number: run.output for number, run in enumerate(runs)}, **playbooks.leftovers()})


def test_blank_fields_are_none(playbooks: Playbooks, simulator: Simulator) -> None:
    """Without a key in the credential, AWX makes an empty file for it all the same."""
    jobs = Jobs(playbooks, {"api_url": simulator.url, "sid": SID, "api_key": API_KEY})
    assert jobs.env["KALEYRA_POD"] == jobs.env["KALEYRA_FLOWS_PRIVATE_KEY_FILE"] == jobs.env["KALEYRA_FLOWS_APP_SECRET"] == ""
    path = playbooks.folder / "keys/private.pem"
    refused = jobs.run("ensure_key_pair.yml", variables={"flows_encryption_private_key_path": str(path)})
    assert refused.rc != 0 and "flows_encryption_key_path_is_persistent" in refused.text
    assert not path.exists()

    lasting = {"flows_encryption_private_key_path": str(path), "flows_encryption_key_path_is_persistent": True}
    made = jobs.run("ensure_key_pair.yml", variables=lasting)
    assert made.rc == 0, made.output
    assert reasons(jobs.register(variables=lasting)) == dict.fromkeys(jobs.numbers, "absent")
    assert simulator.count() == 2


def test_a_public_key_from_the_survey(playbooks: Playbooks, simulator: Simulator, key: KeyPair) -> None:
    jobs = Jobs(playbooks, {"api_url": simulator.url, "sid": SID, "api_key": API_KEY})
    run = jobs.register(flows_encryption_public_key=key.public.replace("\n", "\r\n"))
    assert reasons(run) == dict.fromkeys(jobs.numbers, "absent")
    assert {number["fingerprint"] for outcome in run.of(REGISTER) for number in outcome.result["numbers"]} == {key.fingerprint}


@pytest.fixture(params=["2.16", "2.18", "newest"])
def on_a_core(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, simulator: Simulator) -> Playbooks:
    programs = BIN if request.param == "newest" else environment(request.param) / "bin"
    return Playbooks(tmp_path_factory.mktemp("s"), simulator.url, programs)


def test_survey_answers_of_every_kind(on_a_core: Playbooks, simulator: Simulator, key: KeyPair) -> None:
    """ansible-core 2.19 and newer make null, integers and booleans of them."""
    jobs = Jobs(on_a_core, {"api_url": simulator.url, "sid": SID, "api_key": API_KEY})
    one, two = jobs.numbers
    typed = new_number()
    records = {"flows_encryption_cache_path": str(on_a_core.folder / "records")}
    answers: dict[str, Any] = {"flows_encryption_public_key": key.public}

    blank = jobs.register(variables=records, **answers, flows_encryption_force="")
    assert reasons(blank) == dict.fromkeys(jobs.numbers, "absent")
    # One number of the inventory, typed as AWX's form gives it: once, and on no host of the inventory.
    again = jobs.register(variables=records, **answers, flows_encryption_phone_numbers=one.removeprefix("+"), flows_encryption_force="yes")
    assert reasons(again) == {one: "forced"} and {outcome.host for outcome in again.of(REGISTER)} == {"localhost"}
    requests = simulator.count()
    for wrong in ("yes", ", ;"):
        with pytest.raises(AssertionError, match=f"flows_encryption_phone_numbers is '({wrong}|True)'"):  # it ends before its summary
            jobs.register(variables=records, **answers, flows_encryption_phone_numbers=wrong)

    jobs.numbers = []
    alone = jobs.register(**answers, flows_encryption_phone_numbers=typed, flows_encryption_cache_path=records["flows_encryption_cache_path"])
    assert reasons(alone) == {typed: "absent"} and simulator.count() == requests + 1
    assert set(simulator.registered()[SID]) == {one, two, typed}

    checked = jobs.run("check.yml", variables={**records, **answers})
    assert checked.rc == 0 and "3 numbers: 3 ok." in checked.text, checked.output


def test_awx_offers_its_playbooks() -> None:
    playbooks = {path.name for path in PROJECT.glob("*.yml") if _rules.could_be_playbook(path.read_text())}
    assert playbooks == {"ensure_key_pair.yml", "register.yml", "rotate.yml", "report.yml", "check.yml"}


def test_it_takes_the_versions_of_the_collection() -> None:
    needed = yaml.safe_load((CHECKOUT / "galaxy.yml").read_text())["dependencies"]
    asked = yaml.safe_load((PROJECT / "collections/requirements.yml").read_text())["collections"]
    assert {item["name"]: item.get("version") for item in asked} == {"kaleyra.whatsapp": None, **needed}


def _built(*command: str | Path) -> str:
    done = subprocess.run([BIN / command[0], *command[1:]], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_ansible_builder_finds_what_the_collection_needs(tmp_path: Path) -> None:
    namespace = tmp_path / "ansible_collections/kaleyra"
    namespace.mkdir(parents=True)
    (namespace / "whatsapp").symlink_to(CHECKOUT)
    found = yaml.safe_load(_built("ansible-builder", "introspect", "--sanitize", tmp_path))
    assert [entry.split(">=")[0] for entry in found["python"]] == ["requests", "cryptography"]
    assert found["system"] == []


@pytest.mark.parametrize("python", ["3.9", "3.13"])
def test_what_it_needs_can_be_installed(python: str) -> None:
    resolved = _built("uv", "pip", "compile", "--quiet", "--no-header", "--python-version", python, CHECKOUT / "requirements.txt")
    assert "requests==" in resolved and "cryptography==" in resolved


def test_ansible_builder_makes_an_execution_environment(tmp_path: Path) -> None:
    _built("ansible-builder", "create", "--output-filename", "Containerfile", "--context", tmp_path)
    assert "ansible-galaxy collection install" in (tmp_path / "Containerfile").read_text()
    asked = yaml.safe_load((tmp_path / "_build/requirements.yml").read_text())
    assert asked == yaml.safe_load((PROJECT / "collections/requirements.yml").read_text())
