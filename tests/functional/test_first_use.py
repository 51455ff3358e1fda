# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Inventories that Ansible ignores, and runs without one."""

from __future__ import annotations

from support.keys import KeyPair
from support.playbook_runs import API_KEY, SID, Playbooks, new_number
from support.simulator.client import Simulator

REGISTER = "kaleyra.whatsapp.flows_encryption"


def test_unquoted_numbers_in_yaml_are_a_failure(playbooks: Playbooks, simulator: Simulator) -> None:
    inventory = playbooks.inputs / "unquoted.yml"
    inventory.write_text(f"all:\n  hosts:\n    {new_number()}:\n")
    run = playbooks.run(REGISTER, "", "-i", str(inventory))
    assert run.rc != 0
    assert "The inventory has no hosts, so there is no number to register" in run.text
    assert 'write "+919876543210":, with the quotes' in run.text.replace('\\"', '"')
    assert simulator.count() == 0


def test_numbers_can_be_given_without_an_inventory(playbooks: Playbooks, simulator: Simulator, key: KeyPair) -> None:
    number = new_number()
    variables = {"api_url": playbooks.api_url, "sid": SID, "api_key": API_KEY, "phone_numbers": [number], "public_key": key.public}
    run = playbooks.run(REGISTER, "", variables={f"flows_encryption_{name}": value for name, value in variables.items()})
    assert run.rc == 0, run.output
    assert simulator.registered()[SID] == {number: key.fingerprint}
