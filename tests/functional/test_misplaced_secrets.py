# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A secret in a wrong option is not repeated, however much Ansible prints."""

from __future__ import annotations

from typing import Any

import pytest
from support.keys import KeyPair, secret_lines
from support.playbook_runs import API_KEY, EXECUTION_MODES, MODULE, WORKER, Playbooks, assert_nowhere, new_number
from support.simulator.client import Simulator

pytestmark = pytest.mark.slow

TOKEN = "EAAB-Functional-Tests-Token-4711"
COLLECTION = MODULE.rpartition(".")[0]


def tasks_with(key: KeyPair, execution_mode: str) -> dict[str, dict[str, Any]]:
    """Tasks by module and option that holds the secret."""
    private, number = key.private, new_number()
    account = {"api_url": "{{ api_url }}", "sid": "{{ sid }}", "api_key": "{{ api_key }}"}
    right = {**account, "phone_number": number, "business_public_key": key.public, "retries": 0, "timeout": 5}
    by_path = {name: value for name, value in right.items() if name != "business_public_key"}
    in_list = {name: value for name, value in right.items() if name != "phone_number"}
    ping = {"url": "https://127.0.0.1:9/", "business_public_key": key.public, "timeout": 2}
    given: dict[str, dict[str, dict[str, Any]]] = {
        "kaleyra_flows_encryption": {
            "business_public_key_path": {**by_path, "business_public_key_path": private},
            "ca_path": {**right, "ca_path": private},
            "cache_path": {**right, "cache_path": private},
            "phone_number": {**right, "phone_number": private},
            "phone_numbers": {**in_list, "phone_numbers": [number, private]},
            "sid": {**right, "sid": private},
            "known_fingerprint": {**right, "known_fingerprint": private},
            "pod": {**right, "pod": API_KEY},
            "phone_number with the API key": {**right, "phone_number": API_KEY},
            "sid with the API key": {**right, "sid": API_KEY},
            "api_url with the API key in its query": {**right, "api_url": f"http://127.0.0.1:9/?api-key={API_KEY}"},
            "api_url with the API key in its path": {**right, "api_url": f"https://127.0.0.1:9/{API_KEY}"},
            "known_fingerprint with the API key": {**right, "known_fingerprint": API_KEY},
            "phone_numbers with the API key": {**in_list, "phone_numbers": [number, API_KEY]},
            "timeout with the API key": {**right, "timeout": API_KEY},
            "meta_waba_ids with the token": {**right, "meta_access_token": TOKEN, "meta_waba_ids": [TOKEN]},
            "meta_api_url with the token": {**right, "meta_access_token": TOKEN, "meta_api_url": f"https://127.0.0.1:9/?access_token={TOKEN}"},
        },
        "kaleyra_flows_encryption_info": {
            "cache_path": {"cache_path": private},
            "phone_numbers": {"phone_numbers": [private]},
            "fingerprint": {"fingerprint": private},
            "business_public_key_path": {"business_public_key_path": private},
            "sid with the API key": {**account, "sid": API_KEY},
        },
        "flows_endpoint_ping": {
            "url": {**ping, "url": private},
            "ca_path": {**ping, "ca_path": private},
            "url with the app secret": {**ping, "app_secret": TOKEN, "url": f"https://127.0.0.1:9/?secret={TOKEN}"},
        },
        "flows_key_rotation": {
            "private_key_path": {"step": "plan", "private_key_path": private},
            "public_key_path": {"step": "plan", "private_key_path": "/no/private.pem", "public_key_path": private},
            "step": {"step": private, "private_key_path": "/no/private.pem"},
        },
    }
    # Who looks first at the arguments is what differs.
    return {
        f"{module}: {option}": {
            "name": f"{module}: {option}",
            f"{COLLECTION}.{module}": arguments,
            **({} if execution_mode == WORKER else {"environment": {"ASKS_FOR_A_PROCESS": "yes"}}),
        }
        for module, options in given.items()
        for option, arguments in options.items()
        if execution_mode == WORKER or module in ("kaleyra_flows_encryption_info", "flows_key_rotation") or "phone_number" in option
    }


@pytest.mark.parametrize("verbosity", ["-v", "-vvvv"])
@pytest.mark.parametrize("execution_mode", EXECUTION_MODES)
def test_secret_in_a_wrong_option_is_not_repeated(
    playbooks: Playbooks, simulator: Simulator, key: KeyPair, execution_mode: str, verbosity: str
) -> None:
    tasks = tasks_with(key, execution_mode)
    # The log has what is printed, the recorder all results.
    env = {"ANSIBLE_LOG_PATH": str(playbooks.logs / "ansible.log"), "ANSIBLE_INJECT_INVOCATION": "1"}
    run = playbooks.run_tasks(list(tasks.values()), verbosity, "--diff", env=env)
    for name in tasks:
        result = run.one(name)
        assert result["failed"], name
        assert name.split()[1] in result["msg"], (name, result["msg"])
    left = playbooks.leftovers()
    assert any(path.name == "ansible.log" for path in left)
    places: dict[Any, str] = {"the output": run.output, **left}
    assert_nowhere([*secret_lines(key.private), API_KEY, TOKEN, "BEGIN PRIVATE", "PRIVATE KEY"], places)
    assert simulator.count() == 0
