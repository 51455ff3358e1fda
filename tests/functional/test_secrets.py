# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The API key, the passphrase and the private key stand in nothing that a run prints, logs or leaves behind."""

from __future__ import annotations

from typing import Any

import pytest
from support.keys import KeyPair, openssl, secret_lines
from support.playbook_runs import API_KEY, AS_A_MODULE, SID, WORKER, Playbooks, Run, assert_nowhere, new_number, spellings
from support.simulator.client import Simulator

CALLBACKS = ("ansible.builtin.default", pytest.param("ansible.posix.json", marks=pytest.mark.slow))
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
    wrong: dict[str, Any] = {"phone_number": new_number(), "business_public_key": key.public}
    tasks += [
        playbooks.task("bad api_key", execution_mode, **wrong, api_key="{{ api_key }} \n"),
        playbooks.task("private key", execution_mode, phone_number=new_number(), business_public_key=key.private),
    ]
    run = playbooks.run_tasks(tasks, *EVERYTHING, env=talkative(playbooks, callback))
    # The private key need not come as far as to a process.
    assert (run.modules.count("kaleyra_flows_encryption") in (5, 6)) == (execution_mode == AS_A_MODULE)
    assert not run.one("success")["failed"]
    # What the server repeats is shown without the key, not left out.
    outcomes = {"refused": "rejected", "unconfirmed": "unknown", "error": "unknown"}
    for name, outcome in outcomes.items():
        result = run.one(name)
        assert (result["failed"], result["outcome"]) == (True, outcome)
        assert result["message"].startswith("Refused: ****"), result["message"]
    for name in ("bad api_key", "private key"):
        assert run.one(name)["failed"]
    # The arguments are among the results, where a module had some: so this test would see them.
    assert ('"module_args"' in run.stdout) == (execution_mode == AS_A_MODULE)
    assert_nowhere([*spellings(API_KEY), *secret_lines(key.private)], places(playbooks, run))


@pytest.mark.slow
def test_module_in_the_background(
    playbooks: Playbooks, simulator: Simulator, key: KeyPair
) -> None:
    background = {"async": 60, "poll": 1}
    numbers = [new_number() for dummy in range(2)]
    simulator.faults({numbers[1]: [{"do": "echo"}]})
    account = {"api_url": "", "sid": "", "api_key": ""}
    tasks = [
        playbooks.task(number, keywords=background, phone_number=number, business_public_key=key.public, **account)
        for number in numbers
    ]
    env = {"KALEYRA_API_URL": simulator.url, "KALEYRA_SID": SID, "KALEYRA_API_KEY": API_KEY}
    run = playbooks.run_tasks(tasks, *EVERYTHING, env={**env, **talkative(playbooks, "ansible.builtin.default")})
    assert [run.one(number)["failed"] for number in numbers] == [False, True]
    assert_nowhere(spellings(API_KEY), places(playbooks, run))


@pytest.mark.parametrize("callback", CALLBACKS)
def test_role(playbooks: Playbooks, simulator: Simulator, callback: str) -> None:
    good, refused, closed, bad = (new_number() for dummy in range(4))
    passphrase, wrong = "Open-Sesame-1001", "Open-Barley-1002"
    made, existing = playbooks.folder / "keys/made.pem", playbooks.inputs / "existing.pem"
    other = KeyPair.make("RSA", "rsa_keygen_bits:2048")
    existing.write_text(openssl("pkey", "-aes256", "-passout", "pass:Something-Else-1003", stdin=other.private))
    role = "flows_encryption"
    of_all = {
        f"{role}_api_url": simulator.url,
        f"{role}_sid": "{{ sid }}",
        f"{role}_api_key": "{{ api_key }}",
        f"{role}_private_key_path": str(made),
        f"{role}_private_key_passphrase": passphrase,
    }
    hosts: dict[str, dict[str, str]] = {
        good: {},
        refused: {},
        closed: {f"{role}_private_key_path": str(existing), f"{role}_private_key_passphrase": wrong},
        bad: {f"{role}_retries": "many"},
    }
    simulator.faults({refused: [{"do": "echo", "always": True}]})
    plays = [{"hosts": "all", "gather_facts": False, "roles": ["kaleyra.whatsapp.flows_encryption"]}]
    inventory = {"all": {"hosts": hosts, "vars": of_all}}
    run = playbooks.run(plays, inventory, *EVERYTHING, env=talkative(playbooks, callback))
    assert run.failed() == {refused, closed, bad}, run.output
    assert good in simulator.registered()[SID]

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
