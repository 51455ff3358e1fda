# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The defaults that the modules of an account share: ``group/kaleyra.whatsapp.kaleyra`` in ``module_defaults``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.keys import KeyPair
from support.playbook_runs import API_KEY, AS_A_MODULE, EXECUTION_MODES, INFO, MODULE, SID, Playbooks, Run, assert_nowhere, new_number
from support.simulator.client import Simulator

pytestmark = pytest.mark.slow

GROUP = "group/kaleyra.whatsapp.kaleyra"
PING = "kaleyra.whatsapp.flows_endpoint_ping"


def run_with(playbooks: Playbooks, execution_mode: str, defaults: dict[str, Any], tasks: list[dict[str, Any]], *args: str) -> Run:
    environment = {"ASKS_FOR_A_PROCESS": "yes"} if execution_mode == AS_A_MODULE else {}
    play = {"hosts": "all", "gather_facts": False, "module_defaults": {GROUP: defaults}, "environment": environment, "tasks": tasks}
    return playbooks.run([play], {"all": {"hosts": {"here": {"ansible_connection": "local"}}}}, *args)


@pytest.mark.parametrize("execution_mode", EXECUTION_MODES)
def test_group_defaults_reach_its_modules(
    playbooks: Playbooks, simulator: Simulator, key: KeyPair, tmp_path: Path, execution_mode: str
) -> None:
    mine, other = new_number(), new_number()
    defaults = {
        "api_url": playbooks.api_url,
        "sid": SID,
        "api_key": API_KEY,
        "cache_path": str(tmp_path / "records"),
        "timeout": 20,
        "retries": 1,
        "validate_certs": True,
        "ca_path": "",
        "phone_numbers": [mine],
        "business_public_key": key.public,
    }
    run = run_with(
        playbooks,
        execution_mode,
        defaults,
        [
            {"name": "register", MODULE: {}},
            {"name": "a task's own option wins", MODULE: {"phone_numbers": [other]}},
            {"name": "ask", INFO: {}},
            {"name": "ask for another account", INFO: {"sid": "HXAP16NOBODY97IN"}},
            # Which is not told the account: else its options were unsupported.
            {"name": "ping", PING: {"url": "http://127.0.0.1:1/", "business_public_key": "none"}, "ignore_errors": True},
        ],
        "-vvvv",
    )
    assert run.rc == 0, run.output
    # The ping's key is refused before a process is started.
    assert run.modules == (["kaleyra_flows_encryption"] * 2 + ["kaleyra_flows_encryption_info"] * 2 if execution_mode == AS_A_MODULE else [])
    assert "expected one BEGIN PUBLIC KEY block" in run.one("ping")["msg"]
    assert simulator.registered() == {SID: {mine: key.fingerprint, other: key.fingerprint}}
    asked = run.one("ask")
    assert [(n["phone_number"], n["sid"], n["as_expected"]) for n in asked["numbers"]] == [(mine, SID, True)]
    assert [n["state"] for n in run.one("ask for another account")["numbers"]] == ["absent"]
    assert not playbooks.default_cache.exists()
    assert_nowhere([API_KEY], {"output": run.output})


def test_role_ignores_group_defaults(playbooks: Playbooks, simulator: Simulator, key: KeyPair, tmp_path: Path) -> None:
    number = new_number()
    include = {"ansible.builtin.include_role": {"name": "kaleyra.whatsapp.flows_encryption"}}
    variables = {
        "flows_encryption_api_url": playbooks.api_url,
        "flows_encryption_sid": SID,
        "flows_encryption_api_key": API_KEY,
        "flows_encryption_phone_numbers": [number],
        "flows_encryption_public_key": key.public,
        "flows_encryption_cache_path": str(tmp_path / "records"),
    }
    wrong = {"pod": "eu", "sid": "HXAP16NOBODY97IN", "api_key": "wrong"}
    run = run_with(playbooks, "worker", wrong, [{"name": "onboard", **include, "vars": variables}])
    assert run.rc == 0, run.output
    assert simulator.registered() == {SID: {number: key.fingerprint}}
