# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How the module's options are read: what is forgiven, what is refused, and where they come from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.keys import KeyPair, openssl, secret_lines
from support.playbook_runs import (
    API_KEY,
    AS_A_MODULE,
    EXECUTION_MODES,
    SID,
    WORKER,
    Playbooks,
    Run,
    assert_execution_mode,
    assert_nowhere,
    new_number,
)
from support.processes import register_all
from support.simulator.client import Simulator

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("execution_mode", EXECUTION_MODES)]

OPTIONS = (
    "pod api_url sid api_key phone_number business_public_key business_public_key_path known_fingerprint cache_path "
    "cache_valid_time force timeout retries validate_certs ca_path phone_numbers concurrency max_requests_per_second"
).split()


def assert_messages(run: Run, expected: dict[str, tuple[str, ...]]) -> None:
    """Each of these tasks failed before anything was sent, with all of its words in the message."""
    for name, words in expected.items():
        result = run.one(name)
        assert result["failed"], (name, result)
        assert result.get("attempts", 0) == 0, (name, result)
        for word in words:
            assert word in result["msg"], (name, result["msg"])


def test_empty_strings_and_the_environment(playbooks: Playbooks, simulator: Simulator, key: KeyPair, execution_mode: str) -> None:
    number, others = new_number(), [new_number() for dummy in range(2)]
    nothing = dict.fromkeys(OPTIONS, "")
    needed: dict[str, Any] = {**nothing, "phone_number": number, "business_public_key": key.public}
    run = playbooks.run_tasks(
        [
            playbooks.task("all from the environment", execution_mode, **needed),
            playbooks.task("no number", execution_mode, **{**needed, "phone_number": ""}),
            playbooks.task("no key", execution_mode, **{**needed, "business_public_key": ""}),
        ],
        env={"KALEYRA_API_URL": simulator.url, "KALEYRA_SID": SID, "KALEYRA_API_KEY": API_KEY, "KALEYRA_POD": ""},
    )
    assert_execution_mode(run, execution_mode)
    assert run.one("all from the environment")["reason"] == "absent"
    assert simulator.registered() == {SID: {number: key.fingerprint}}
    # The default of cache_path counted, not the empty string.
    assert [path.name for path in playbooks.default_cache.glob("*.json")] == [
        f"{simulator.url.removeprefix('http://').replace(':', '%3A')},{SID},{number}.json"
    ]
    assert_messages(
        run,
        {
            "no number": ("one of the following is required: phone_number, phone_numbers",),
            "no key": ("one of the following", "business_public_key, business_public_key_path"),
        },
    )

    # Variables of the environment that are set, but empty, are not given either; and what the task says counts first.
    with_key: dict[str, Any] = {"business_public_key": key.public}
    run = playbooks.run_tasks(
        [
            playbooks.task("task before environment", execution_mode, phone_number=others[0], **with_key),
            playbooks.task("no sid", execution_mode, phone_number=others[1], sid=None, **with_key),
            playbooks.task("empty key", execution_mode, phone_number=others[1], api_key="", **with_key),
            playbooks.task(
                "pod from the environment", execution_mode, {"check_mode": True}, phone_number=others[1], api_url=None, **with_key
            ),
        ],
        env={"KALEYRA_POD": "in", "KALEYRA_API_URL": "", "KALEYRA_SID": "", "KALEYRA_API_KEY": ""},
    )
    assert run.one("task before environment")["http_status"] == 200
    assert_messages(
        run,
        {
            "no sid": ("Set sid or KALEYRA_SID.",),
            "empty key": ("Set api_key or KALEYRA_API_KEY.",),
        },
    )
    assert run.one("pod from the environment")["reason"] == "absent"
    assert simulator.count() == 2


def test_numbers_as_integers_of_yaml_and_ini(playbooks: Playbooks, simulator: Simulator, key: KeyPair, execution_mode: str) -> None:
    names = {name: new_number() for name in ("quoted", "yaml", "ini", "digits", "spaced")}
    environment = "" if execution_mode == WORKER else "environment: {ASKS_FOR_A_PROCESS: 'yes'}"

    def task(name: str, number: str) -> str:
        return f"""
    - name: {name}
      kaleyra.whatsapp.kaleyra_flows_encryption:
        api_url: "{{{{ api_url }}}}"
        sid: "{{{{ sid }}}}"
        api_key: "{{{{ api_key }}}}"
        phone_number: {number}
        business_public_key: "{{{{ public_key }}}}"
      {environment}
"""

    spaced = names["spaced"]
    spellings = {
        "quoted": f'"{names["quoted"]}"',
        "yaml": names["yaml"],
        "ini": '"{{ ini_number }}"',
        "digits": names["digits"].removeprefix("+"),
        "spaced": f"{spaced[:3]} ({spaced[3:6]}) {spaced[6:9]}-{spaced[9:]}",
    }
    playbook = playbooks.inputs / "numbers.yml"
    playbook.write_text(
        "- hosts: all\n  gather_facts: false\n  tasks:" + "".join(task(name, text) for name, text in spellings.items())
    )
    run = playbooks.run(
        str(playbook), f"here ansible_connection=local ini_number={names['ini']}\n", variables={"public_key": key.public}
    )
    assert_execution_mode(run, execution_mode)
    assert {name: run.one(name)["phone_number"] for name in names} == names
    # What YAML and INI leave of a number is told, as one without its country code would be another.
    for name in ("yaml", "digits"):
        (warning,) = run.one(name)["warnings"]
        assert warning.startswith(f"A phone number has no plus sign: {names[name][1:]} was read as {names[name]} (India, +91). ")
    assert "warnings" not in run.one("quoted") and "warnings" not in run.one("spaced")
    assert simulator.registered() == {SID: dict.fromkeys(names.values(), key.fingerprint)}


def test_unusual_types_and_paths(playbooks: Playbooks, simulator: Simulator, key: KeyPair, execution_mode: str) -> None:
    folder = playbooks.folder / "Schlüssel 'a' \"b\" $(c) {d}"
    folder.mkdir()
    file = folder / "public key"
    file.write_text(key.public)
    number, integer, *listed = [new_number() for dummy in range(4)]

    def task(name: str, **options: Any) -> dict[str, Any]:
        given = {"business_public_key_path": str(file), "cache_path": str(folder / "records of ü"), **options}
        return playbooks.task(name, execution_mode, **given)

    tasks = [
        task("path", phone_number=number),
        task("integer", phone_number=int(integer), timeout="20", retries="1", force="no", cache_valid_time="60"),
        task("integers", phone_numbers=[int(listed[0]), float(listed[1]), listed[0]]),
        # What is nothing of the kind has a message, and no stack trace.
        task("dictionary", phone_number={"number": number}),
        task("boolean", phone_number=True),
        task("list", phone_number=[number, integer]),
        task("dictionaries", phone_numbers=[{"number": number}]),
        task("key as dictionary", phone_number=number, business_public_key={"a": 1}, business_public_key_path=None),
        task("sid as integer", phone_number=number, sid=12345),
    ]
    for mode in (["--check"], []):
        run = playbooks.run_tasks(tasks, *mode)
        assert_execution_mode(run, execution_mode)
        done = {name: run.one(name) for name in ("path", "integer", "integers")}
        assert not any(result["failed"] for result in done.values()), done
        assert [result["changed"] for result in done.values()] == [True] * 3
        for name in ("dictionary", "boolean", "list", "dictionaries"):
            assert "is not a number in E.164" in run.one(name)["msg"], name
        assert "found no PEM" in run.one("key as dictionary")["msg"]
    assert "RBC001" in run.one("sid as integer")["msg"]  # an account that there is not
    assert simulator.registered() == {SID: dict.fromkeys([number, integer, *listed], key.fingerprint)}
    assert len(list((folder / "records of ü").glob("*.json"))) == 4


def test_relative_path_is_the_same_in_both_modes(
    playbooks: Playbooks, simulator: Simulator, key: KeyPair, other_key: KeyPair, execution_mode: str
) -> None:
    number = new_number()
    other_mode = WORKER if execution_mode == AS_A_MODULE else AS_A_MODULE
    # Relative to the working directory, which is not the playbook's folder here.
    for name, pair in (("first.pem", key), ("second.pem", other_key)):
        (playbooks.inputs / name).write_text(pair.public)

    def task(name: str, mode: str, path: str) -> dict[str, Any]:
        return playbooks.task(name, mode, phone_number=number, business_public_key_path=path, cache_path="records")

    tasks = [task("K1", execution_mode, "first.pem"), task("K2", other_mode, "second.pem"), task("K1 again", execution_mode, "first.pem")]
    tasks.append({"name": "info", "kaleyra.whatsapp.kaleyra_flows_encryption_info": {"cache_path": "records"}})
    playbook = playbooks.inputs / "elsewhere/play.yml"
    playbook.parent.mkdir()
    playbook.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": tasks}]))
    run = playbooks.run(str(playbook), "here ansible_connection=local\n")
    assert [run.one(name)["reason"] for name in ("K1", "K2", "K1 again")] == ["absent", "different", "different"]
    assert simulator.registered() == {SID: {number: key.fingerprint}}
    assert [path.parent for path in playbooks.folder.rglob("*.json")] == [playbooks.inputs / "records"]
    assert [each["fingerprint"] for each in run.one("info")["numbers"]] == [key.fingerprint]


def test_refused_options_send_nothing(
    playbooks: Playbooks, simulator: Simulator, key: KeyPair, execution_mode: str, tmp_path: Path
) -> None:
    """What each option takes is tested with the core; here, that each way of refusing reaches the user."""
    file = playbooks.inputs / "public.pem"
    file.write_text(key.public)
    cases: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
        "two keys": ({"business_public_key_path": str(file)}, ("mutually exclusive", "business_public_key|business_public_key_path")),
        "no key": ({"business_public_key": None}, ("one of the following", "business_public_key, business_public_key_path")),
        "no host": ({"api_url": None}, ("Set exactly one of pod and api_url, or KALEYRA_POD or KALEYRA_API_URL in the environment.",)),
        "unknown pod": ({"api_url": None, "pod": "ap"}, ("pod", "in, sg, eu, na", "ap")),
        "no credentials": ({"sid": None, "api_key": None}, ("Set sid or KALEYRA_SID. Set api_key or KALEYRA_API_KEY.",)),
        "unknown option": ({"phone": "1"}, ("phone", "Supported parameters include")),
        "letters": ({"phone_number": "+91 98765 4321O"}, ("phone_number", "E.164", "+919876543210")),
        "api_key": ({"api_key": "Secret-With a-Blank"}, ("api_key", "space")),
        "timeout": ({"timeout": 0}, ("timeout is 0", "from 1 to 86400")),
        "no integer": ({"retries": "many"}, ("retries", "int")),
        "no file": ({"business_public_key": None, "business_public_key_path": str(tmp_path / "missing.pem")}, ("missing.pem", "No such file")),
        "ca_path": ({"api_url": "https://127.0.0.1:9", "ca_path": str(tmp_path / "missing.pem"), "retries": 0}, ("ca_path", "missing.pem")),
        "weak key": ({"business_public_key": KeyPair.make("RSA", "rsa_keygen_bits:1024").public}, ("RSA with 1024 bits",)),
    }

    def task(name: str, **options: Any) -> dict[str, Any]:
        return playbooks.task(name, execution_mode, **{"phone_number": new_number(), "business_public_key": key.public, **options})

    tasks = [task(name, **options) for name, (options, dummy) in cases.items()]
    # The one that is sent: to a proxy where nobody listens, so that nothing leaves this machine, whatever network it has.
    tasks.append(task("pod", pod="eu", api_url=None, retries=0))
    run = playbooks.run_tasks(tasks, "-vvvv", env={"HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": ""})
    assert_execution_mode(run, execution_mode)
    assert_messages(run, {name: words for name, (dummy, words) in cases.items()})
    assert " api.eu.kaleyra.io gave no answer: proxy: Connection refused." in run.one("pod")["msg"]
    assert "Secret-With" not in run.output
    assert simulator.count() == 0
    assert len([path for path in playbooks.default_cache.glob("*") if path.suffix == ".json"]) == 1


def test_when_a_key_on_record_is_registered_again(
    playbooks: Playbooks, simulator: Simulator, key: KeyPair, other_key: KeyPair, execution_mode: str
) -> None:
    number, unknown = new_number(), new_number()
    untouched = playbooks.folder / "never-made"

    def task(name: str, keywords: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
        return playbooks.task(name, execution_mode, keywords, **{"phone_number": number, "business_public_key": key.public, **options})

    known: dict[str, Any] = {"phone_number": unknown, "cache_path": str(untouched)}
    mine, theirs = key.fingerprint, other_key.fingerprint
    tasks = [
        task("first"),
        task("fresh", cache_valid_time=3600),
        task("old", cache_valid_time=0),
        task("force in check mode", {"check_mode": True}, force="yes"),
        task("other key", business_public_key=other_key.public),
        task("known", **known, known_fingerprint=mine.upper().replace(":", ""), cache_valid_time=0),
        task("known, and forced", **known, known_fingerprint=mine, force=True),
    ]
    run = playbooks.run_tasks(tasks)
    assert_execution_mode(run, execution_mode)
    results = {task["name"]: run.one(task["name"]) for task in tasks}
    assert {name: (r["reason"], r["previous_fingerprint"], r["attempts"]) for name, r in results.items()} == {
        "first": ("absent", None, 1),
        "fresh": ("up_to_date", mine, 0),
        "old": ("expired", mine, 1),
        "force in check mode": ("forced", mine, 0),
        "other key": ("different", mine, 1),
        "known": ("up_to_date", mine, 0),
        "known, and forced": ("forced", mine, 1),
    }
    assert simulator.registered() == {SID: {number: theirs, unknown: mine}}
    assert not untouched.exists()


def test_records_that_cannot_be_read_or_written(playbooks: Playbooks, simulator: Simulator, key: KeyPair, execution_mode: str) -> None:
    number, refused = new_number(), new_number()
    cache, in_its_place = playbooks.folder / "records", playbooks.folder / "file"
    in_its_place.write_text("not a folder\n")
    register_all(playbooks.api_url, cache, [number], key.public)
    [record] = cache.glob("*.json")
    record.write_bytes(record.read_bytes()[:40])

    def task(name: str, **options: Any) -> dict[str, Any]:
        return playbooks.task(name, execution_mode, **{"phone_number": number, "business_public_key": key.public, **options})

    tasks = [
        task("damaged", cache_path=str(cache)),
        task("no folder", phone_number=refused, cache_path=str(in_its_place)),
        task("no folder for a list", phone_number=None, phone_numbers=[number, refused], cache_path=str(in_its_place / "below")),
    ]
    predicted = playbooks.run_tasks(tasks, "--check")
    assert len(record.read_bytes()) == 40 and simulator.count() == 1
    done = playbooks.run_tasks([*tasks, task("afterwards", cache_path=str(cache))])
    assert_execution_mode(done, execution_mode)
    for name in ("no folder", "no folder for a list"):
        assert done.one(name)["failed"] and not predicted.one(name)["changed"]
        assert predicted.one(name)["msg"] == done.one(name)["msg"] and f"cache_path {in_its_place}" in done.one(name)["msg"]
    for run in (predicted, done):
        result = run.one("damaged")
        assert (result["changed"], result["reason"], result["previous_fingerprint"], len(result["warnings"])) == (True, "unreadable", None, 1)
        assert "[WARNING]: Ignoring an invalid record in cache_path; registering the key again" in run.text
    assert done.one("afterwards")["reason"] == "up_to_date"
    assert simulator.count() == 2  # nothing that could not be put on record was sent
    assert in_its_place.read_text() == "not a folder\n"


def test_private_key_is_not_repeated(playbooks: Playbooks, simulator: Simulator, key: KeyPair, execution_mode: str) -> None:
    """Given alone, after a public one, in one line as a form gives it, and protected by a passphrase in a file."""
    file = playbooks.inputs / "private.pem"
    file.write_text(openssl("pkcs8", "-topk8", "-passout", "pass:Some-Passphrase", stdin=key.private))
    given: dict[str, dict[str, Any]] = {
        "alone": {"business_public_key": key.private},
        "after a public one": {"business_public_key": key.public + key.private},
        "in one line": {"business_public_key": key.private.replace("\n", "\\n")},
        "in a file": {"business_public_key_path": str(file)},
    }
    tasks = [playbooks.task(name, execution_mode, phone_number=new_number(), **options) for name, options in given.items()]
    run = playbooks.run_tasks(tasks, "-vvvv", "--diff")
    # Not how often: what is wrong need not come as far as to a process.
    assert ("kaleyra_flows_encryption" in run.modules) == (execution_mode == AS_A_MODULE)
    assert_messages(run, dict.fromkeys(given, ("a PRIVATE key", "openssl pkey")))
    assert simulator.count() == 0
    secrets = [*secret_lines(key.private), *secret_lines(file.read_text())]
    assert_nowhere(secrets, {"the output": run.output, "the results": repr(run.outcomes), **playbooks.leftovers()})
