# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The API key, the passphrase and the private key stand in nothing that a run prints, logs or leaves behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.keys import KeyPair, openssl, secret_lines
from support.playbook_runs import API_KEY, AS_A_MODULE, EXECUTION_MODES, MODULE, SID, WORKER, Playbooks, Run, assert_nowhere, new_number, spellings
from support.role import ROLE, fleet
from support.simulator.client import Simulator

TOKEN = "EAAB-Functional-Tests-Token-4711"
COLLECTION = MODULE.rpartition(".")[0]
EVERYTHING = ("-vvvv", "--diff")


def talkative(playbooks: Playbooks, callback: str) -> dict[str, str]:
    """Settings under which Ansible says the most."""
    return {
        "ANSIBLE_STDOUT_CALLBACK": callback,
        "ANSIBLE_LOG_PATH": str(playbooks.logs / f"{callback}.log"),
        # Results with the module's arguments, as all had them before core 2.21.
        "ANSIBLE_INJECT_INVOCATION": "1",
    }


def places(playbooks: Playbooks, run: Run) -> dict[Any, str]:
    """Everything that the runs have said and left: records, logs and the recorder's results are among the files."""
    left = playbooks.leftovers()
    assert any(path.suffix == ".log" and text for path, text in left.items())
    return {"the output": run.output, **left}


@pytest.mark.parametrize(("execution_mode", "callback"), [(WORKER, "ansible.posix.json"), (AS_A_MODULE, "ansible.builtin.default")])
def test_module(playbooks: Playbooks, simulator: Simulator, key: KeyPair, execution_mode: str, callback: str) -> None:
    numbers = {name: new_number() for name in ("success", "refused", "unconfirmed", "error")}
    simulator.faults(
        {
            numbers["refused"]: [{"do": "echo", "status": 400}],
            numbers["unconfirmed"]: [{"do": "echo", "status": 200}],
            numbers["error"]: [{"do": "echo", "status": 500}],
        }
    )
    tasks = [
        playbooks.task(name, execution_mode, phone_number=number, business_public_key=key.public, retries=0)
        for name, number in numbers.items()
    ]
    wrong: dict[str, Any] = {"phone_number": new_number(), "business_public_key": key.public, "api_key": "{{ api_key }} \n"}
    tasks.append(playbooks.task("bad api_key", execution_mode, **wrong))
    run = playbooks.run_tasks(tasks, *EVERYTHING, env=talkative(playbooks, callback))
    assert run.modules == ["kaleyra_flows_encryption"] * (5 if execution_mode == AS_A_MODULE else 0)
    assert not run.one("success")["failed"]
    # What the server repeats is shown without the key, not left out.
    outcomes = {"refused": "rejected", "unconfirmed": "unknown", "error": "unknown"}
    for name, outcome in outcomes.items():
        result = run.one(name)
        assert (result["failed"], result["outcome"]) == (True, outcome)
        assert result["message"].startswith("Refused: ****"), result["message"]
    assert run.one("bad api_key")["failed"]
    # The arguments are among the results, where a module had some: so this test would see them.
    assert ('"module_args"' in run.stdout) == (execution_mode == AS_A_MODULE)
    assert_nowhere(spellings(API_KEY), places(playbooks, run))


@pytest.mark.slow
def test_module_in_the_background(playbooks: Playbooks, simulator: Simulator, key: KeyPair) -> None:
    """With the account in the environment."""
    number = new_number()
    simulator.faults({number: [{"do": "echo"}]})
    account = {"api_url": "", "sid": "", "api_key": ""}
    task = playbooks.task("register", keywords={"async": 60, "poll": 1}, phone_number=number, business_public_key=key.public, **account)
    env = {"KALEYRA_API_URL": simulator.url, "KALEYRA_SID": SID, "KALEYRA_API_KEY": API_KEY}
    run = playbooks.run_tasks([task], *EVERYTHING, env={**env, **talkative(playbooks, "ansible.builtin.default")})
    assert run.one("register")["failed"] and simulator.count() == 1
    assert_nowhere(spellings(API_KEY), places(playbooks, run))


@pytest.mark.slow
def test_role(playbooks: Playbooks, simulator: Simulator) -> None:
    good, refused, closed, bad = (new_number() for dummy in range(4))
    passphrase, wrong = "Open-Sesame-1001", "Open-Barley-1002"
    made, existing = playbooks.folder / "keys/made.pem", playbooks.inputs / "existing.pem"
    other = KeyPair.make("RSA", "rsa_keygen_bits:2048")
    existing.write_text(openssl("pkey", "-aes256", "-passout", "pass:Something-Else-1003", stdin=other.private))
    with_wrong = {"private_key_path": str(existing), "private_key_passphrase": wrong}
    hosts: dict[str, dict[str, str]] = {good: {}, refused: {}, closed: with_wrong, bad: {"retries": "many"}}
    of_pair = {"private_key_path": str(made), "private_key_passphrase": passphrase}
    inventory = fleet(simulator.url, hosts, sid="{{ sid }}", api_key="{{ api_key }}", **of_pair)
    simulator.faults({refused: [{"do": "echo", "always": True}]})
    run = playbooks.run(ROLE, inventory, *EVERYTHING, env=talkative(playbooks, "ansible.builtin.default"))
    assert run.failed() == {refused, closed, bad}, run.output
    assert good in simulator.registered()[SID]

    assert made.read_text().startswith("-----BEGIN ENCRYPTED PRIVATE KEY-----\n")
    decrypted = openssl("pkey", "-in", made, "-passin", f"pass:{passphrase}")
    files = {place: text for place, text in places(playbooks, run).items() if place != made}
    assert any("PUBLIC KEY" in text for text in files.values())
    secrets = [
        *spellings(API_KEY),
        *spellings(passphrase),
        *spellings(wrong),
        *secret_lines(decrypted),
        *secret_lines(made.read_text()),
        *secret_lines(existing.read_text()),
    ]
    assert_nowhere(secrets, files)


def tasks_with(key: KeyPair, encrypted: Path, execution_mode: str) -> dict[str, dict[str, Any]]:
    """Tasks by module and option that holds the secret."""
    private, number = key.private, new_number()
    account = {"api_url": "{{ api_url }}", "sid": "{{ sid }}", "api_key": "{{ api_key }}"}
    right = {**account, "phone_number": number, "business_public_key": key.public, "retries": 0, "timeout": 5}
    by_path = {name: value for name, value in right.items() if name != "business_public_key"}
    in_list = {name: value for name, value in right.items() if name != "phone_number"}
    ping = {"url": "https://127.0.0.1:9/", "business_public_key": key.public, "timeout": 2}
    given: dict[str, dict[str, dict[str, Any]]] = {
        "kaleyra_flows_encryption": {
            "business_public_key": {**right, "business_public_key": private},
            "business_public_key after a public one": {**right, "business_public_key": key.public + private},
            "business_public_key in one line": {**right, "business_public_key": private.replace("\n", "\\n")},
            "business_public_key_path": {**by_path, "business_public_key_path": private},
            "business_public_key_path of a file": {**by_path, "business_public_key_path": str(encrypted)},
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


@pytest.mark.slow
@pytest.mark.parametrize("execution_mode", EXECUTION_MODES)
def test_secret_in_a_wrong_option_is_not_repeated(playbooks: Playbooks, simulator: Simulator, key: KeyPair, execution_mode: str) -> None:
    file = playbooks.inputs / "encrypted.pem"
    file.write_text(openssl("pkcs8", "-topk8", "-passout", "pass:Some-Passphrase", stdin=key.private))
    tasks = tasks_with(key, file, execution_mode)
    run = playbooks.run_tasks(list(tasks.values()), *EVERYTHING, env=talkative(playbooks, "ansible.builtin.default"))
    for name in tasks:
        result = run.one(name)
        assert result["failed"], name
        assert name.split()[1] in result["msg"], (name, result["msg"])
    secrets = [*secret_lines(key.private), *secret_lines(file.read_text()), API_KEY, TOKEN, "BEGIN PRIVATE"]
    assert_nowhere(secrets, places(playbooks, run))
    assert simulator.count() == 0
