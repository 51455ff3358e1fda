# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbook awx_setup: first run, second run, one change, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from awx._controller import Controller
from awx._runner import on_cores
from awx._set_up import ACCOUNT, NAME, NUMBERS, REGISTER, SECRETS, SETTINGS, SetUp, ok
from support.keys import KeyPair, secret_lines
from support.playbook_runs import CHECKOUT, COLLECTIONS, assert_nowhere


@on_cores("newest", "2.18", "2.16")
def test_setup_repeated_changes_nothing(set_up: SetUp, controller: Controller) -> None:
    """First with the answers of a survey, which ansible-core 2.19 and newer retype, then with variables of the same meaning."""
    spec = yaml.safe_load((CHECKOUT / "roles/awx_setup/meta/argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
    typed = {
        "awx_setup_machine_credential": "SSH to the endpoint",
        "awx_setup_phone_numbers": "\r\n".join(["", *NUMBERS, ""]),
        "awx_setup_key_host_variables": json.dumps(SETTINGS["awx_setup_key_host_variables"]),
        "awx_setup_variables": '{"flows_encryption_timeout": 20}',
        "awx_setup_update_secrets": "no",
        "awx_setup_scm_branch": "2",
        "awx_setup_forks": "20",
        "awx_setup_slices": "1",
    }
    first = ok(set_up(answers={**dict.fromkeys(spec, ""), **SETTINGS, **typed}))
    assert first.changed() > 0
    assert controller.named("projects", NAME)["scm_branch"] == "2"

    kind = controller.named("credential_types", NAME)
    account = controller.named("credentials", NAME)
    assert account["credential_type"] == kind["id"]
    assert account["inputs"] == {
        "pod": "eu",
        "sid": ACCOUNT["KALEYRA_SID"],
        "api_key": SECRETS["KALEYRA_API_KEY"],
        "private_key_passphrase": SECRETS["KALEYRA_FLOWS_PRIVATE_KEY_PASSPHRASE"],
        "app_secret": SECRETS["KALEYRA_FLOWS_APP_SECRET"],
    }
    # The templates of the type as they are in its file, none of them filled in.
    definition = yaml.safe_load((CHECKOUT / "roles/awx_setup/files/credential_type.yml").read_text())
    assert kind["injectors"] == definition["injectors"] and kind["inputs"] == definition["inputs"]

    inventory = controller.named("inventories", NAME)
    assert json.loads(inventory["variables"]) == {
        "flows_encryption_key_host": "flows-endpoint",
        "flows_encryption_api_host": "flows-endpoint",
        "flows_encryption_private_key_path": "/etc/flows/private.pem",
        "flows_encryption_endpoint_url": "https://flows.example.com/endpoint",
        "flows_encryption_timeout": 20,
    }
    assert controller.names("hosts") == [*NUMBERS, "flows-endpoint"]
    key_host = controller.named("hosts", "flows-endpoint")
    assert json.loads(key_host["variables"]) == SETTINGS["awx_setup_key_host_variables"]
    numbers = controller.named("groups", "whatsapp_numbers")
    assert numbers["hosts"] == [controller.named("hosts", number)["id"] for number in NUMBERS]
    assert json.loads(numbers["variables"]) == {
        "ansible_connection": "local",
        "ansible_python_interpreter": "{{ ansible_playbook_python }}",
    }
    assert controller.named("groups", "flows_key_hosts")["hosts"] == [key_host["id"]]

    templates = controller.objects["job_templates"].values()
    assert {item["name"]: (item["playbook"], item["job_type"]) for item in templates} == {
        f"{NAME} - Ensure key pair": ("ensure_key_pair.yml", "run"),
        REGISTER: ("register.yml", "run"),
        f"{NAME} - Register (dry run)": ("register.yml", "check"),
        f"{NAME} - Check": ("check.yml", "run"),
        f"{NAME} - Rotate key pair": ("rotate.yml", "run"),
    }
    for item in templates:
        assert item["inventory"] == inventory["id"]
        assert item["project"] == controller.named("projects", NAME)["id"]
        assert item["execution_environment"] == controller.named("execution_environments", NAME)["id"]
        assert set(item["credentials"]) == {account["id"], controller.named("credentials", "SSH to the endpoint")["id"]}
        # One job of each at a time, and no facts in AWX's database.
        assert not item["allow_simultaneous"] and not item["use_fact_cache"] and item["forks"] == 20

    workflow = controller.named("workflow_job_templates", f"{NAME} - Ensure key pair and register")
    ensure, register = (controller.named("workflow_job_template_nodes", name) for name in ("ensure_key_pair", "register"))
    assert ensure["workflow_job_template"] == register["workflow_job_template"] == workflow["id"]
    assert ensure["unified_job_template"] == controller.named("job_templates", f"{NAME} - Ensure key pair")["id"]
    assert register["unified_job_template"] == controller.named("job_templates", REGISTER)["id"]
    assert ensure["success_nodes"] == [register["id"]] and not register["success_nodes"]
    # An answer of the workflow's survey would take precedence over the key that the first node passes on.
    asked = [question["variable"] for question in workflow["survey_spec"]["spec"]]
    assert workflow["ask_limit_on_launch"]
    assert "flows_encryption_phone_numbers" in asked and "flows_encryption_public_key" not in asked

    # Somebody else's environment, with another API key in it: secrets are not compared, and not written.
    same: dict[str, Any] = {
        "machine_credential": "SSH to the endpoint",
        "variables": {"flows_encryption_timeout": 20},
        "update_secrets": False,
        "scm_branch": 2,
        "forks": 20,
        "slices": 1,
    }
    second = ok(set_up(env={**ACCOUNT, "KALEYRA_API_KEY": "Another-Api-Key-4711"}, **same))
    assert second.changed() == 0
    assert controller.written == []

    third = ok(set_up(image="registry.example.com/kaleyra-whatsapp-ee:1.1.0", **same))
    assert third.changed() == 1
    assert controller.written == [("PATCH", f"/api/v2/execution_environments/{controller.named('execution_environments', NAME)['id']}/")]
    assert controller.named("execution_environments", NAME)["image"].endswith(":1.1.0")


def test_setup_slices_and_secrets(set_up: SetUp, key: KeyPair, tmp_path: Path) -> None:
    path = tmp_path / "private.pem"
    path.write_text(key.private)
    env = {**ACCOUNT, "KALEYRA_FLOWS_PRIVATE_KEY_FILE": str(path)}
    first = ok(set_up("-vvvv", "--diff", env=env, slices=3))
    assert set_up.controller.named("credentials", NAME)["inputs"]["private_key"] == key.private
    # A slice lacks the key host and its variables.
    variables = json.loads(set_up.controller.named("inventories", NAME)["variables"])
    assert variables["ansible_host"] == "10.0.0.7" and variables["ansible_user"] == "flows"
    slices = {item["name"]: item.get("job_slice_count", 1) for item in set_up.controller.objects["job_templates"].values()}
    assert slices[REGISTER] == 3 and slices[f"{NAME} - Ensure key pair"] == 1

    renewed = {"KALEYRA_API_KEY": "Renewed-Api-Key-4711"}
    second = ok(set_up("-vvvv", "--diff", env={**env, **renewed}, slices=3, update_secrets=True))
    assert second.changed() == 1
    assert set_up.controller.named("credentials", NAME)["inputs"]["api_key"] == renewed["KALEYRA_API_KEY"]

    secrets = [*SECRETS.values(), *renewed.values(), *secret_lines(key.private)]
    assert_nowhere(secrets, {"first": first.output, "second": second.output, **set_up.playbooks.leftovers()})


def test_setup_existing_credential_and_no_endpoint(set_up: SetUp) -> None:
    """Without an endpoint there is no template that rotates, as each rotation verifies the endpoint."""
    settings: dict[str, Any] = {"credential": "SSH to the endpoint", "key_host": None, "key_host_variables": None, "endpoint_url": ""}
    ok(set_up(env={}, **settings))
    assert set_up.controller.names("credentials") == ["SSH to the endpoint"]
    assert set_up.controller.names("hosts") == NUMBERS
    assert json.loads(set_up.controller.named("inventories", NAME)["variables"]) == {}
    assert f"{NAME} - Rotate key pair" not in set_up.controller.names("job_templates")

    ok(set_up(env={}, **settings, variables={"flows_encryption_endpoint_url": "https://flows.example.com/endpoint"}))
    assert f"{NAME} - Rotate key pair" in set_up.controller.names("job_templates")


def test_setup_failed_update_check_mode_and_added_host(set_up: SetUp) -> None:
    assert ok(set_up("--check")).changed() > 0
    assert set_up.controller.written == []

    # The project's first update fails, and that which the second run starts. The third run's succeeds.
    set_up.controller.failing_updates = 2
    first = set_up()
    assert first.rc == 2 and "Project update failed" in first.text
    second = set_up()
    assert second.rc == 2 and "Playbook not found for project." in second.text
    third = ok(set_up())
    assert third.failed() == set() and REGISTER in set_up.controller.names("job_templates")

    # A number that somebody has added stays.
    group = set_up.controller.named("groups", "whatsapp_numbers")
    added = set_up.controller.add("hosts", name="+393331234509", inventory=group["inventory"])
    group["hosts"].append(added["id"])
    assert ok(set_up("--check", forks=20)).changed() == 5
    assert set_up.controller.written == []
    assert ok(set_up(phone_numbers=[*NUMBERS, "+393331234503"])).changed() == 2
    hosts = {set_up.controller.objects["hosts"][number]["name"] for number in group["hosts"]}
    assert hosts == {*NUMBERS, "+393331234503", "+393331234509"}


@pytest.mark.parametrize(
    ("settings", "env", "said"),
    [
        ({"scm_url": ""}, ACCOUNT, "Set awx_setup_scm_url"),
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
