# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How the module's options are read: what is forgiven, what is refused, and where they come from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from support.keys import KeyPair
from support.playbook_runs import API_KEY, AS_A_MODULE, INFO, MODULE, SID, Playbooks, Run, assert_nowhere, new_number
from support.processes import register_all
from support.role import included, prefixed
from support.simulator.client import Simulator

GROUP = "group/kaleyra.whatsapp.kaleyra"
PING = "kaleyra.whatsapp.flows_endpoint_ping"
OPTIONS = (
    "pod api_url sid api_key phone_number business_public_key business_public_key_path known_fingerprint cache_path "
    "cache_valid_time force timeout retries validate_certs ca_path phone_numbers concurrency max_requests_per_second"
).split()


def in_both_modes(playbooks: Playbooks, given: Mapping[str, Mapping[str, Any]], as_modules: Iterable[str]) -> list[dict[str, Any]]:
    """Tasks by their options, in the worker; again as a module, which takes a process each, those that are named."""
    tasks = [playbooks.task(name, **options) for name, options in given.items()]
    return tasks + [playbooks.task(f"{name} as a module", AS_A_MODULE, **given[name]) for name in as_modules]


def results(run: Run, name: str) -> list[dict[str, Any]]:
    """In each mode in which the task was run."""
    return [outcome.facts for mode in ("", " as a module") for outcome in run.of(f"{name}{mode}")]


def assert_messages(run: Run, expected: Mapping[str, Iterable[str]]) -> None:
    """Each of these tasks failed before anything was sent, with all of its words in the message."""
    for name, words in expected.items():
        for result in results(run, name):
            assert result["failed"] and result.get("attempts", 0) == 0, (name, result)
            assert all(word in result["msg"] for word in words) and len(result["msg"]) < 1000, (name, result["msg"])


def test_refused_options_send_nothing(playbooks: Playbooks, simulator: Simulator, key: KeyPair, tmp_path: Path) -> None:
    """What each option takes is tested with the core; here, that each way of refusing reaches the user."""
    file = playbooks.inputs / "public.pem"
    file.write_text(key.public)
    weak = {"business_public_key": KeyPair.make("RSA", "rsa_keygen_bits:1024").public}
    no_ca = {"api_url": "https://127.0.0.1:9", "ca_path": str(tmp_path / "missing.pem"), "retries": 0}
    listed = [new_number() for dummy in range(20)]
    many: dict[str, Any] = {"phone_number": None, "phone_numbers": listed}
    cases: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
        "two keys": ({"business_public_key_path": str(file)}, ("mutually exclusive", "business_public_key|business_public_key_path")),
        "no host": ({"api_url": None}, ("Set exactly one of pod and api_url, or KALEYRA_POD or KALEYRA_API_URL in the environment.",)),
        "no credentials": ({"sid": None, "api_key": None}, ("Set sid or KALEYRA_SID. Set api_key or KALEYRA_API_KEY.",)),
        "unknown option": ({"phone": "1"}, ("phone", "Supported parameters include")),
        "api_key": ({"api_key": "Secret-With a-Blank"}, ("api_key", "space")),
        "timeout": ({"timeout": 0}, ("timeout is 0", "from 1 to 86400")),
        "no integer": ({"retries": "many"}, ("retries", "int")),
        "no file": ({"business_public_key": None, "business_public_key_path": str(tmp_path / "missing.pem")}, ("missing.pem", "No such file")),
        "ca_path": (no_ca, ("ca_path", "missing.pem")),
        "cache_path": ({"cache_path": str(file)}, (f"cache_path {file}",)),
        "weak key": (weak, ("RSA with 1024 bits",)),
        # Once for all numbers of a list.
        "one and many": ({"phone_numbers": listed}, ("mutually exclusive: phone_number|phone_numbers",)),
        "concurrency": ({**many, "concurrency": 0}, ("concurrency is 0, but must be from 1 to 100",)),
        "rate": ({**many, "max_requests_per_second": 0}, ("max_requests_per_second is 0, but must be 0.001 or more",)),
        "weak key for many": (
            {**many, **weak}, ("20 of 20 numbers failed. The public key is RSA with 1024 bits", f"for {', '.join(listed[1:4])} and 16 more.")
        ),
    }  # fmt: skip
    given = {name: {"phone_number": new_number(), "business_public_key": key.public, **options} for name, (options, dummy) in cases.items()}
    # The one that is sent: to a proxy where nobody listens, so that nothing leaves this machine, whatever network it has.
    given["pod"] = {"phone_number": new_number(), "business_public_key": key.public, "pod": "eu", "api_url": None, "retries": 0}
    as_modules = ["two keys", "cache_path", "no credentials", "unknown option", "timeout", "no integer", "weak key for many"]
    tasks = in_both_modes(playbooks, given, as_modules)
    run = playbooks.run_tasks(tasks, "-vvvv", env={"HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": ""})
    assert run.modules == ["kaleyra_flows_encryption"] * len(as_modules)
    assert_messages(run, {name: words for name, (dummy, words) in cases.items()})
    assert " api.eu.kaleyra.io gave no answer: proxy: Connection refused." in run.one("pod")["msg"]
    assert "Secret-With" not in run.output
    assert simulator.count() == 0
    assert len([path for path in playbooks.default_cache.glob("*") if path.suffix == ".json"]) == 1


@pytest.mark.slow
def test_empty_strings_and_the_environment(playbooks: Playbooks, simulator: Simulator, key: KeyPair) -> None:
    number, other = new_number(), new_number()
    needed: dict[str, Any] = {**dict.fromkeys(OPTIONS, ""), "phone_number": number, "business_public_key": key.public, "force": "yes"}
    given = {"all from the environment": needed, "no number": {**needed, "phone_number": ""}, "no key": {**needed, "business_public_key": ""}}
    env = {"KALEYRA_API_URL": simulator.url, "KALEYRA_SID": SID, "KALEYRA_API_KEY": API_KEY, "KALEYRA_POD": ""}
    run = playbooks.run_tasks(in_both_modes(playbooks, given, given), env=env)
    assert [result["reason"] for result in results(run, "all from the environment")] == ["absent", "forced"]
    assert simulator.registered() == {SID: {number: key.fingerprint}}
    # The default of cache_path counted, not the empty string.
    assert [path.name for path in playbooks.default_cache.glob("*.json")] == [
        f"{simulator.url.removeprefix('http://').replace(':', '%3A')},{SID},{number}.json"
    ]
    no_key = ("one of the following", "business_public_key, business_public_key_path")
    assert_messages(run, {"no number": ("one of the following is required: phone_number, phone_numbers",), "no key": no_key})

    # Variables of the environment that are set, but empty, are not given either; and what the task says counts first.
    with_key: dict[str, Any] = {"business_public_key": key.public, "phone_number": other}
    given = {
        "no sid": {**with_key, "sid": None},
        "empty key": {**with_key, "api_key": ""},
        "pod from the environment": {**with_key, "api_url": None},
        "task before environment": {**with_key, "phone_number": number, "force": True},
    }
    tasks = in_both_modes(playbooks, given, given)
    for task in tasks:
        task["check_mode"] = "pod" in task["name"]
    run = playbooks.run_tasks(tasks, env={"KALEYRA_POD": "in", "KALEYRA_API_URL": "", "KALEYRA_SID": "", "KALEYRA_API_KEY": ""})
    assert_messages(run, {"no sid": ("Set sid or KALEYRA_SID.",), "empty key": ("Set api_key or KALEYRA_API_KEY.",)})
    assert [result["reason"] for result in results(run, "pod from the environment")] == ["absent"] * 2
    assert [result["http_status"] for result in results(run, "task before environment")] == [200] * 2
    assert simulator.count() == 4


@pytest.mark.slow
def test_unusual_types_and_paths(playbooks: Playbooks, simulator: Simulator, key: KeyPair) -> None:
    folder = playbooks.folder / "Schlüssel 'a' \"b\" $(c) {d}"
    folder.mkdir()
    file = folder / "public key"
    file.write_text(key.public)
    names = ("path", "integer", "ini", "spaced", "integers")
    numbers = {name: new_number() for name in names}
    other, spaced = new_number(), numbers["spaced"]
    good: dict[str, dict[str, Any]] = {
        "path": {"phone_number": numbers["path"]},
        "integer": {"phone_number": int(numbers["integer"]), "timeout": "20", "retries": "1", "force": "no", "cache_valid_time": "60"},
        "ini": {"phone_number": "{{ ini_number }}"},
        "spaced": {"phone_number": f"{spaced[:3]} ({spaced[3:6]}) {spaced[6:9]}-{spaced[9:]}"},
        "integers": {"phone_numbers": [int(numbers["integers"]), float(other), numbers["integers"]], "concurrency": ""},
    }
    # What is nothing of the kind has a message, and no stack trace.
    bad: dict[str, dict[str, Any]] = {
        "dictionary": {"phone_number": {"number": 1}},
        "boolean": {"phone_number": True},
        "list": {"phone_number": list(numbers.values())},
        "dictionaries": {"phone_numbers": [{"number": 1}]},
        "key as dictionary": {"phone_number": other, "business_public_key": {"a": 1}, "business_public_key_path": None},
        "sid as integer": {"phone_number": other, "sid": 12345},
    }
    common = {"business_public_key_path": str(file), "cache_path": str(folder / "records of ü")}
    given = {name: {**common, **options} for name, options in {**good, **bad}.items()}
    tasks = in_both_modes(playbooks, given, ["path", "integer", "integers", "dictionaries", "key as dictionary"])
    play = {"hosts": "all", "gather_facts": False, "tasks": tasks, "ignore_errors": True}
    inventory = f"here ansible_connection=local ini_number={numbers['ini']}\n"
    for arguments in (["--check"], []):
        run = playbooks.run([play], inventory, *arguments)
        for name in names:
            first, *rest = results(run, name)
            assert first["changed"] and not first["failed"], first
            assert all(not result["failed"] and result["changed"] is bool(arguments) for result in rest), rest
            assert first.get("phone_number") in (numbers[name], None)
        for name in ("dictionary", "boolean", "list", "dictionaries"):
            assert all("is not a number in E.164" in result["msg"] for result in results(run, name))
        assert all("found no PEM" in result["msg"] for result in results(run, "key as dictionary"))
        # What YAML and INI leave of a number is told, as one without its country code would be another.
        (warning,) = run.one("integer")["warnings"]
        assert warning.startswith(f"A phone number has no plus sign: {numbers['integer'][1:]} was read as {numbers['integer']} (India, +91). ")
        assert "warnings" not in run.one("spaced")
    assert "RBC001" in run.one("sid as integer")["msg"]  # an account that there is not
    assert simulator.registered() == {SID: dict.fromkeys([*numbers.values(), other], key.fingerprint)}
    assert len(list((folder / "records of ü").glob("*.json"))) == 6


@pytest.mark.slow
def test_relative_path_is_the_same_in_both_modes(playbooks: Playbooks, simulator: Simulator, key: KeyPair, other_key: KeyPair) -> None:
    number = new_number()
    # Relative to the working directory, which is not the playbook's folder here.
    for name, pair in (("first.pem", key), ("second.pem", other_key)):
        (playbooks.inputs / name).write_text(pair.public)
    common: dict[str, Any] = {"phone_number": number, "cache_path": "records"}
    given = {name: {**common, "business_public_key_path": f"{name}.pem"} for name in ("first", "second")}
    tasks = in_both_modes(playbooks, given, ["first", "second"])
    tasks.append({"name": "info", INFO: {"cache_path": "records"}})
    playbook = playbooks.inputs / "elsewhere/play.yml"
    playbook.parent.mkdir()
    playbook.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": tasks}]))
    run = playbooks.run(str(playbook), "here ansible_connection=local\n")
    assert [run.one(task["name"])["reason"] for task in tasks[:-1]] == ["absent", "different", "different", "different"]
    assert simulator.registered() == {SID: {number: other_key.fingerprint}}
    assert [path.parent for path in playbooks.folder.rglob("*.json")] == [playbooks.inputs / "records"]
    assert [each["fingerprint"] for each in run.one("info")["numbers"]] == [other_key.fingerprint]


@pytest.mark.slow
def test_unreadable_record_is_a_warning(playbooks: Playbooks, simulator: Simulator, key: KeyPair) -> None:
    number, cache = new_number(), playbooks.folder / "records"
    register_all(playbooks.api_url, cache, [number], key.public)
    [record] = cache.glob("*.json")
    record.write_bytes(record.read_bytes()[:40])
    given = {"damaged": {"phone_number": number, "cache_path": str(cache), "business_public_key": key.public}}
    checked = playbooks.run_tasks(in_both_modes(playbooks, given, given), "--check")
    assert len(record.read_bytes()) == 40 and simulator.count() == 1
    done = playbooks.run_tasks(in_both_modes(playbooks, given, given))
    for result in (*results(checked, "damaged"), done.one("damaged")):
        assert (result["changed"], result["reason"], result["previous_fingerprint"], len(result["warnings"])) == (True, "unreadable", None, 1)
    assert "[WARNING]: Ignoring an invalid record in cache_path; registering the key again" in done.text
    assert done.one("damaged as a module")["reason"] == "up_to_date" and simulator.count() == 2


@pytest.mark.slow
def test_group_defaults_reach_its_modules_alone(playbooks: Playbooks, simulator: Simulator, key: KeyPair) -> None:
    """In the worker and as a module; not the ping, nor the role."""
    mine, other, of_role = (new_number() for dummy in range(3))
    cache = str(playbooks.folder / "records")
    account: dict[str, Any] = {"api_url": playbooks.api_url, "sid": SID, "api_key": API_KEY, "cache_path": cache}
    defaults = {**account, "timeout": 20, "retries": 1, "validate_certs": True, "ca_path": "", "phone_numbers": [mine]}
    defaults["business_public_key"] = key.public
    as_module = {"environment": {"ASKS_FOR_A_PROCESS": "yes"}}
    tasks: list[dict[str, Any]] = [
        {"name": "register", MODULE: {}},
        {"name": "a task's own option wins", MODULE: {"phone_numbers": [other]}, **as_module},
        {"name": "ask", INFO: {}},
        {"name": "ask as a module", INFO: {}, **as_module},
        {"name": "ask for another account", INFO: {"sid": "HXAP16NOBODY97IN"}},
        # Which is not told the account: else its options were unsupported.
        {"name": "ping", PING: {"url": "http://127.0.0.1:1/", "business_public_key": "none"}, "ignore_errors": True},
    ]
    role = included(vars=prefixed({**account, "phone_numbers": [of_role], "public_key": key.public}))
    wrong = {"pod": "eu", "sid": "HXAP16NOBODY97IN", "api_key": "wrong"}
    plays = [
        {"hosts": "all", "gather_facts": False, "module_defaults": {GROUP: given}, "tasks": of_play}
        for given, of_play in ((defaults, tasks), (wrong, [role]))
    ]
    run = playbooks.run(plays, {"all": {"hosts": {"here": {"ansible_connection": "local"}}}}, "-vvvv")
    assert run.rc == 0, run.output
    assert run.modules == ["kaleyra_flows_encryption", "kaleyra_flows_encryption_info"]
    assert "expected one BEGIN PUBLIC KEY block" in run.one("ping")["msg"]
    assert simulator.registered() == {SID: dict.fromkeys((mine, other, of_role), key.fingerprint)}
    for name in ("ask", "ask as a module"):
        assert [(n["phone_number"], n["sid"], n["as_expected"]) for n in run.one(name)["numbers"]] == [(mine, SID, True)]
    assert [n["state"] for n in run.one("ask for another account")["numbers"]] == ["absent"]
    assert not playbooks.default_cache.exists()
    assert_nowhere([API_KEY], {"output": run.output})
