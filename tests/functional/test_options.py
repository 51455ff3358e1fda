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
from support.simulator.client import Simulator

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("execution_mode", EXECUTION_MODES)]

FEW = ("two keys", "no host", "no credentials", "unknown option", "api_key", "no integer")

OPTIONS = (
    "pod api_url sid api_key phone_number business_public_key business_public_key_path known_fingerprint cache_path "
    "cache_valid_time force timeout retries validate_certs ca_path phone_numbers concurrency max_requests_per_second"
).split()


def assert_messages(run: Run, expected: dict[str, tuple[str, ...]]) -> None:
    """Prove that each of these tasks failed and said all of its words."""
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


def test_numbers_that_yaml_and_ini_turn_into_integers(playbooks: Playbooks, simulator: Simulator, key: KeyPair, execution_mode: str) -> None:
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


def test_values_of_odd_types_and_odd_paths(playbooks: Playbooks, simulator: Simulator, key: KeyPair, execution_mode: str) -> None:
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


def test_a_relative_path_is_the_same_in_both_ways_of_running(
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


def test_options_that_are_refused_before_anything_is_sent(
    playbooks: Playbooks, simulator: Simulator, key: KeyPair, execution_mode: str, tmp_path: Path
) -> None:
    file = playbooks.inputs / "public.pem"
    file.write_text(key.public)

    def task(name: str, **options: Any) -> dict[str, Any]:
        return playbooks.task(name, execution_mode, **{"phone_number": new_number(), "business_public_key": key.public, **options})

    tasks = [
        task("two keys", business_public_key_path=str(file)),
        task("no key", business_public_key=None),
        task("two hosts", pod="in"),
        task("no host", api_url=None),
        task("unknown pod", api_url=None, pod="ap"),
        task("no credentials", sid=None, api_key=None),
        task("unknown option", phone="1"),
        task("letters", phone_number="+91 98765 4321O"),
        task("trunk zero", phone_number="+44 (0) 20 7946 0000"),
        task("too short", phone_number=12345),
        task("sid", sid="HXAP16/../../x"),
        task("api_key", api_key="Secret-With a-Blank"),
        task("fingerprint", known_fingerprint="ab:cd"),
        task("clear text", api_url="http://192.0.2.1"),
        task("no url", api_url="ftp://example.com"),
        task("timeout", timeout=0),
        task("retries", retries=-1),
        task("age", cache_valid_time=-1),
        task("no integer", retries="many"),
        task("no file", business_public_key=None, business_public_key_path=str(tmp_path / "missing.pem")),
        task("ca_path", api_url="https://127.0.0.1:9", ca_path=str(tmp_path / "missing.pem"), retries=0),
    ]
    expected = {
        "two keys": ("mutually exclusive", "business_public_key|business_public_key_path"),
        "no key": ("one of the following", "business_public_key, business_public_key_path"),
        "two hosts": ("Set exactly one of pod and api_url, or KALEYRA_POD or KALEYRA_API_URL in the environment.",),
        "no host": ("Set exactly one of pod and api_url, or KALEYRA_POD or KALEYRA_API_URL in the environment.",),
        "unknown pod": ("pod", "in, sg, eu, na", "ap"),
        "no credentials": ("Set sid or KALEYRA_SID. Set api_key or KALEYRA_API_KEY.",),
        "unknown option": ("phone", "Supported parameters include"),
        "letters": ("phone_number", "E.164", "+919876543210"),
        "trunk zero": ("phone_number", "E.164"),
        "too short": ("phone_number '12345'", "E.164"),
        "sid": ("sid", "account SID"),
        "api_key": ("api_key", "blank"),
        "fingerprint": ("known_fingerprint", "SHA-256"),
        "clear text": ("api_url", "https"),
        "no url": ("api_url", "https"),
        "timeout": ("timeout is 0", "from 1 to 86400"),
        "retries": ("retries is -1", "from 0 to 1000"),
        "age": ("cache_valid_time is -1", "0 or more"),
        "no integer": ("retries", "int"),
        "no file": ("missing.pem", "No such file"),
        "ca_path": ("ca_path", "missing.pem"),
    }
    if execution_mode == AS_A_MODULE:
        # Each takes a process. What differs is who looks first at the arguments, so a few of each kind will do.
        expected = {name: words for name, words in expected.items() if name in FEW}
    run = playbooks.run_tasks([task for task in tasks if task["name"] in expected], "-vvvv")
    assert_execution_mode(run, execution_mode)
    assert_messages(run, expected)
    assert "Secret-With" not in run.output
    assert simulator.count() == 0
    assert not [path for path in playbooks.default_cache.glob("*") if path.suffix == ".json"]


def test_each_pod_is_asked_at_its_own_domain(playbooks: Playbooks, simulator: Simulator, key: KeyPair, execution_mode: str) -> None:
    domains = {"in": "api.in.kaleyra.io", "sg": "api.kaleyra.io", "eu": "api.eu.kaleyra.io", "na": "api.na.kaleyra.ai"}
    if execution_mode == AS_A_MODULE:  # the proxy is what differs there
        domains = {"eu": domains["eu"]}
    run = playbooks.run_tasks(
        [
            playbooks.task(pod, execution_mode, pod=pod, api_url=None, phone_number=new_number(), business_public_key=key.public, retries=0)
            for pod in domains
        ],
        # A proxy where nobody listens: nothing leaves this machine, whatever network it has.
        env={"HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": ""},
    )
    assert_execution_mode(run, execution_mode)
    for pod, domain in domains.items():
        result = run.one(pod)
        assert f" {domain} gave no answer: proxy: Connection refused." in result["msg"]
        assert (result["outcome"], result["attempts"]) == ("unknown", 1)


def test_when_a_key_on_record_is_registered_again(
    playbooks: Playbooks, simulator: Simulator, key: KeyPair, other_key: KeyPair, execution_mode: str
) -> None:
    number, unknown = new_number(), new_number()
    file = playbooks.inputs / "public.pem"
    file.write_text(key.public)
    untouched = playbooks.folder / "never-made"

    def task(name: str, keywords: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
        options = {"phone_number": number, "business_public_key_path": str(file), **options}
        return playbooks.task(name, execution_mode, keywords, **options)

    def known(name: str, fingerprint: str, **options: Any) -> dict[str, Any]:
        return task(name, phone_number=unknown, known_fingerprint=fingerprint, cache_path=str(untouched), **options)

    tasks = [
        task("first"),
        task("again"),
        task("fresh", cache_valid_time=3600),
        task("old", cache_valid_time=0),
        task("force", force=True),
        task("force as text", force="yes"),
        task("force in check mode", {"check_mode": True}, force=True),
        task("other key", business_public_key_path=None, business_public_key=other_key.public),
        # Of whom nothing is on record: the same number, the same API host, but other records. Refused, so not registered.
        task("other account", sid="HXAP16OTHER"),
        known("known", key.fingerprint),
        known("known in upper case", key.fingerprint.upper().replace(":", "")),
        known("known, and of any age", key.fingerprint, cache_valid_time=0),
        known("known, and forced", key.fingerprint, force=True),
        known("another is known", other_key.fingerprint),
    ]
    mine, theirs = key.fingerprint, other_key.fingerprint
    expected = {
        "first": ("absent", None, 1),
        "again": ("up_to_date", mine, 0),
        "fresh": ("up_to_date", mine, 0),
        "old": ("expired", mine, 1),
        "force": ("forced", mine, 1),
        "force as text": ("forced", mine, 1),
        "force in check mode": ("forced", mine, 0),
        "other key": ("different", mine, 1),
        "other account": ("absent", None, 1),  # a record of its own
        "known": ("up_to_date", mine, 0),
        "known in upper case": ("up_to_date", mine, 0),
        "known, and of any age": ("up_to_date", mine, 0),
        "known, and forced": ("forced", mine, 1),
        "another is known": ("different", theirs, 1),
    }
    if execution_mode == AS_A_MODULE:  # a process each
        few = ("first", "fresh", "old", "other key", "known, and forced")
        expected = {name: outcome for name, outcome in expected.items() if name in few}
    run = playbooks.run_tasks([task for task in tasks if task["name"] in expected])
    assert_execution_mode(run, execution_mode)
    results = {name: run.one(name) for name in expected}
    assert {name: (r["reason"], r["previous_fingerprint"], r["attempts"]) for name, r in results.items()} == expected
    assert simulator.registered() == {SID: {number: theirs, unknown: mine}}
    assert not untouched.exists()


def test_records_that_cannot_be_read_or_written(playbooks: Playbooks, simulator: Simulator, key: KeyPair, execution_mode: str) -> None:
    number, refused = new_number(), new_number()
    cache, in_its_place = playbooks.folder / "records", playbooks.folder / "file"
    in_its_place.write_text("not a folder\n")

    def task(name: str, **options: Any) -> dict[str, Any]:
        options = {"phone_number": number, "cache_path": str(cache), **options}
        return playbooks.task(name, execution_mode, business_public_key=key.public, **options)

    run = playbooks.run_tasks([task("first"), task("no folder", phone_number=refused, cache_path=str(in_its_place))])
    assert_execution_mode(run, execution_mode)
    assert_messages(run, {"no folder": ("cache_path", str(in_its_place), "known_fingerprint")})
    assert simulator.count() == 1  # nothing that could not be put on record was sent
    # Check mode tells as much.
    tasks = [task("no folder", phone_number=refused, cache_path=str(in_its_place))]
    tasks.append(task("no list", phone_number=None, phone_numbers=[number, refused], cache_path=str(in_its_place / "below")))
    predicted, done = playbooks.run_tasks(tasks, "--check"), playbooks.run_tasks(tasks)
    for name in ("no folder", "no list"):
        assert predicted.one(name)["failed"] and not predicted.one(name)["changed"]
        assert predicted.one(name)["msg"] == done.one(name)["msg"]
    assert "cache_path" in predicted.one("no list")["msg"] and simulator.count() == 1
    assert in_its_place.read_text() == "not a folder\n"

    [record] = cache.glob("*.json")
    good = record.read_bytes()
    record.write_bytes(good[:40])
    run = playbooks.run_tasks([task("check"), task("repaired")], "--check")
    assert run.one("check")["reason"] == "unreadable"
    assert record.read_bytes() == good[:40]
    run = playbooks.run_tasks([task("repaired"), task("afterwards")])
    result = run.one("repaired")
    assert (result["changed"], result["reason"], result["previous_fingerprint"]) == (True, "unreadable", None)
    assert len(result["warnings"]) == 1
    assert "[WARNING]: Ignoring an invalid record in cache_path; registering the key again" in run.text
    assert run.one("afterwards")["reason"] == "up_to_date"
    assert simulator.count() == 2


def test_keys_that_the_api_does_not_take_are_refused(
    playbooks: Playbooks, simulator: Simulator, key: KeyPair, other_key: KeyPair, execution_mode: str
) -> None:
    private = playbooks.inputs / "private.pem"
    private.write_text(key.private)
    certificate = openssl("req", "-x509", "-key", private, "-subj", "/CN=test", "-days", "1")
    keys = {
        "1024 bits": (KeyPair.make("RSA", "rsa_keygen_bits:1024").public, ["RSA with 1024 bits", "community.crypto.openssl_privatekey"]),
        "elliptic curve": (KeyPair.make("EC", "ec_paramgen_curve:P-256").public, ["of the type EC", "community.crypto.openssl_privatekey"]),
        "certificate": (certificate, ["a certificate", "openssl x509"]),
        "PKCS#1": (openssl("rsa", "-in", private, "-RSAPublicKey_out"), ["PKCS#1", "openssl rsa -RSAPublicKey_in"]),
        "two keys": (key.public + other_key.public, ["2 PEM blocks"]),
        "junk": ("not a key at all", ["no PEM"]),
        "private key": (key.private, ["a PRIVATE key", "openssl pkey -in private.pem -pubout"]),
        "private key after a public one": (key.public + key.private, ["a PRIVATE key"]),
        "private key under a wrong label": (key.private.replace("PRIVATE", "PUBLIC"), ["a PRIVATE key"]),
        "encrypted private key": (
            openssl("pkcs8", "-topk8", "-in", private, "-passout", "pass:Some-Passphrase"),
            ["a PRIVATE key"],
        ),
    }
    tasks = []
    for number, (name, (text, dummy)) in enumerate(keys.items()):
        if execution_mode == AS_A_MODULE and name not in ("1024 bits", "private key", "private key after a public one"):
            continue
        # Every second one by way of a file.
        options: dict[str, Any] = {"business_public_key": text}
        if number % 2:
            file = playbooks.inputs / f"bad{number}.pem"
            file.write_text(text)
            options = {"business_public_key_path": str(file)}
        tasks.append(playbooks.task(name, execution_mode, phone_number=new_number(), **options))
    # As a form of one line gives it.
    one_line = key.private.replace("\n", "\\n")
    tasks.append(playbooks.task("one line", execution_mode, phone_number=new_number(), business_public_key=one_line))
    keys["one line"] = (one_line, ["a PRIVATE key"])
    run = playbooks.run_tasks(tasks, "-vvvv", "--diff")
    # Not how often: what is wrong need not come as far as to a process.
    assert ("kaleyra_flows_encryption" in run.modules) == (execution_mode == AS_A_MODULE)
    assert_messages(run, {task["name"]: tuple(keys[task["name"]][1]) for task in tasks})
    assert simulator.count() == 0
    secrets = [*secret_lines(key.private), *secret_lines(keys["encrypted private key"][0])]
    assert_nowhere(secrets, {"the output": run.output, "the results": repr(run.outcomes), **playbooks.leftovers()})
