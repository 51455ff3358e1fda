# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The inventory plugin, by real runs of ansible-inventory."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.playbook_runs import BIN, COLLECTIONS, Playbooks
from support.servers import closed_port
from support.simulator.client import Simulator, waba_numbers

TOKEN = "EAAinventory-tests-0f9d1c"
NUMBERS = ["+919876543210", "+919876543211", "+919876543212"]


@dataclasses.dataclass
class Inventory:
    """Runs ``ansible-inventory --list`` on one configuration."""

    folder: Path
    options: dict[str, Any]
    name: str = "waba_numbers.yml"

    def write(self, **options: Any) -> Path:
        """The plugin's configuration; an option that is None is left out."""
        given = {"plugin": "kaleyra.whatsapp.waba_numbers", **self.options, **options}
        path = self.folder / self.name
        path.write_text(json.dumps({name: value for name, value in given.items() if value is not None}))
        return path

    def run(self, *args: str, env: dict[str, str] | None = None, text: str | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
        path = self.write(**options)
        if text:
            path.write_text(text)
        done = subprocess.run(
            [BIN / "ansible-inventory", "-i", path, "--list", *args],
            check=False,
            cwd=self.folder,
            env={
                "PATH": f"{BIN}:{os.environ['PATH']}",
                "LANG": "C.UTF-8",
                "HOME": str(self.folder),
                "ANSIBLE_COLLECTIONS_PATH": COLLECTIONS,
                "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true",
                **(env or {}),
            },
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert TOKEN not in done.stdout + done.stderr and "Traceback" not in done.stderr
        return done

    def list(self, *args: str, **options: Any) -> dict[str, Any]:
        done = self.run(*args, **options)
        assert done.returncode == 0, done.stderr
        # Newer cores mark all text that is no template.
        listed: dict[str, Any] = json.loads(done.stdout, object_hook=lambda content: content.get("__ansible_unsafe", content))
        return listed


@pytest.fixture
def inventory(simulator: Simulator, tmp_path: Path) -> Inventory:
    first = waba_numbers(NUMBERS[:2], status="CONNECTED", verified_name="Shop")
    second = waba_numbers(NUMBERS[2:], first_id=7, status="PENDING", verified_name="{{ 6 * 7 }}", throughput={"level": "{{ 1 }}"})
    simulator.configure(access_token=TOKEN, wabas={"1001": first, "1002": second}, page_size=1)
    options = {"meta_access_token": TOKEN, "meta_waba_ids": ["1001", 1002], "meta_api_url": f"{simulator.url}/v23.0", "retries": 0}
    return Inventory(tmp_path, options)


def test_numbers_are_hosts_with_groups_and_variables(inventory: Inventory, simulator: Simulator) -> None:
    """Of the accounts that the environment names."""
    listed = inventory.list(
        env={"META_ACCESS_TOKEN": TOKEN, "META_WABA_IDS": "1001,1002"},
        meta_access_token=None,
        meta_waba_ids=None,
        keyed_groups=[{"key": "waba_id", "prefix": "waba"}],
        groups={"connected": "waba_status == 'CONNECTED'"},
        compose={"flows_encryption_pod": "'eu'", "owner": "waba_verified_name | lower"},
        fields=["verified_name", "status", "throughput"],
    )
    assert listed["_meta"]["hostvars"][NUMBERS[0]] == {
        "flows_encryption_pod": "eu",
        "owner": "shop",
        "waba_display_phone_number": "+91 987-6543210",
        "waba_id": "1001",
        "waba_phone_number_id": "2000001",
        "waba_status": "CONNECTED",
        "waba_verified_name": "Shop",
    }
    assert (listed["waba_1001"]["hosts"], listed["waba_1002"]["hosts"], listed["connected"]["hosts"]) == (NUMBERS[:2], NUMBERS[2:], NUMBERS[:2])
    assert simulator.methods() == {"GET": 3}


@pytest.mark.slow
def test_text_from_outside_is_no_template(inventory: Inventory, playbooks: Playbooks) -> None:
    task = {"debug": {"msg": "name={{ waba_verified_name }} level={{ waba_throughput.level }}"}}
    play = {"hosts": NUMBERS[2], "gather_facts": False, "tasks": [task]}
    run = playbooks.run([play], "", "-i", str(inventory.write(fields=["verified_name", "throughput"])))
    assert "name={{ 6 * 7 }} level={{ 1 }}" in run.stdout, run.output


@pytest.mark.slow
def test_token_can_be_a_template_or_vaulted(inventory: Inventory) -> None:
    (inventory.folder / "token").write_text(f"{TOKEN}\n")
    template = "{{ lookup('ansible.builtin.file', 'token') }}"
    ids = ["{{ 1000 + 1 }}", "{{ lookup('ansible.builtin.env', 'SECOND_WABA') }}"]
    assert sorted(inventory.list(env={"SECOND_WABA": "1002"}, meta_access_token=template, meta_waba_ids=ids)["_meta"]["hostvars"]) == NUMBERS
    password = inventory.folder / "password"
    password.write_text("simple")
    command: list[str | Path] = [BIN / "ansible-vault", "encrypt_string", "--vault-password-file", password, TOKEN, "--name", "meta_access_token"]
    env = {"HOME": str(inventory.folder), "PATH": os.environ["PATH"]}
    vaulted = subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout
    config = f"plugin: kaleyra.whatsapp.waba_numbers\nmeta_waba_ids: [1001, 1002]\nmeta_api_url: {inventory.options['meta_api_url']}\n{vaulted}\n"
    assert sorted(inventory.list("--vault-password-file", str(password), text=config)["_meta"]["hostvars"]) == NUMBERS


@pytest.mark.slow
def test_cache_saves_requests_for_the_same_options(inventory: Inventory, simulator: Simulator) -> None:
    inventory.options.update(cache=True, cache_plugin="ansible.builtin.jsonfile", cache_connection=str(inventory.folder / "cache"))
    first = inventory.list()
    assert inventory.list() == first and simulator.count() == 3
    assert TOKEN not in "".join(path.read_text() for path in (inventory.folder / "cache").iterdir())
    assert sorted(inventory.list(meta_waba_ids=["1001"])["_meta"]["hostvars"]) == NUMBERS[:2]
    assert simulator.count() == 5
    inventory.list("--flush-cache", meta_waba_ids=["1001"])
    assert simulator.count() == 7


@pytest.mark.slow
def test_each_refusal_is_an_error(inventory: Inventory) -> None:
    """Ansible goes on with other inventories unless it is told to fail, but says what is wrong with each."""
    with closed_port() as port:
        wrong: dict[str, tuple[dict[str, Any], str]] = {
            "token": ({"meta_access_token": "wrong"}, "Meta's error 190"),
            "account": ({"meta_waba_ids": ["1009"]}, "Meta's error 100"),
            "id": ({"meta_waba_ids": ["WABA"]}, "'WABA' is not the ID"),
            "blank": ({"meta_access_token": "EAA\nx"}, "meta_access_token contains a space, a line break"),
            "http": ({"meta_api_url": "http://graph.example.com"}, "would send the access token unencrypted"),
            "field": ({"fields": ["a,b"]}, "'a,b' is not the name of a field"),
            "compose": ({"strict": True, "compose": {"x": "unknown_variable"}}, "Could not set x"),
            "unreachable": ({"meta_api_url": f"http://127.0.0.1:{port}"}, "gave no answer"),
        }
        others: list[str] = []
        for name, (changes, dummy) in wrong.items():
            inventory.name = f"{name}.waba_numbers.yml"
            others += ["-i", str(inventory.write(**changes))]
        inventory.name = "good.waba_numbers.yaml"
        done = inventory.run("-vvvv", *others, env={"ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "false"})
    said = " ".join(done.stderr.split())
    assert done.returncode == 0 and all(message in said for dummy, message in wrong.values()), done.stderr
    assert NUMBERS[0] in done.stdout
    assert inventory.run(meta_access_token="wrong").returncode != 0
    # Other file names are left to other plugins.
    inventory.name = "numbers.yml"
    assert inventory.run().returncode != 0
