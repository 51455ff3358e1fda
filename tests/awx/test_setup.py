# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbook awx_setup with the modules of awx.awx, against as much of AWX as they need, and the first jobs of what it sets up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from awx._controller import TOKEN, Controller
from awx._rules import answer_survey
from awx._runner import AWX, CHECKOUT, PROJECT, Core, Credential, Inventory, Job, on_cores, unsafe_yaml
from awx._sshd import Host
from support.keys import KeyPair, fingerprint_of, secret_lines
from support.playbook_runs import API_KEY, COLLECTIONS, SID, Playbooks, Run, assert_nowhere
from support.simulator.client import Simulator

from dev.matrix.cores import CACHE, add_collection, locked

ROLE = CHECKOUT / "roles/awx_setup"
NAME = "Kaleyra WhatsApp"
ENSURE, REGISTER, DRY_RUN, CHECK, ROTATE = (
    f"{NAME} - {what}" for what in ("Ensure key pair", "Register", "Register (dry run)", "Check", "Rotate key pair")
)
WORKFLOW = f"{NAME} - Ensure key pair and register"
MACHINE = "SSH to the endpoint"
NUMBERS = ["+393331234501", "+393331234502"]
SETTINGS: dict[str, Any] = {
    "image": "registry.example.com/kaleyra-whatsapp-ee:1.0.0",
    "scm_url": "https://git.example.com/flows/awx-project.git",
    "phone_numbers": NUMBERS,
    "key_host": "flows-endpoint",
}
SECRETS = {
    "KALEYRA_API_KEY": API_KEY,
    "KALEYRA_FLOWS_PRIVATE_KEY_PASSPHRASE": "Setup-Passphrase-08151234",
    "KALEYRA_FLOWS_APP_SECRET": "Setup-App-Secret-08151234",
}
ACCOUNT = {"KALEYRA_POD": "eu", "KALEYRA_SID": SID, **SECRETS}


class SetUp:
    """Runs the playbook."""

    def __init__(self, folder: Path, programs: Path, collections: Path) -> None:
        self.playbooks = Playbooks(folder, "", programs)
        self.controller = controller = Controller(PROJECT)
        self._env = {
            "CONTROLLER_HOST": controller.url,
            "CONTROLLER_OAUTH_TOKEN": TOKEN,
            "ANSIBLE_PIPELINING": "1",  # for speed alone
            "ANSIBLE_COLLECTIONS_PATH": f"{COLLECTIONS}:{collections}",
        }
        machine = controller.add("credential_types", name="Machine", kind="cloud", inputs={"fields": []}, injectors={})
        organization = controller.named("organizations", "Default")
        controller.add("credentials", name=MACHINE, organization=organization["id"], credential_type=machine["id"], inputs={})

    def __call__(self, *args: str, env: dict[str, str] | None = None, answers: dict[str, Any] | None = None, **settings: Any) -> Run:
        """Run it.

        :param answers: of a survey of AWX, in place of settings
        :param settings: that differ from SETTINGS; None leaves one out
        """
        wanted = {f"awx_setup_{name}": value for name, value in {**SETTINGS, **settings}.items() if value is not None}
        if answers is not None:
            written = self.playbooks.inputs / "answers.yml"
            written.write_text(unsafe_yaml({f"awx_setup_{name}": value for name, value in answers.items()}))
            args, wanted = ("-e", f"@{written}", *args), {}
        self.controller.written.clear()
        return self.playbooks.run("kaleyra.whatsapp.awx_setup", "", *args, env={**self._env, **(ACCOUNT if env is None else env)}, variables=wanted)


@pytest.fixture
def set_up(tmp_path_factory: pytest.TempPathFactory, core: Core) -> Iterator[SetUp]:
    collections = CACHE / "awx/collections"
    with locked(collections):
        if not (collections / "ansible_collections/awx/awx/MANIFEST.json").exists():
            add_collection("awx.awx", "13.8.0", collections)  # the last `ansible` that has awx.awx in it, which is 24.6.1
    set_up = SetUp(tmp_path_factory.mktemp("s"), core.bin, collections)
    yield set_up
    set_up.controller.stop()


def ok(run: Run) -> Run:
    assert run.rc == 0, run.output
    return run


class Launcher:
    """Runs job templates as the controller has stored them, without answers to their surveys.

    :param machine: user name and private key of the machine credential
    """

    def __init__(self, controller: Controller, awx: AWX, machine: tuple[str, str]) -> None:
        self._controller, self._objects = controller, controller.objects
        self._awx, self._machine = awx, machine

    def _inventory(self, number: int) -> Inventory:
        hosts = {item["id"]: item for item in self._objects["hosts"].values() if item["inventory"] == number}
        variables: dict[str, dict[str, Any]] = {item["name"]: {} for item in hosts.values()}
        groups = {}
        for group in self._objects["groups"].values():
            groups[group["name"]] = [hosts[host]["name"] for host in group["hosts"]]
            for name in groups[group["name"]]:
                variables[name].update(json.loads(group.get("variables") or "{}"))
        for host in hosts.values():
            variables[host["name"]].update(json.loads(host.get("variables") or "{}"))
        return Inventory(variables, groups, json.loads(self._objects["inventories"][number]["variables"]))

    def job(self, name: str, **artifacts: Any) -> list[Job]:
        """Return the job, or those of its slices."""
        template = self._controller.named("job_templates", name)
        credentials = [self._objects["credentials"][number] for number in template["credentials"]]
        answers = answer_survey(template["survey_spec"], {}) if template["survey_spec"] else {}
        slices = template.get("job_slice_count", 1)
        return [
            self._awx.run(
                template["playbook"],
                self._inventory(template["inventory"]),
                credentials=[Credential(self._objects["credential_types"][item["credential_type"]], item["inputs"]) for item in credentials],
                machine=self._machine,
                extra_vars={**json.loads(template.get("extra_vars") or "{}"), **answers, **artifacts},
                check=template["job_type"] == "check",
                diff=template.get("diff_mode", False),
                slice_of=(number, slices),
            )
            for number in range(1, slices + 1)
        ]


@on_cores("newest", "2.16")
def test_setup_then_first_jobs_then_repeated(set_up: SetUp, awx: AWX, simulator: Simulator, host: Host, key: KeyPair, tmp_path: Path) -> None:
    """From an empty AWX to registered numbers, in slices, with a key host by SSH; then what later runs change."""
    controller = set_up.controller
    env = {"KALEYRA_API_URL": simulator.url, "KALEYRA_SID": SID, **SECRETS}
    options = {"flows_encryption_timeout": 20, "flows_encryption_verify_endpoint": "never"}
    same: dict[str, Any] = {
        "key_host_variables": host.variables(),
        "private_key_path": "~/keys/private.pem",
        "endpoint_url": "https://flows.example.com/endpoint",
        "machine_credential": MACHINE,
        "variables": options,
        "update_secrets": False,
        "scm_branch": 2,
        "forks": 20,
        "slices": 2,
    }
    # The same as a survey gives it, which ansible-core 2.19 and newer retype.
    typed = {
        "phone_numbers": "\r\n".join(["", *NUMBERS, ""]),
        "key_host_variables": json.dumps(host.variables()),
        "variables": json.dumps(options),
        "update_secrets": "no",
        "scm_branch": "2",
        "forks": "20",
        "slices": "2",
    }
    spec = yaml.safe_load((ROLE / "meta/argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
    blank = dict.fromkeys((name.removeprefix("awx_setup_") for name in spec), "")
    first = ok(set_up("-vvvv", "--diff", env=env, answers={**blank, **SETTINGS, **same, **typed}))
    assert first.changed() > 0
    assert_stored(controller, {"api_url": simulator.url}, host.variables(), {"flows_encryption_private_key_path": "~/keys/private.pem", **options})

    launcher = Launcher(controller, awx, host.machine)
    (ensured,) = launcher.job(ENSURE)
    fingerprint = fingerprint_of((host.login.home / "keys/private.pub.pem").read_text())
    assert ensured.status == "successful" and ensured.artifacts["flows_encryption_fingerprint"] == fingerprint, ensured.stdout
    # One of the slices lacks the key host, on which the records are.
    slices = launcher.job(REGISTER, **ensured.artifacts)
    assert [(job.status, job.reasons()) for job in slices] == [("successful", {number: "absent"}) for number in NUMBERS]
    assert simulator.registered() == {SID: dict.fromkeys(NUMBERS, fingerprint)}
    assert len(list(host.login.records.glob("[!.]*"))) == len(NUMBERS)
    for job, number in zip(launcher.job(DRY_RUN, **ensured.artifacts), NUMBERS, strict=True):
        assert (job.status, job.summary("changed"), job.reasons()) == ("successful", {}, {number: "up_to_date"}), job.stdout
    next(host.login.records.glob(f"*{NUMBERS[0].removeprefix('+')}*")).unlink()
    (failed,) = launcher.job(CHECK)
    assert failed.status == "failed" and failed.artifacts["flows_encryption_check"]["by_state"] == {"ok": 1, "absent": 1}, failed.stdout
    assert f"{NUMBERS[0]}: no key is known" in failed.text and simulator.count() == len(NUMBERS)

    # Somebody else's environment, with another API key in it: secrets are not compared, and not written.
    assert ok(set_up(env={**env, "KALEYRA_API_KEY": "Another-Api-Key-4711"}, **same)).changed() == 0
    assert controller.written == []

    renewed, path = "Renewed-Api-Key-4711", tmp_path / "private.pem"
    path.write_text(key.private)
    env.update(KALEYRA_API_KEY=renewed, KALEYRA_FLOWS_PRIVATE_KEY_FILE=str(path))
    image = "registry.example.com/kaleyra-whatsapp-ee:1.1.0"
    third = ok(set_up("-vvvv", "--diff", env=env, **{**same, "image": image, "update_secrets": True}))
    changed = [("PATCH", f"/api/v2/{kind}/{controller.named(kind, NAME)['id']}/") for kind in ("execution_environments", "credentials")]
    assert third.changed() == 2 and controller.written == changed
    assert controller.named("execution_environments", NAME)["image"] == image
    inputs = controller.named("credentials", NAME)["inputs"]
    assert (inputs["api_key"], inputs["private_key"]) == (renewed, key.private)
    secrets = [*SECRETS.values(), renewed, *secret_lines(key.private)]
    assert_nowhere(secrets, {"first": first.output, "third": third.output, **set_up.playbooks.leftovers()})


def assert_stored(controller: Controller, api: dict[str, str], key_host_variables: dict[str, Any], variables: dict[str, Any]) -> None:
    """Check all objects of the set-up."""
    assert controller.named("projects", NAME)["scm_branch"] == "2"
    kind, account = controller.named("credential_types", NAME), controller.named("credentials", NAME)
    assert account["credential_type"] == kind["id"]
    names = {"api_key": "API_KEY", "private_key_passphrase": "FLOWS_PRIVATE_KEY_PASSPHRASE", "app_secret": "FLOWS_APP_SECRET"}
    assert account["inputs"] == {**api, "sid": SID, **{field: SECRETS[f"KALEYRA_{name}"] for field, name in names.items()}}
    # The templates of the type as they are in its file, none of them filled in.
    definition = yaml.safe_load((ROLE / "files/credential_type.yml").read_text())
    assert kind["injectors"] == definition["injectors"] and kind["inputs"] == definition["inputs"]

    inventory = controller.named("inventories", NAME)
    assert json.loads(inventory["variables"]) == {
        "flows_encryption_key_host": "flows-endpoint",
        "flows_encryption_api_host": "flows-endpoint",
        "flows_encryption_endpoint_url": "https://flows.example.com/endpoint",
        **key_host_variables,  # as a slice may lack the key host and its variables
        **variables,
    }
    assert controller.names("hosts") == [*NUMBERS, "flows-endpoint"]
    key_host = controller.named("hosts", "flows-endpoint")
    assert json.loads(key_host["variables"]) == key_host_variables
    numbers = controller.named("groups", "whatsapp_numbers")
    assert numbers["hosts"] == [controller.named("hosts", number)["id"] for number in NUMBERS]
    local = {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}
    assert json.loads(numbers["variables"]) == local
    assert controller.named("groups", "flows_key_hosts")["hosts"] == [key_host["id"]]

    templates = controller.objects["job_templates"].values()
    assert {item["name"]: (item["playbook"], item["job_type"], item.get("job_slice_count", 1)) for item in templates} == {
        ENSURE: ("ensure_key_pair.yml", "run", 1),
        REGISTER: ("register.yml", "run", 2),
        DRY_RUN: ("register.yml", "check", 2),
        CHECK: ("check.yml", "run", 1),
        ROTATE: ("rotate.yml", "run", 1),
    }
    for item in templates:
        assert item["inventory"] == inventory["id"]
        assert item["project"] == controller.named("projects", NAME)["id"]
        assert item["execution_environment"] == controller.named("execution_environments", NAME)["id"]
        assert set(item["credentials"]) == {account["id"], controller.named("credentials", MACHINE)["id"]}
        # One job of each at a time, and no facts in AWX's database.
        assert not item["allow_simultaneous"] and not item["use_fact_cache"] and item["forks"] == 20

    workflow = controller.named("workflow_job_templates", WORKFLOW)
    ensure, register = (controller.named("workflow_job_template_nodes", name) for name in ("ensure_key_pair", "register"))
    assert ensure["workflow_job_template"] == register["workflow_job_template"] == workflow["id"]
    assert ensure["unified_job_template"] == controller.named("job_templates", ENSURE)["id"]
    assert register["unified_job_template"] == controller.named("job_templates", REGISTER)["id"]
    assert ensure["success_nodes"] == [register["id"]] and not register["success_nodes"]
    # An answer of the workflow's survey would take precedence over the key that the first node passes on.
    asked = [question["variable"] for question in workflow["survey_spec"]["spec"]]
    assert workflow["ask_limit_on_launch"]
    assert "flows_encryption_phone_numbers" in asked and "flows_encryption_public_key" not in asked


@on_cores("2.16")
def test_setup_failed_update_check_mode_and_added_host(set_up: SetUp) -> None:
    """With a credential that is in AWX already. Without an endpoint there is no template that rotates, as each rotation verifies it."""
    controller = set_up.controller

    def run(*args: str, **settings: Any) -> Run:
        return set_up(*args, env={}, **{"credential": MACHINE, "key_host": None, "endpoint_url": "", **settings})

    assert ok(run("--check")).changed() > 0
    assert controller.written == []

    # The project's first update fails. The second run starts another one.
    controller.failing_updates = 1
    first = run()
    assert first.rc == 2 and "Project update failed" in first.text
    second = ok(run())
    assert "Playbook not found for project." in second.text and second.failed() == set()
    assert sorted(controller.names("job_templates")) == [CHECK, ENSURE, REGISTER, DRY_RUN]
    assert controller.names("credentials") == [MACHINE]
    assert controller.names("hosts") == NUMBERS
    assert json.loads(controller.named("inventories", NAME)["variables"]) == {}

    # A number that somebody has added stays.
    group = controller.named("groups", "whatsapp_numbers")
    added = controller.add("hosts", name="+393331234509", inventory=group["inventory"])
    group["hosts"].append(added["id"])
    further = {
        "phone_numbers": [*NUMBERS, "+393331234503"],
        "variables": {"flows_encryption_endpoint_url": "https://flows.example.com/endpoint"},
    }
    # Whether a host is in a group is not compared in check mode.
    for args, changed in ((["--check"], 3), ([], 4)):
        assert ok(run(*args, **further)).changed() == changed
        assert bool(controller.written) is not bool(args)
    hosts = {controller.objects["hosts"][number]["name"] for number in group["hosts"]}
    assert hosts == {*NUMBERS, "+393331234503", "+393331234509"}
    assert ROTATE in controller.names("job_templates")


@pytest.mark.parametrize(
    ("settings", "env", "said"),
    [
        ({"image": None}, ACCOUNT, "awx_setup_image"),
        ({}, {**ACCOUNT, "KALEYRA_API_KEY": ""}, "KALEYRA_API_KEY"),
        ({}, {**ACCOUNT, "KALEYRA_POD": ""}, "one of KALEYRA_POD and KALEYRA_API_URL"),
        ({"key_host": None}, ACCOUNT, "Set awx_setup_key_host"),
    ],
)
def test_setup_missing_setting_is_named(set_up: SetUp, settings: dict[str, Any], env: dict[str, str], said: str) -> None:
    run = set_up(env=env, **settings)
    assert run.rc == 2
    assert said in run.text
    assert set_up.controller.written == []


def test_setup_syntax_check_without_awx_awx(set_up: SetUp) -> None:
    """Only those who set up AWX need the collection awx.awx."""
    ok(set_up("--syntax-check", env={"ANSIBLE_COLLECTIONS_PATH": COLLECTIONS}))
