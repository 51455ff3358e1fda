# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role: one key pair for all that share it, and its public key registered for each number."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from support.endpoint.client import Endpoint
from support.keys import KeyPair, fingerprint_of, openssl, public_of
from support.playbook_runs import API_KEY, CHECKOUT, SID, WA_400, Playbooks, Run, new_number
from support.role import REGISTER, ROLE, fleet, included, prefixed
from support.simulator.client import Simulator

MAKE = "Ensure the key pairs"

Play = dict[str, Any]


def play(**keywords: Any) -> list[Play]:
    return [{"hosts": "all", "gather_facts": False, "roles": [ROLE], **keywords}]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def of_numbers(run: Run) -> list[dict[str, Any]]:
    """The outcome of each number, over all hosts."""
    return [number for outcome in run.of(REGISTER) for number in outcome.result.get("numbers", [])]


def reasons(run: Run) -> dict[str, str]:
    return {number["phone_number"]: number["reason"] for number in of_numbers(run)}


def keys_made(run: Run) -> int:
    """How many times a private key was made, over all hosts and paths."""
    return sum(outcome.facts["changed"] for outcome in run.of(MAKE, items=True))


def summaries(run: Run) -> list[str]:
    return [outcome.result["msg"] for outcome in run.of("Print the summary") if outcome.status == "ok"]


def test_role_check_real_check_real(playbooks: Playbooks, simulator: Simulator) -> None:
    """Numbers as hosts, with and without plus, and as a list on a host, in an INI inventory as people write it."""
    plus, digits, one, two = numbers = [new_number() for dummy in range(4)]
    private, cache = playbooks.folder / "keys/flows/private.pem", playbooks.folder / "records"
    variables = fleet(simulator.url, [], private_key_path=private, cache_path=cache)["all"]["vars"]
    inventory = (
        f"{plus}\n{digits.removeprefix('+')}\n"
        f"""shops flows_encryption_phone_numbers='["{one}", "{two[:3]} {two[3:]}"]'\n"""
        "[all:vars]\n" + "".join(f"{name}={value}\n" for name, value in variables.items())
    )

    def run(*arguments: str) -> Run:
        run = playbooks.run(play(), inventory, "--diff", *arguments)
        assert run.rc == 0, run.output
        assert run.stdout.count("\nTASK [") <= 12
        assert not run.of("Print the summary")  # nobody has asked for it
        return run

    checked = run("--check")
    assert {host for host, counts in checked.recap.items() if counts["changed"]} == {plus, digits.removeprefix("+"), "shops"}
    said = " ".join(result["msg"] for result in checked.by_host(REGISTER).values())
    assert all(number in said for number in (plus, digits.removeprefix("+"), one, f"{two[:3]} {two[3:]}"))
    assert simulator.count() == 0
    assert not private.parent.parent.exists() and not cache.exists()

    done = run()
    assert len(done.of(MAKE)) == keys_made(done) == 1
    assert done.changed() == checked.changed()
    assert reasons(done) == dict.fromkeys(numbers, "absent")
    assert len(done.of(REGISTER)) == 3  # one task for a host, however many numbers it has
    assert simulator.count() == 4
    # What is on disk, as the file system and openssl see it.
    assert private.read_text().startswith("-----BEGIN PRIVATE KEY-----\n")
    assert "Private-Key: (2048 bit" in openssl("pkey", "-in", private, "-noout", "-text")
    assert (mode(private), mode(private.parent)) == (0o600, 0o700)
    public = private.with_name("private.pub.pem").read_text()
    assert public == public_of(private)
    assert simulator.registered() == {SID: dict.fromkeys(numbers, fingerprint_of(public))}
    content = private.read_bytes()

    for arguments in (["--check"], []):
        again = run(*arguments)
        assert again.changed() == 0, again.output
        assert reasons(again) == dict.fromkeys(numbers, "up_to_date")
        assert simulator.count() == 4
        assert private.read_bytes() == content


@pytest.mark.slow
def test_role_used_in_other_ways(playbooks: Playbooks, simulator: Simulator, key: KeyPair) -> None:
    """Imported, included, by a later play, twice by one host, with facts, and by its playbook: what is there is not made again."""
    first, second, other = (new_number() for dummy in range(3))
    private, another = playbooks.inputs / "private.pem", playbooks.folder / "another.pem"
    private.write_text(key.private)
    inventory = fleet(simulator.url, {first: {}, second: {"ansible_connection": "local"}}, private_key_path=str(private))
    own = included(vars=prefixed({"private_key_path": str(another), "phone_numbers": [other]}))
    plays = [
        {"hosts": first, "gather_facts": False, "tasks": [{"name": "Import", "ansible.builtin.import_role": {"name": ROLE}}]},
        {"hosts": second, "gather_facts": True, "gather_subset": ["!all"], "tasks": [included(), own, included()]},
    ]
    before = playbooks.inputs / "before.yml"
    before.write_text(json.dumps(plays))
    run = playbooks.run(ROLE, inventory, str(before))
    assert run.rc == 0, run.output
    assert run.modules.count("openssl_privatekey") == 1
    assert simulator.registered() == {SID: {first: key.fingerprint, second: key.fingerprint, other: fingerprint_of(public_of(another))}}
    assert simulator.count() == 3
    assert reasons(run) == {first: "up_to_date", second: "up_to_date", other: "absent"}  # the last of each


@pytest.mark.slow
def test_pair_that_fails_stops_its_own_hosts(playbooks: Playbooks, simulator: Simulator, key: KeyPair) -> None:
    """Whatever is there is kept byte for byte. The first host of the play has the worst pair."""
    encrypted = openssl("pkey", "-aes256", "-passout", "pass:The Right One", stdin=key.private)
    # Options, the private key that is there, and what is said.
    cases: dict[str, tuple[dict[str, Any], str, str]] = {
        "unreachable": ({"key_host": "nobody.invalid"}, "", "The key host nobody.invalid cannot be reached: "),
        "owner": ({"private_key_owner": "no-such-user"}, "", "{path} cannot be created on localhost: "),
        "no key": ({}, "this is not a key\n", "The private key {path} on localhost cannot be read: "),
        "3072 bits": ({}, KeyPair.make("RSA", "rsa_keygen_bits:3072").private, "RSA with 3072 bits"),
        "elliptic curve": ({}, KeyPair.make("EC", "ec_paramgen_curve:P-256").private, "of the type EC"),
        "no passphrase": ({}, encrypted, "Check flows_encryption_private_key_passphrase or KALEYRA_FLOWS_PRIVATE_KEY_PASSPHRASE."),
        "wrong passphrase": ({"private_key_passphrase": "The Wrong One"}, encrypted, "passphrase"),
        "folder": ({}, "", "flows_encryption_private_key_path {path} on localhost: "),
        "blocked": ({}, "", "{path} cannot be created on localhost: {folder} is not a folder."),
        "mode": ({"private_key_mode": "0644"}, "", "flows_encryption_private_key_mode is 0644, which"),
        "contradiction": ({"private_key_format": "pkcs1"}, "", "with different values of flows_encryption_private_key_format"),
        "same path": ({"private_key_format": "pkcs8"}, "", "with different values of flows_encryption_private_key_format"),
        "path as key": ({"public_key": "/etc/flows/public.pem"}, "", "flows_encryption_public_key must be the PEM of a public key, not a path."),
        "option": ({"timeout": "soon"}, "", "flows_encryption_timeout: "),
        "good": ({}, "", ""),
        "same pair": ({}, "", ""),
        "other format": ({}, openssl("pkey", "-traditional", stdin=key.private), ""),
        # Without a connection of its own, it must not get that of the pairs before, which is localhost's.
        "unreachable as well": ({"key_host": "lost"}, "", "The key host lost cannot be reached: "),
    }
    numbers = {name: new_number() for name in cases}
    paths = {name: playbooks.inputs / f"keys of {name}/private key" for name in cases}
    paths["same path"], paths["same pair"] = paths["contradiction"], paths["good"]
    for name, case in cases.items():
        if case[1]:
            paths[name].parent.mkdir()
            paths[name].write_text(case[1])
    paths["folder"].mkdir(parents=True)
    paths["blocked"].parent.write_text("not a folder")
    inventory = fleet(simulator.url, {numbers[name]: {"private_key_path": str(paths[name]), **case[0]} for name, case in cases.items()})
    inventory["all"]["children"] = {"key_hosts": {"hosts": {"lost": {}}}}

    checked = playbooks.run(play(hosts="all:!key_hosts"), inventory, "--check", "--limit", f"{numbers['blocked']},{numbers['good']}")
    assert (checked.failed(), checked.changed()) == ({numbers["blocked"]}, 2)
    run = playbooks.run(play(hosts="all:!key_hosts"), inventory)
    messages = {host: result["msg"] for host, result in run.by_host(REGISTER).items() if result["failed"]}
    assert run.failed() == set(messages) == {numbers[name] for name, (*dummy, said) in cases.items() if said}, run.output
    assert messages[numbers["blocked"]] == checked.by_host(REGISTER)[numbers["blocked"]]["msg"]
    for name, (dummy, text, said) in cases.items():
        if said:
            message, path = messages[numbers[name]], paths[name]
            assert said.format(path=path, folder=path.parent) in message and len(message) < 700
        assert not text or paths[name].read_text() == text
    assert not any(paths[name].exists() for name in ("mode", "contradiction", "option", "unreachable", "unreachable as well"))
    assert mode(paths["owner"].parent) == 0o700
    made = fingerprint_of(public_of(paths["good"]))
    assert simulator.registered() == {SID: {numbers["good"]: made, numbers["same pair"]: made, numbers["other format"]: key.fingerprint}}


def test_number_that_is_refused_fails_alone(playbooks: Playbooks, simulator: Simulator, key: KeyPair) -> None:
    """And is alone in being sent again. One line counts all numbers of the play. The key is made elsewhere, so no pair is made."""
    bad, good, bad_in_list, in_list, last = (new_number() for dummy in range(5))
    hosts: dict[str, dict[str, Any]] = {
        bad: {},
        good: {},
        "shops": {"phone_numbers": [bad_in_list, "junk", in_list]},
        "broken": {"public_key": ""},  # fails before it comes to its number
        last: {},
    }
    inventory = fleet(simulator.url, hosts, public_key=key.public.replace("\n", "\r\n"), summary="yes", api_url="", sid="", api_key="")
    env = {"KALEYRA_API_URL": simulator.url, "KALEYRA_SID": SID, "KALEYRA_API_KEY": API_KEY, "KALEYRA_POD": ""}
    simulator.faults({bad: [WA_400], bad_in_list: [WA_400]})

    run = playbooks.run(play(), inventory, "--check", env=env)
    assert summaries(run) == [f"6 numbers: 5 would change, 0 unchanged, 1 failed. Key {key.fingerprint}: 5. No number was tried on broken."]
    run = playbooks.run(play(), inventory, env=env)
    assert summaries(run) == [f"6 numbers: 3 changed, 0 unchanged, 3 failed. Key {key.fingerprint}: 3. No number was tried on broken."]
    assert run.failed() == {bad, "shops", "broken"}
    messages = {outcome.host: outcome.result["msg"] for outcome in run.of(REGISTER) if outcome.status == "failed"}
    assert messages[bad].startswith(f"The key of {bad} was not registered: ")
    assert messages["shops"].startswith(f"2 of 3 numbers failed. The key of {bad_in_list} was not registered: ")
    assert not [name for name in run.modules if name.startswith("openssl")]
    assert simulator.registered() == {SID: dict.fromkeys((good, in_list, last), key.fingerprint)}
    assert simulator.count() == 5
    # What the next node of a workflow gets, by one task for the play.
    stats = run.one("Publish the outcome of each number")["ansible_stats"]
    assert (stats["per_host"], stats["aggregate"]) == (False, True)
    assert stats["data"]["flows_encryption_numbers"] == {
        **{number: {"changed": True, "status": "absent", "fingerprint": key.fingerprint} for number in (good, in_list, last)},
        **{number: {"changed": False, "status": "failed", "fingerprint": None} for number in (bad, bad_in_list, "junk")},
    }

    # After each batch; the first one without a good host ends the play.
    run = playbooks.run(play(serial=2), inventory, env=env)
    assert summaries(run) == [
        f"2 numbers: 1 changed, 1 unchanged, 0 failed. Key {key.fingerprint}: 2.",
        f"5 numbers: 2 changed, 2 unchanged, 1 failed. Key {key.fingerprint}: 4. No number was tried on broken.",
    ]
    assert {number["phone_number"] for number in of_numbers(run) if number["changed"]} == {bad, bad_in_list}
    assert simulator.count() == 7


ODD = "it's a \"Schlüssel\" folder"


@pytest.mark.slow
def test_odd_values_and_relative_paths_in_every_playbook(playbooks: Playbooks, simulator: Simulator) -> None:
    """Integers, quotes, other alphabets; relative paths start at the working directory. Rotation has a test of its own."""
    installed = [*(CHECKOUT / "playbooks").rglob("*"), *(CHECKOUT / "roles").rglob("*")]
    number, folder, public = new_number(), playbooks.inputs / ODD, playbooks.folder / "elsewhere.pem"
    folder.mkdir(mode=0o755)
    inventory = fleet(
        simulator.url,
        {"shop": {"phone_numbers": [int(number)]}},
        private_key_path=f"{ODD}/ключ",
        private_key_passphrase=12345,
        private_key_format="pkcs1",
        private_key_mode="0640",
        public_key_path=str(public),
        cache_path=f"{ODD}/records",
        report_path=f"{ODD}/reports/flows",
        check_path=f"{ODD}/flows.prom",
        # As credential forms give what was left blank.
        private_key_owner="",
        force="",
    )

    def run(*names: str, arguments: tuple[str, ...] = ()) -> Run:
        """Playbooks one after the other, in one run."""
        *before, last = [f"kaleyra.whatsapp.{name}" for name in names]
        run = playbooks.run(last, inventory, *arguments, *before)
        assert run.rc == 0, run.output
        return run

    playbook_names = ("flows_key_pair", "flows_encryption", "flows_report", "flows_check")
    run(*playbook_names[:3], arguments=("--check",))
    assert not any(folder.iterdir()) and not public.exists() and simulator.count() == 0
    run(*playbook_names)
    private = folder / "ключ"
    assert private.read_text().startswith("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED")
    assert (mode(private), mode(folder)) == (0o640, 0o755)
    fingerprint = fingerprint_of(public_of(private, "12345"))
    assert simulator.registered() == {SID: {number: fingerprint}} and fingerprint_of(public.read_text()) == fingerprint
    (row,) = json.loads((folder / "reports/flows.json").read_text())["numbers"]
    assert row["as_expected"] and (row["phone_number"], row["fingerprint"]) == (number, fingerprint)
    assert f'fingerprint="{fingerprint}"' in (folder / "flows.prom").read_text()
    assert run(*playbook_names[1:]).changed() == 0
    assert [*(CHECKOUT / "playbooks").rglob("*"), *(CHECKOUT / "roles").rglob("*")] == installed


STRATEGIES: dict[str, Play] = {
    "free": {"strategy": "ansible.builtin.free"},
    "host_pinned": {"strategy": "ansible.builtin.host_pinned"},
    "serial": {"serial": 2},
    "max_fail_percentage": {"max_fail_percentage": 60},
    "any_errors_fatal": {"any_errors_fatal": True},  # the last: what follows is not run
}


@pytest.mark.slow
def test_failing_pair_and_good_one_with_each_strategy(playbooks: Playbooks, simulator: Simulator, key: KeyPair, tmp_path: Path) -> None:
    """The first host's key is damaged, the others share a pair. With two strategies it is made in the run, with another an endpoint verified."""
    damaged, existing = playbooks.inputs / "damaged.pem", playbooks.inputs / "private.pem"
    damaged.write_text("junk")
    existing.write_text(key.private)
    existing.chmod(0o600)
    existing.with_name("private.pub.pem").write_text(key.public)
    sizes = {"free": 3, "host_pinned": 2, "serial": 4, "max_fail_percentage": 2, "any_errors_fatal": 2}
    groups = {name: [new_number() for dummy in range(size)] for name, size in sizes.items()}
    left_out = groups["serial"].pop()
    paths = {name: playbooks.folder / name / "private.pem" if name in ("free", "serial") else existing for name in groups}
    endpoint = Endpoint(tmp_path / "endpoint-keys", [existing])
    inventory = fleet(simulator.url, {}, summary=True)
    inventory["all"]["children"] = {
        name: {
            "hosts": {bad: {"flows_encryption_private_key_path": str(damaged)}, **{number: {} for number in good}},
            "vars": prefixed({"private_key_path": str(paths[name]), "endpoint_url": endpoint.url if name == "host_pinned" else ""}),
        }
        for name, (bad, *good) in groups.items()
    }
    inventory["all"]["children"]["serial"]["hosts"][left_out] = {}
    plays = [{**play(**keywords)[0], "hosts": name} for name, keywords in STRATEGIES.items()]

    with endpoint:
        checked = playbooks.run(plays, inventory, "--check", "--limit", "free")
        done = playbooks.run(plays, inventory, "--limit", f"all:!{left_out}", "--forks", "6")
        # Each host by itself, before and after.
        assert sorted(endpoint.answered()) == [200] * 2 + [421] * 2
    for run, names in ((checked, ["free"]), (done, [*groups])):
        assert run.rc != 0
        messages = run.by_host(REGISTER)
        for bad, *good in (groups[name] for name in names):
            assert "cannot be read" in messages[bad]["msg"] and messages[bad]["failed"]
            assert all(messages[number]["changed"] and not messages[number]["failed"] for number in good)
    assert not summaries(checked)  # there is no key yet
    assert keys_made(done) == done.modules.count("openssl_privatekey") == 2  # also where all hosts are at work at once
    made = {name: fingerprint_of(public_of(path)) for name, path in paths.items()}
    assert len(set(made.values())) == 3
    assert simulator.registered() == {SID: {number: made[name] for name, (dummy, *good) in groups.items() for number in good}}
    # By the last host, and by those that were done at the same moment.
    said = {outcome.result["msg"] for outcome in done.of("Print the summary") if outcome.host in groups["free"]}
    assert said == {f"2 numbers: 2 changed, 0 unchanged, 0 failed. Key {made['free']}: 2. No number was tried on {groups['free'][0]}."}


@pytest.mark.parametrize(
    ("playbook", "said"),
    [
        (ROLE, "so there is no number to register"),
        pytest.param("kaleyra.whatsapp.flows_key_pair", "and flows_encryption_private_key_path is not set", marks=pytest.mark.slow),
    ],
)
def test_unquoted_numbers_in_yaml_are_a_failure(playbooks: Playbooks, playbook: str, said: str) -> None:
    """Ansible ignores such an inventory."""
    inventory = playbooks.inputs / "unquoted.yml"
    inventory.write_text(f"all:\n  hosts:\n    {new_number()}:\n")
    run = playbooks.run(playbook, "", "-i", str(inventory))
    assert run.rc != 0
    assert f"The inventory has no hosts, {said}" in run.text
    assert 'write "+919876543210":, with the quotes' in run.text.replace('\\"', '"')


def test_numbers_can_be_given_without_an_inventory(playbooks: Playbooks, simulator: Simulator, key: KeyPair) -> None:
    number = new_number()
    run = playbooks.run(ROLE, "", variables=fleet(playbooks.api_url, [], phone_numbers=[number], public_key=key.public)["all"]["vars"])
    assert run.rc == 0, run.output
    assert simulator.registered()[SID] == {number: key.fingerprint}
