# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Inventories that Ansible ignores, and runs without one."""

from __future__ import annotations

import pytest
from support.keys import KeyPair
from support.playbook_runs import API_KEY, SID, Playbooks, new_number
from support.simulator.client import Simulator

REGISTER = "kaleyra.whatsapp.flows_encryption"


@pytest.mark.parametrize(
    ("playbook", "said"),
    [
        (REGISTER, "so there is no number to register"),
        pytest.param("kaleyra.whatsapp.rotate_flows_key", "so there is no number to register", marks=pytest.mark.slow),
        pytest.param("kaleyra.whatsapp.flows_key_pair", "and flows_encryption_private_key_path is not set", marks=pytest.mark.slow),
    ],
)
def test_unquoted_numbers_in_yaml_are_a_failure(playbooks: Playbooks, simulator: Simulator, playbook: str, said: str) -> None:
    inventory = playbooks.inputs / "unquoted.yml"
    inventory.write_text(f"all:\n  hosts:\n    {new_number()}:\n")
    run = playbooks.run(playbook, "", "-i", str(inventory))
    assert run.rc != 0
    assert f"The inventory has no hosts, {said}" in run.text
    assert 'write "+919876543210":, with the quotes' in run.text.replace('\\"', '"')
    assert simulator.count() == 0


def test_numbers_can_be_given_without_an_inventory(playbooks: Playbooks, simulator: Simulator, key: KeyPair) -> None:
    number = new_number()
    variables = {"api_url": playbooks.api_url, "sid": SID, "api_key": API_KEY, "phone_numbers": [number], "public_key": key.public}
    run = playbooks.run(REGISTER, "", variables={f"flows_encryption_{name}": value for name, value in variables.items()})
    assert run.rc == 0, run.output
    assert simulator.registered()[SID] == {number: key.fingerprint}
