# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role: one key pair for all that share it, and its public key registered for each number."""

from __future__ import annotations

import json
import stat
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from support.keys import KeyPair, fingerprint_of, openssl
from support.playbook_runs import API_KEY, CHECKOUT, SID, WA_400, Playbooks, Run, new_number
from support.simulator.client import Simulator

ROLE = "kaleyra.whatsapp.flows_encryption"
MAKE = "Ensure the key pairs"
REGISTER = "Register the public key of each number"
SUM_UP = "Print the summary"

Play = dict[str, Any]


def account(simulator: Simulator) -> dict[str, str]:
    return {
        "flows_encryption_api_url": simulator.url,
        "flows_encryption_sid": SID,
        "flows_encryption_api_key": API_KEY,
    }


def fleet(simulator: Simulator, hosts: Mapping[str, Mapping[str, Any]], **variables: Any) -> dict[str, Any]:
    """An inventory of numbers, which nobody can connect to: all work is delegated."""
    hosts = {host: dict(of_host) for host, of_host in hosts.items()}
    of_all = {**account(simulator), **{f"flows_encryption_{name}": value for name, value in variables.items()}}
    return {"all": {"hosts": hosts, "vars": of_all}}


def play(**keywords: Any) -> list[Play]:
    return [{"hosts": "all", "gather_facts": False, "roles": [ROLE], **keywords}]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def public_of(private: Path, passphrase: str = "") -> str:
    """The public key as openssl sees it; fails for anything but a private key."""
    return openssl("pkey", "-in", private, "-passin", f"pass:{passphrase}", "-pubout")


def of_numbers(run: Run) -> list[dict[str, Any]]:
    """The outcome of each number, over all hosts."""
    return [number for outcome in run.of(REGISTER) for number in outcome.result["numbers"]]


def reasons(run: Run) -> dict[str, str]:
    return {number["phone_number"]: number["reason"] for number in of_numbers(run)}


def headings(run: Run) -> int:
    """How many tasks the output names, skipped ones included."""
    return run.stdout.count("\nTASK [")


def keys_made(run: Run) -> int:
    """How many times a private key was made, over all hosts and paths."""
    return sum(outcome.facts["changed"] for outcome in run.of(MAKE, items=True))


INVOCATIONS: dict[str, Any] = {
    "roles": [{"hosts": "all", "gather_facts": False, "roles": [ROLE]}],
    # This one gathers facts, from hosts that are there.
    "include_role": [
        {
            "hosts": "all",
            "gather_facts": True,
            "vars": {"ansible_connection": "local"},
            "tasks": [{"name": "Include", "ansible.builtin.include_role": {"name": ROLE}}],
        }
    ],
    "import_role": [
        {"hosts": "all", "gather_facts": False, "tasks": [{"name": "Import", "ansible.builtin.import_role": {"name": ROLE}}]}
    ],
    "playbook": "kaleyra.whatsapp.flows_encryption",
}


# Facts are gathered, and the role is included.
EXTRA_HEADINGS = {"include_role": 2}

# That nothing changes later is the same for all manners: it is tried with the most usual two.
LATER_RUNS: dict[str, list[list[str]]] = {"roles": [["--check"], []], "playbook": [[]]}


@pytest.mark.parametrize("manner", [pytest.param(each, marks=() if each == "roles" else pytest.mark.slow) for each in INVOCATIONS])
def test_check_real_check_real_however_the_role_is_used(playbooks: Playbooks, simulator: Simulator, manner: str) -> None:
    """Numbers as hosts, with and without plus, and as a list on a host, in an INI inventory as people write it."""
    plus, digits, one, two = (new_number() for dummy in range(4))
    private = playbooks.folder / "keys/flows/private.pem"
    cache = playbooks.folder / "records"
    variables = {
        **account(simulator),
        "flows_encryption_private_key_path": str(private),
        "flows_encryption_cache_path": str(cache),
    }
    inventory = (
        f"{plus}\n{digits.removeprefix('+')}\n"
        f"""shops flows_encryption_phone_numbers='["{one}", "{two[:3]} {two[3:]}"]'\n"""
        "[all:vars]\n" + "".join(f"{name}={value}\n" for name, value in variables.items())
    )
    hosts = {plus, digits.removeprefix("+"), "shops"}

    run = playbooks.run(INVOCATIONS[manner], inventory, "--check", "--diff")
    assert run.rc == 0, run.output
    assert {host for host, counts in run.recap.items() if counts["changed"]} == hosts
    said = " ".join(result["msg"] for result in run.by_host(REGISTER).values())
    for number in (plus, digits.removeprefix("+"), one, f"{two[:3]} {two[3:]}"):
        assert number in said
    foreseen = run.changed()
    assert headings(run) <= 12 + EXTRA_HEADINGS.get(manner, 0)
    assert simulator.count() == 0
    assert not (playbooks.folder / "keys").exists()
    assert not cache.exists()

    run = playbooks.run(INVOCATIONS[manner], inventory, "--diff")
    assert run.rc == 0, run.output
    assert len(run.of(MAKE)) == keys_made(run) == 1
    assert run.changed() == foreseen
    assert headings(run) <= 12 + EXTRA_HEADINGS.get(manner, 0)
    assert reasons(run) == dict.fromkeys((plus, digits, one, two), "absent")
    assert len(run.of(REGISTER)) == 3  # one task for a host, however many numbers it has
    assert simulator.count() == 4
    # What is on disk, as the file system and openssl see it.
    assert private.read_text().startswith("-----BEGIN PRIVATE KEY-----\n")
    assert "Private-Key: (2048 bit" in openssl("pkey", "-in", private, "-noout", "-text")
    assert (mode(private), mode(private.parent)) == (0o600, 0o700)
    public = private.with_name("private.pub.pem")
    assert public.read_text() == public_of(private)
    fingerprint = fingerprint_of(public.read_text())
    assert simulator.registered() == {SID: dict.fromkeys((plus, digits, one, two), fingerprint)}
    content = private.read_bytes()

    for arguments in LATER_RUNS.get(manner, ()):
        run = playbooks.run(INVOCATIONS[manner], inventory, "--diff", *arguments)
        assert run.rc == 0, run.output
        assert run.changed() == 0, run.output
        assert headings(run) <= 12 + EXTRA_HEADINGS.get(manner, 0)
        assert reasons(run) == dict.fromkeys((plus, digits, one, two), "up_to_date")
        assert simulator.count() == 4
        assert private.read_bytes() == content


@pytest.mark.slow
def test_one_key_with_limit_then_serial(playbooks: Playbooks, simulator: Simulator) -> None:
    numbers = [new_number() for dummy in range(3)]
    private = playbooks.folder / "private.pem"
    inventory = fleet(simulator, {number: {} for number in numbers}, private_key_path=str(private))

    run = playbooks.run(play(), inventory, "--limit", numbers[2])
    assert run.rc == 0, run.output
    assert len(run.of(MAKE)) == keys_made(run) == 1
    fingerprint = fingerprint_of(public_of(private))
    assert simulator.registered() == {SID: {numbers[2]: fingerprint}}

    # From nothing again, host after host: the first batch makes the key, the others find it.
    private.unlink()
    run = playbooks.run(play(serial=1), inventory)
    assert run.rc == 0, run.output
    assert keys_made(run) == 1
    new = fingerprint_of(public_of(private))
    assert new != fingerprint
    assert simulator.registered() == {SID: dict.fromkeys(numbers, new)}


@pytest.mark.slow
def test_one_key_where_all_hosts_are_at_work_at_once(playbooks: Playbooks, simulator: Simulator) -> None:
    numbers = [new_number() for dummy in range(8)]
    private = playbooks.folder / "keys/private.pem"
    inventory = fleet(simulator, {number: {} for number in numbers}, private_key_path=str(private))
    run = playbooks.run(play(strategy="ansible.builtin.free"), inventory, "--forks", "8")
    assert run.rc == 0, run.output
    assert keys_made(run) == run.modules.count("openssl_privatekey") == 1
    fingerprint = fingerprint_of(public_of(private))
    assert fingerprint_of(private.with_name("private.pub.pem").read_text()) == fingerprint
    assert simulator.registered() == {SID: dict.fromkeys(numbers, fingerprint)}
    assert simulator.count() == 8


@pytest.mark.slow
def test_groups_with_key_pairs_of_their_own_cost_one_generation_each(playbooks: Playbooks, simulator: Simulator) -> None:
    groups = {name: [new_number() for dummy in range(3)] for name in ("india", "italy")}
    privates = {name: playbooks.folder / f"{name}.pem" for name in groups}
    inventory: dict[str, Any] = fleet(simulator, {})
    inventory["all"]["children"] = {
        name: {
            "hosts": {number: {} for number in numbers},
            "vars": {"flows_encryption_private_key_path": str(privates[name])},
        }
        for name, numbers in groups.items()
    }
    run = playbooks.run(play(), inventory, "--forks", "6")
    assert run.rc == 0, run.output
    # Not skipped, whether it changed anything or not.
    assert Counter(outcome.facts["changed"] for outcome in run.of(MAKE, items=True)) == {True: 2}
    assert run.modules.count("openssl_privatekey") == 2
    fingerprints = {name: fingerprint_of(public_of(private)) for name, private in privates.items()}
    assert fingerprints["india"] != fingerprints["italy"]
    assert simulator.registered() == {SID: {number: fingerprints[name] for name, numbers in groups.items() for number in numbers}}


@pytest.mark.slow
def test_two_plays_and_two_key_pairs_in_one_run(playbooks: Playbooks, simulator: Simulator) -> None:
    """Hosts of a later play share the pair of an earlier one, and one host can use the role twice."""
    first, second, other = (new_number() for dummy in range(3))
    private, another = playbooks.folder / "private.pem", playbooks.folder / "another.pem"
    inventory = fleet(simulator, {first: {}, second: {}}, private_key_path=str(private))
    included = {
        "name": "Again, with another pair and number",
        "ansible.builtin.include_role": {"name": ROLE},
        "vars": {"flows_encryption_private_key_path": str(another), "flows_encryption_phone_numbers": [other]},
    }
    again = {"name": "As before", "ansible.builtin.include_role": {"name": ROLE}}
    plays = [
        {"hosts": first, "gather_facts": False, "roles": [ROLE]},
        {"hosts": second, "gather_facts": False, "roles": [ROLE], "tasks": [included, again]},
    ]
    run = playbooks.run(plays, inventory)
    assert run.rc == 0, run.output
    assert keys_made(run) == 2
    assert run.modules.count("openssl_privatekey") == 2  # what is there is not made again
    fingerprint = fingerprint_of(public_of(private))
    assert simulator.registered() == {SID: {first: fingerprint, second: fingerprint, other: fingerprint_of(public_of(another))}}
    assert simulator.count() == 3


@pytest.mark.slow
def test_passphrase_format_mode_and_an_existing_folder(playbooks: Playbooks, simulator: Simulator) -> None:
    passphrase, folder = new_number(), new_number()
    keys = {name: playbooks.folder / name / "private.pem" for name in ("passphrase", "folder")}
    keys["folder"].parent.mkdir(mode=0o755)
    public = playbooks.folder / "elsewhere.pem"
    inventory = fleet(
        simulator,
        {
            passphrase: {
                "flows_encryption_private_key_path": str(keys["passphrase"]),
                "flows_encryption_private_key_passphrase": "Open Sesame!",
            },
            folder: {
                "flows_encryption_private_key_path": str(keys["folder"]),
                "flows_encryption_private_key_format": "pkcs1",
                "flows_encryption_private_key_mode": "0640",
                "flows_encryption_public_key_path": str(public),
                # As credential forms give what was left blank.
                "flows_encryption_private_key_passphrase": "",
                "flows_encryption_private_key_owner": "",
                "flows_encryption_cache_path": "",
                "flows_encryption_force": "",
            },
        },
    )
    run = playbooks.run(play(), inventory)
    assert run.rc == 0, run.output
    assert keys["passphrase"].read_text().startswith("-----BEGIN ENCRYPTED PRIVATE KEY-----\n")
    assert keys["folder"].read_text().startswith("-----BEGIN RSA PRIVATE KEY-----\n")
    assert (mode(keys["folder"]), mode(keys["folder"].parent)) == (0o640, 0o755)
    assert public.read_text() == public_of(keys["folder"])
    assert simulator.registered() == {
        SID: {
            passphrase: fingerprint_of(public_of(keys["passphrase"], "Open Sesame!")),
            folder: fingerprint_of(public.read_text()),
        }
    }
    run = playbooks.run(play(), inventory)
    assert (run.rc, run.changed()) == (0, 0), run.output


def test_an_existing_private_key_is_kept_byte_for_byte(playbooks: Playbooks, simulator: Simulator, key: KeyPair) -> None:
    existing = {
        "other format": openssl("pkey", "-traditional", stdin=key.private),
        "4096 bits": KeyPair.make("RSA", "rsa_keygen_bits:4096").private,
        "elliptic curve": KeyPair.make("EC", "ec_paramgen_curve:P-256").private,
        "wrong passphrase": openssl("pkey", "-aes256", "-passout", "pass:The Right One", stdin=key.private),
        "no key": "this is not a key\n",
    }
    passphrases = {"wrong passphrase": "The Wrong One"}
    numbers = {name: new_number() for name in existing}
    paths = {}
    for name, text in existing.items():
        paths[name] = playbooks.inputs / f"{name}.pem"
        paths[name].write_text(text)
    hosts = {
        number: {
            "flows_encryption_private_key_path": str(paths[name]),
            "flows_encryption_private_key_passphrase": passphrases.get(name, ""),
        }
        for name, number in numbers.items()
    }
    good = ("other format",)
    run = playbooks.run(play(), fleet(simulator, hosts), "--forks", "5")
    assert {name: path.read_text() for name, path in paths.items()} == existing
    assert run.failed() == {number for name, number in numbers.items() if name not in good}, run.output
    assert simulator.registered() == {SID: {numbers[name]: key.fingerprint for name in good}}
    assert simulator.count() == 1
    messages = {
        name: " ".join(str(o.result.get("msg")) for o in run.outcomes if o.status == "failed" and o.host == number)
        for name, number in numbers.items()
    }
    assert "RSA with 4096 bits" in messages["4096 bits"]
    assert "of the type EC" in messages["elliptic curve"]
    assert "passphrase" in messages["wrong passphrase"].lower()
    assert "key" in messages["no key"].lower()


@pytest.mark.slow
def test_a_key_made_elsewhere_and_one_number_that_is_refused(playbooks: Playbooks, simulator: Simulator, key: KeyPair) -> None:
    """No pair is made then; what is refused fails alone, and is alone in being sent again."""
    good, bad, in_list, bad_in_list, last = (new_number() for dummy in range(5))
    hosts: dict[str, dict[str, Any]] = {
        bad: {},
        good: {},
        "shops": {"flows_encryption_phone_numbers": [bad_in_list, in_list, last]},
    }
    # Account by the controller's environment.
    inventory = {"all": {"hosts": hosts, "vars": {"flows_encryption_public_key": key.public.replace("\n", "\r\n")}}}
    env = {"KALEYRA_API_URL": simulator.url, "KALEYRA_SID": SID, "KALEYRA_API_KEY": API_KEY, "KALEYRA_POD": ""}
    simulator.faults({bad: [WA_400], bad_in_list: [WA_400]})
    run = playbooks.run(play(), inventory, env=env)
    assert run.failed() == {bad, "shops"}
    assert {number["phone_number"] for number in of_numbers(run) if "failed" in number} == {bad, bad_in_list}
    messages = {outcome.host: outcome.result["msg"] for outcome in run.of(REGISTER) if outcome.status == "failed"}
    assert messages[bad].startswith(f"The key of {bad} was not registered: ")
    assert messages["shops"].startswith(f"1 of 3 numbers failed. The key of {bad_in_list} was not registered: ")
    assert not [name for name in run.modules if name.startswith("openssl")]
    assert simulator.registered() == {SID: dict.fromkeys((good, in_list, last), key.fingerprint)}
    assert simulator.count() == 5

    run = playbooks.run(play(), inventory, env=env)
    assert run.rc == 0, run.output
    assert {number["phone_number"] for number in of_numbers(run) if number["changed"]} == {bad, bad_in_list}
    assert simulator.registered() == {SID: dict.fromkeys((good, bad, in_list, bad_in_list, last), key.fingerprint)}
    assert simulator.count() == 7


def test_a_pair_that_fails_stops_its_own_hosts_alone(playbooks: Playbooks, simulator: Simulator, key: KeyPair) -> None:
    """The first host of the play has the worst one; any_errors_fatal is tried where all is well."""
    cases: dict[str, dict[str, Any]] = {
        "unreachable": {"key_host": "nobody.invalid"},
        "owner": {"private_key_owner": "no-such-user"},
        "damaged": {},
        "encrypted": {},
        "directory": {},
        "mode": {"private_key_mode": "0644"},
        "contradiction": {"private_key_format": "pkcs1"},
        "same path": {"private_key_format": "pkcs8"},
        "path as key": {"public_key": "/etc/flows/public.pem"},
        "option": {"timeout": "soon"},
        "good": {},
    }
    numbers = {name: new_number() for name in cases}
    paths = {name: playbooks.folder / f"keys of {name}/private key" for name in cases}
    paths["same path"] = paths["contradiction"]
    for name in ("damaged", "encrypted"):
        paths[name].parent.mkdir()
    paths["damaged"].write_text("junk")
    paths["encrypted"].write_text(openssl("pkey", "-aes256", "-passout", "pass:secret", stdin=key.private))
    paths["directory"].mkdir(parents=True)
    hosts = {
        numbers[name]: {f"flows_encryption_{option}": value for option, value in {"private_key_path": str(paths[name]), **options}.items()}
        for name, options in cases.items()
    }
    run = playbooks.run(play(), fleet(simulator, hosts))
    assert run.failed() == {number for name, number in numbers.items() if name != "good"}, run.output
    said = {
        "unreachable": "The key host nobody.invalid cannot be reached: ",
        "owner": f"{paths['owner']} cannot be created on localhost: ",
        "damaged": f"The private key {paths['damaged']} on localhost cannot be read: ",
        "encrypted": "Check flows_encryption_private_key_passphrase or KALEYRA_FLOWS_PRIVATE_KEY_PASSPHRASE.",
        "directory": f"flows_encryption_private_key_path {paths['directory']} on localhost: ",
        "mode": "flows_encryption_private_key_mode is 0644, which",
        "contradiction": "with different values of flows_encryption_private_key_format",
        "same path": "with different values of flows_encryption_private_key_format",
        "path as key": "flows_encryption_public_key must be the PEM of a public key, not a path.",
        "option": "flows_encryption_timeout: ",
    }
    messages = {host: result["msg"] for host, result in run.by_host(REGISTER).items() if result["failed"]}
    for name, part in said.items():
        assert part in messages[numbers[name]]
        assert len(messages[numbers[name]]) < 700
    assert not paths["mode"].exists() and not paths["contradiction"].exists() and not paths["option"].exists()
    assert mode(paths["owner"].parent) == 0o700
    assert simulator.registered() == {SID: {numbers["good"]: fingerprint_of(public_of(paths["good"]))}}


@pytest.mark.slow
def test_what_is_missing_is_named(playbooks: Playbooks, simulator: Simulator, key: KeyPair) -> None:
    no_path, empty_path, no_account, bad_pod = (new_number() for dummy in range(4))
    public = {"flows_encryption_public_key": key.public}
    inventory = fleet(
        simulator,
        {
            no_path: {},
            empty_path: {"flows_encryption_private_key_path": "", "flows_encryption_public_key": ""},
            "shops": public,
            no_account: {**public, "flows_encryption_sid": "", "flows_encryption_api_key": ""},
            bad_pod: {**public, "flows_encryption_pod": "asia", "flows_encryption_api_url": ""},
        },
    )
    for arguments in (["--check"], []):
        run = playbooks.run(play(), inventory, *arguments)
        assert run.failed() == {no_path, empty_path, "shops", no_account, bad_pod}
        messages = {o.host: str(o.result["msg"]) for o in run.outcomes if o.status == "failed" and "results" not in o.result}
        for host in (no_path, empty_path):
            assert "flows_encryption_private_key_path" in messages[host]
            assert "flows_encryption_public_key" in messages[host]
        assert "'shops' is not a number in E.164. Set flows_encryption_phone_numbers" in messages["shops"]
        assert messages[no_account] == "Set flows_encryption_sid or KALEYRA_SID. Set flows_encryption_api_key or KALEYRA_API_KEY."
        assert messages[bad_pod] == "flows_encryption_pod or KALEYRA_POD is 'asia', but must be one of in, sg, eu, na."
        assert len(run.stdout) < 10_000
    assert simulator.count() == 0


def published(run: Run) -> dict[str, Any]:
    """What is handed on to the next node of a workflow, by one task for the play."""
    stats = run.one("Publish the outcome of each number")["ansible_stats"]
    assert (stats["per_host"], stats["aggregate"]) == (False, True)
    return dict(stats["data"]["flows_encryption_numbers"])


@pytest.mark.slow
def test_the_summary_counts_all_numbers_of_the_play_in_one_line(playbooks: Playbooks, simulator: Simulator, key: KeyPair) -> None:
    good, bad, last = (new_number() for dummy in range(3))
    shops = {"flows_encryption_phone_numbers": [new_number(), "junk", new_number()]}
    # Fails before it comes to its number.
    broken = {"flows_encryption_public_key": ""}
    inventory = fleet(simulator, {bad: {}, good: {}, "shops": shops, "broken": broken, last: {}}, public_key=key.public, summary="yes")
    simulator.faults({bad: [WA_400]})

    def said(run: Run) -> list[str]:
        return [outcome.result["msg"] for outcome in run.of(SUM_UP) if outcome.status == "ok"]

    run = playbooks.run(play(), inventory, "--check")
    assert said(run) == [
        f"6 numbers: 5 would change, 0 unchanged, 1 failed. Key {key.fingerprint}: 5. No number was tried on broken."
    ]
    run = playbooks.run(play(), inventory)
    assert said(run) == [f"6 numbers: 4 changed, 0 unchanged, 2 failed. Key {key.fingerprint}: 4. No number was tried on broken."]
    assert run.failed() == {bad, "shops", "broken"}
    assert published(run) == {
        good: {"changed": True, "status": "absent", "fingerprint": key.fingerprint},
        last: {"changed": True, "status": "absent", "fingerprint": key.fingerprint},
        **{
            number: {"changed": True, "status": "absent", "fingerprint": key.fingerprint}
            for number in shops["flows_encryption_phone_numbers"]
            if number != "junk"
        },
        **{number: {"changed": False, "status": "failed", "fingerprint": None} for number in (bad, "junk")},
    }
    # After each batch; the first one without a good host ends the play.
    run = playbooks.run(play(serial=2), inventory)
    assert said(run) == [
        f"2 numbers: 1 changed, 1 unchanged, 0 failed. Key {key.fingerprint}: 2.",
        f"5 numbers: 1 changed, 3 unchanged, 1 failed. Key {key.fingerprint}: 4. No number was tried on broken.",
    ]
    good_ones = "all:!shops:!broken"
    run = playbooks.run(play(strategy="ansible.builtin.free"), inventory, "--limit", good_ones)
    # By the last host, and by those that were done at the same moment.
    assert {*said(run)} == {f"3 numbers: {run.changed()} changed, {3 - run.changed()} unchanged, 0 failed. Key {key.fingerprint}: 3."}

    # There is nothing to sum up before there is a key.
    first_run = fleet(simulator, {new_number(): {}}, private_key_path=str(playbooks.folder / "keys/private.pem"), summary="yes")
    run = playbooks.run(play(), first_run, "--check")
    assert run.rc == 0 and not said(run), run.output
    assert not run.of("Publish the outcome of each number")

    # Nobody says it who was not asked to.
    inventory["all"]["vars"]["flows_encryption_summary"] = ""
    run = playbooks.run(play(), inventory, "--limit", good_ones)
    assert run.rc == 0, run.output
    assert not run.of(SUM_UP)


@pytest.mark.slow
def test_relative_paths_start_at_the_working_directory(playbooks: Playbooks, simulator: Simulator) -> None:
    """With the collection's own playbooks, whose folder an upgrade replaces: key pair, report and metrics."""
    installed = [*(CHECKOUT / "playbooks").rglob("*"), *(CHECKOUT / "roles").rglob("*")]
    number = new_number()
    variables = {"private_key_path": "keys/private.pem", "report_path": "reports/flows", "check_path": "flows.prom"}
    inventory = fleet(simulator, {number: {}}, **variables)
    for playbook in ("flows_encryption", "flows_report", "flows_check"):
        run = playbooks.run(f"kaleyra.whatsapp.{playbook}", inventory)
        assert run.rc == 0, run.output
    fingerprint = fingerprint_of(public_of(playbooks.inputs / "keys/private.pem"))
    assert simulator.registered() == {SID: {number: fingerprint}}
    (row,) = json.loads((playbooks.inputs / "reports/flows.json").read_text())["numbers"]
    assert row["as_expected"] and row["fingerprint"] == fingerprint
    assert f'fingerprint="{fingerprint}"' in (playbooks.inputs / "flows.prom").read_text()
    assert [*(CHECKOUT / "playbooks").rglob("*"), *(CHECKOUT / "roles").rglob("*")] == installed


def test_a_key_folder_that_cannot_be_written_to_is_told_in_check_mode(playbooks: Playbooks, simulator: Simulator) -> None:
    numbers = {name: new_number() for name in ("file", "good")}
    blocked = playbooks.folder / "file"
    blocked.write_text("not a folder")
    paths = {"file": blocked / "keys/private.pem", "good": playbooks.folder / "keys/private.pem"}
    inventory = fleet(simulator, {numbers[name]: {"flows_encryption_private_key_path": str(path)} for name, path in paths.items()})
    said, changed = [], []
    for arguments in (["--check"], []):
        run = playbooks.run(play(), inventory, *arguments)
        assert run.failed() == {numbers["file"]}
        said.append(run.by_host(REGISTER)[numbers["file"]]["msg"])
        changed.append(run.changed())
    assert said == [f"{paths['file']} cannot be created on localhost: {blocked} is not a folder."] * 2
    assert changed == [2, 2]


ODD = "it's a \"Schlüssel\" folder"


@pytest.mark.slow
def test_values_of_odd_types_and_odd_paths_in_all_entry_points(playbooks: Playbooks, simulator: Simulator) -> None:
    """Integers, blanks, quotes, other alphabets and no extension, in check mode and for real. Rotation has a test of its own."""
    number = new_number()
    private = playbooks.folder / ODD / "ключ"
    inventory = fleet(
        simulator,
        {"shop": {"flows_encryption_phone_numbers": [int(number)]}},
        private_key_path=str(private),
        private_key_passphrase=12345,
        cache_path=str(playbooks.folder / ODD / "records"),
        report_path=str(playbooks.folder / ODD / "reports/flows"),
        check_path=str(playbooks.folder / ODD / "flows.prom"),
    )

    def included(entry: str) -> dict[str, Any]:
        return {"name": entry, "ansible.builtin.include_role": {"name": ROLE, "tasks_from": entry}}

    run = playbooks.run(play(roles=[], tasks=[included("key_pair"), included("main"), included("report")]), inventory, "--check")
    assert run.rc == 0 and not private.exists(), run.output
    plays = play(roles=[], tasks=[included(entry) for entry in ("key_pair", "main", "report", "check")])
    run = playbooks.run(plays, inventory)
    assert run.rc == 0, run.output
    fingerprint = fingerprint_of(public_of(private, "12345"))
    assert simulator.registered() == {SID: {number: fingerprint}}
    (row,) = json.loads((playbooks.folder / ODD / "reports/flows.json").read_text())["numbers"]
    assert row["as_expected"] and row["phone_number"] == number
    for arguments in (["--check"], []):
        run = playbooks.run(plays, inventory, *arguments)
        assert (run.rc, run.changed()) == (0, 0), run.output


STRATEGIES: dict[str, Play] = {
    "linear": {},
    "free": {"strategy": "ansible.builtin.free"},
    "host_pinned": {"strategy": "ansible.builtin.host_pinned"},
    "serial": {"serial": 2},
    "max_fail_percentage": {"max_fail_percentage": 60},
    "any_errors_fatal": {"any_errors_fatal": True},  # the last: what follows is not run
}


@pytest.mark.slow
def test_a_failing_pair_and_a_good_one_with_each_strategy(playbooks: Playbooks, simulator: Simulator) -> None:
    """The first host's key is damaged, the others share a good pair: checked and made for each strategy, in one run each."""
    inventory: dict[str, Any] = fleet(simulator, {})
    groups = {name: [new_number() for dummy in range(3)] for name in STRATEGIES}
    inventory["all"]["children"] = {}
    for name, (bad, *good) in groups.items():
        damaged = playbooks.inputs / f"{name}.pem"
        damaged.write_text("junk")
        hosts = {bad: {"flows_encryption_private_key_path": str(damaged)}, **{number: {} for number in good}}
        of_group = {"flows_encryption_private_key_path": str(playbooks.folder / name / "private.pem")}
        inventory["all"]["children"][name] = {"hosts": hosts, "vars": of_group}
    plays = [{**play(**keywords)[0], "hosts": name} for name, keywords in STRATEGIES.items()]
    runs = [playbooks.run(plays, inventory, *arguments) for arguments in (["--check"], [])]
    for run in runs:
        assert run.rc != 0
        messages = run.by_host(REGISTER)
        for bad, *good in groups.values():
            assert "cannot be read" in messages[bad]["msg"] and messages[bad]["failed"]
            assert all(messages[number]["changed"] and not messages[number]["failed"] for number in good)
        # For each strategy two numbers and one key pair.
        assert {name: sum(run.recap[number]["changed"] for number in groups[name]) for name in groups} == dict.fromkeys(groups, 3)
    made = {name: fingerprint_of(public_of(playbooks.folder / name / "private.pem")) for name in groups}
    assert simulator.registered() == {SID: {number: made[name] for name, (dummy, *good) in groups.items() for number in good}}
