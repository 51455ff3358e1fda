# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The check's plan, verdict and metrics, without a playbook."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from ansible_collections.kaleyra.whatsapp.plugins.plugin_utils._check import endpoints_to_ask, judge, phone_numbers, plan, read_keys, shown_url
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from prometheus_client.parser import text_string_to_metric_families

K1, K2, K3 = (("aa:" * 32)[:-1], ("bb:" * 32)[:-1], ("cc:" * 32)[:-1])
NUMBER, ANOTHER = "+919876543210", "+919876543211"
OWN = {
    f"flows_encryption_{name}": ""
    for name in (
        "phone_numbers key_host private_key_path public_key_path public_key previous_public_key api_host cache_path pod api_url sid endpoint_url"
    ).split()
}


def host(name: str, **variables: Any) -> dict[str, Any]:
    return {"inventory_hostname": name, **{f"flows_encryption_{variable}": value for variable, value in variables.items()}}


def planned(*hosts: dict[str, Any], environment: dict[str, str] | None = None, **of_the_play: Any) -> dict[str, Any]:
    """The plan of a play on those hosts, the first of which checks, with variables of the play."""
    play = {f"flows_encryption_{variable}": value for variable, value in of_the_play.items()}
    return plan(hosts, {**OWN, **hosts[0], **play}, environment=environment)


def current_paths(made: dict[str, Any]) -> list[str]:
    return [key["path"] for key in made["public_keys"] if "rotates" not in key]


def test_plan_hosts_that_share_everything_reads_once() -> None:
    shared = {"private_key_path": "/etc/flows/private.pem", "key_host": "endpoint", "api_host": "endpoint", "endpoint_url": "https://f.example.com/"}
    made = planned(host(NUMBER, **shared), host("919876543211", **shared))
    current, following, previous = made["public_keys"]
    assert current == {"host": "endpoint", "path": "/etc/flows/private.pub.pem", "text": ""}
    assert following == {"host": "endpoint", "path": "/etc/flows/private.next.pub.pem", "text": "", "name": "next", "rotates": 0}
    assert previous == {"host": "endpoint", "path": "/etc/flows/private.previous.pub.pem", "text": "", "name": "previous", "rotates": 0}
    assert [(folder["api_host"], folder["phone_numbers"]) for folder in made["records"]] == [("endpoint", {NUMBER: 0, ANOTHER: 0})]
    assert [(each["url"], each["key"]) for each in made["endpoints"]] == [("https://f.example.com/", 0)]


def test_plan_hosts_that_differ_reads_each() -> None:
    made = planned(
        host(NUMBER, private_key_path="/a.pem", cache_path="/r1", endpoint_url="https://a.example.com"),
        host(ANOTHER, private_key_path="/b.pem", cache_path="/r1", endpoint_url="https://a.example.com"),
        host("shops", private_key_path="/b.pem", cache_path="/r2", phone_numbers="393331234501; +39 333 1234502"),
    )
    assert current_paths(made) == ["/a.pub.pem", "/b.pub.pem"]
    assert [folder["phone_numbers"] for folder in made["records"]] == [{NUMBER: 0, ANOTHER: 1}, {"+393331234501": 1, "+393331234502": 1}]
    assert [each["key"] for each in made["endpoints"]] == [0, 1]


def test_plan_play_s_variables_replace_those_of_hosts() -> None:
    own = host(NUMBER, cache_path="/own", private_key_path="/own.pem")
    made = planned(own, host(ANOTHER), private_key_path="/play.pem", cache_path="/play")
    assert current_paths(made) == ["/play.pub.pem"] and [folder["cache_path"] for folder in made["records"]] == ["/play"]
    made = planned(own, host(ANOTHER))
    assert current_paths(made) == ["/own.pub.pem"] and [folder["cache_path"] for folder in made["records"]] == ["/own", ""]
    assert made["records"][1]["phone_numbers"] == {ANOTHER: None}


def test_plan_relative_paths_are_the_play_s_on_localhost() -> None:
    hosts = [host(NUMBER, private_key_path="keys/a.pem"), host(ANOTHER, private_key_path="keys/a.pem", key_host="endpoint")]
    made = plan(hosts, {**OWN, **hosts[0]}, base_folder="/play")
    assert current_paths(made) == ["/play/keys/a.pub.pem", "keys/a.pub.pem"]


def test_plan_key_as_text_has_the_previous_one_as_text() -> None:
    made = planned(host(NUMBER, public_key="PEM", previous_public_key="OLD", private_key_path="/a.pem"))
    assert [(key["text"], key["path"]) for key in made["public_keys"][1:]] == [("OLD", "")]


def test_plan_without_numbers_is_on_all_records() -> None:
    made = planned(host("localhost", private_key_path="/a.pem"), environment={"KALEYRA_SID": "HX1", "KALEYRA_POD": "in"})
    (folder,) = made["records"]
    assert (folder["phone_numbers"], folder["key"], folder["sid"], folder["pod"]) == ({}, 0, "HX1", "in")


@pytest.mark.parametrize("given", [NUMBER, 919876543210, [NUMBER], [919876543210], f"\r\n{NUMBER},", None, ""])
def test_phone_numbers_of_any_type(given: Any) -> None:
    assert phone_numbers(NUMBER, given) == [NUMBER]


def test_read_keys_names_file_and_cause() -> None:
    public = rsa.generate_private_key(65537, 2048).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    files = [{"text": "", "host": "endpoint", "path": f"/{name}.pub.pem"} for name in "abc"]
    results = [{"content": base64.b64encode(public).decode()}, {"msg": "file not found: /b.pub.pem"}, {"content": base64.b64encode(b"x").decode()}]
    good, missing, damaged = read_keys(files, [{"flows_encryption_key": file, **result} for file, result in zip(files, results)][::-1])
    assert good["text"] == public.decode() and len(good["fingerprint"]) == 95
    assert missing["problem"] == "/b.pub.pem on endpoint: the public key cannot be read (file not found: /b.pub.pem)."
    assert damaged["problem"].startswith("/c.pub.pem on endpoint: ") and damaged["fingerprint"] is None
    rotates = {**files[1], "rotates": 0}
    assert read_keys([rotates], [{"flows_encryption_key": rotates}]) == [{"text": "", "fingerprint": None, "problem": None}]


def recorded(state: str = "confirmed", fingerprint: str | None = K1, age: int = 60) -> dict[str, Any]:
    known = state in ("confirmed", "unconfirmed")
    return {
        "phone_number": NUMBER,
        "state": state,
        "fingerprint": fingerprint if known else None,
        "since": "2026-01-31T10:20:30Z" if known else None,
        "age": age if known else None,
        "msg": "The record x is damaged." if state == "unreadable" else None,
    }


def held(number: dict[str, Any], fingerprint: str | None, status: str | None = None, cause: str | None = None) -> dict[str, Any]:
    """A number that was read back, by kaleyra_flows_encryption_info."""
    drifted = cause is None and (status == "mismatch" or (number["state"] == "confirmed" and fingerprint != number["fingerprint"]))
    state = "drifted" if drifted else number["state"]
    return {**number, "state": state, "held_fingerprint": fingerprint, "held_status": status, "read_back_msg": cause}


ONE: dict[str, Any] = {"public_keys": [{}], "records": [{"api_host": "localhost", "phone_numbers": {NUMBER: 0}}], "endpoints": [], "problems": []}
KEY = {"fingerprint": K1, "text": "PEM", "problem": None}


def judged(made: dict[str, Any], keys: list[dict[str, Any]], infos: list[dict[str, Any]], *others: Any, **options: Any) -> dict[str, Any]:
    """What is judged of one result for each folder of records, in another order than theirs."""
    results = [{"flows_encryption_folder": folder, **info} for folder, info in zip(made["records"], infos)]
    return judge(made, keys, results[::-1], *others, **options)


@pytest.mark.parametrize(
    ("number", "expected", "state"),
    [
        (recorded(), K1, "ok"),
        (recorded(), None, "ok"),
        (recorded(), K2, "different"),
        (recorded("unconfirmed"), K1, "unconfirmed"),
        (recorded("unreadable"), K1, "unreadable"),
        (recorded("absent"), K1, "absent"),
        (recorded("absent"), None, "absent"),
        # What is held counts more than what is on record.
        (held(recorded(), K1, "valid"), K1, "ok"),
        (held(recorded(), K1), None, "ok"),
        (held(recorded("absent"), K1), K1, "ok"),
        (held(recorded("unconfirmed"), K1, "valid"), K1, "ok"),
        (held(recorded(), K1, "mismatch"), K1, "mismatch"),
        (held(recorded(), K2, "valid"), K1, "drifted"),
        (held(recorded(), K2, "valid"), None, "drifted"),
        (held(recorded(), None), K1, "drifted"),
        (held(recorded("absent"), K2, "valid"), K1, "different"),
        (held(recorded("absent"), K2, "valid"), None, "ok"),
        (held(recorded(fingerprint=K2), K3, "valid"), K1, "different"),
        (held(recorded("unconfirmed"), K2, "valid"), K1, "different"),
        (held(recorded("absent"), None), K1, "absent"),
        # Where it could not be told, the record counts.
        (held(recorded(), None, cause="HTTP 404."), K1, "ok"),
    ],
)
def test_judge_a_number(number: dict[str, Any], expected: str | None, state: str) -> None:
    records = [{**ONE["records"][0], "phone_numbers": {NUMBER: 0 if expected else None}}]
    result = judged({**ONE, "records": records}, [{**KEY, "fingerprint": expected}], [{"numbers": [number]}], [])
    assert result["stats"]["by_state"] == {state: 1}
    assert result["ok"] is (state == "ok")
    assert [line.startswith(f"{NUMBER}: ") for line in result["stats"]["problems"]] == [True] * (state != "ok")


NOTHING: dict[str, Any] = {**ONE, "records": [{"api_host": "localhost", "phone_numbers": {}, "key": None}]}
WITHOUT_KEY = {"fingerprint": None, "text": "", "problem": "/a.pub.pem: not found."}
REQUIRED = {"msg": "The key could not be read.", "numbers": [held(recorded(), None, cause="HTTP 401.")]}


@pytest.mark.parametrize(
    ("made", "key", "info", "state", "problem"),
    [
        (ONE, KEY, {"msg": "Failed to connect.", "unreachable": True}, "unknown", "The records on localhost cannot be read (Failed to connect)."),
        (ONE, KEY, REQUIRED, "ok", "The key could not be read."),
        (ONE, WITHOUT_KEY, {"numbers": [recorded()]}, "unknown", "/a.pub.pem: not found."),
        (NOTHING, KEY, {"numbers": []}, None, "Nothing to check"),
        (planned(host("shop", phone_numbers=["+39 nonsense"])), KEY, {"numbers": []}, None, "shop: "),
    ],
)
def test_judge_what_cannot_be_read_is_a_problem(
    made: dict[str, Any], key: dict[str, Any], info: dict[str, Any], state: str | None, problem: str
) -> None:
    result = judged(made, [key], [info], [])
    assert not result["ok"] and result["stats"]["by_state"] == ({state: 1} if state else {})
    (found,) = result["stats"]["problems"]
    assert found.startswith(problem)


def test_judge_names_some_problems_and_counts_all() -> None:
    numbers = [{**recorded("absent"), "phone_number": f"+9198765{number:05}"} for number in range(50)]
    result = judged(ONE, [KEY], [{"numbers": numbers}], [])
    assert len(result["stats"]["problems"]) == 21 and result["stats"]["problems"][-1] == "30 more problems."
    assert result["lines"][0] == "50 numbers: 0 ok, 50 absent."


def asked(url: str, name: str = "current", **result: Any) -> dict[str, Any]:
    return {"flows_encryption_endpoint": {"shown": url, "name": name}, **result}


IN_ROTATION: dict[str, Any] = {
    **ONE,
    "public_keys": [{}, {"rotates": 0, "name": "next"}, {"rotates": 0, "name": "previous"}],
    "endpoints": [{"shown": "https://a", "key": 0}],
}
PEMS = [KEY, {**KEY, "fingerprint": K2, "text": "NEXT"}, {**KEY, "fingerprint": None, "text": ""}]


@pytest.mark.parametrize("number", [recorded(fingerprint=K2), held(recorded(fingerprint=K2), K2), held(recorded(), K2), held(recorded("absent"), K2)])
def test_judge_number_in_rotation_needs_its_endpoint(number: dict[str, Any]) -> None:
    infos = [{"numbers": [number]}]
    asks = endpoints_to_ask(IN_ROTATION, PEMS, infos)
    assert [(each["name"], each["text"]) for each in asks] == [("current", "PEM"), ("next", "NEXT")]
    for holds_next in (True, False):
        pings = [asked("https://a", active=True, latency_ms=34), asked("https://a", "next", active=holds_next, latency_ms=35, msg="Another key.")]
        result = judged(IN_ROTATION, PEMS, infos, pings)
        assert (result["ok"], result["stats"]["by_state"]) == (holds_next, {"in_rotation": 1})
        assert result["lines"][0].startswith("1 number: 0 ok, 1 in rotation.")
        assert result["stats"]["problems"] == [] if holds_next else ["https://a, next key: Another key."]


def test_unused_next_key_is_not_asked_for() -> None:
    asks = endpoints_to_ask(IN_ROTATION, PEMS, [{"numbers": [recorded()]}, {"msg": "Failed to connect."}])
    assert [each["name"] for each in asks] == ["current"]
    # Nor twice, where the next key has been promoted and its file is still there.
    assert len(endpoints_to_ask(IN_ROTATION, [KEY, KEY, PEMS[2]], [{"numbers": [recorded()]}])) == 1


def test_judge_endpoint_that_is_down_or_was_not_asked() -> None:
    pings = [
        asked("https://a", active=True, latency_ms=34, fingerprint=K1),
        asked("https://b", active=False, msg="Another key."),
        asked("https://c", skipped=True),
    ]
    result = judged(ONE, [KEY], [{"numbers": [recorded()]}], pings)
    assert result["lines"][1:4] == ["Endpoint https://a: holds the key, 34 ms.", "Endpoint https://b: down.", "Endpoint https://c: down."]
    assert result["stats"]["problems"] == ["https://b: Another key.", "https://c: It was not verified, because its public key is not known."]


def test_metrics_are_read_by_prometheus() -> None:
    odd = 'https://f.example.com/"a\\b'
    numbers = [recorded(), {**recorded(age=7200), "phone_number": ANOTHER}, {**recorded(fingerprint=K2), "phone_number": "+393331234501"}]
    pings = [asked(odd, active=True, latency_ms=34, fingerprint=K1)]
    plan = {**ONE, "records": [{"api_host": "localhost", "phone_numbers": {number["phone_number"]: 0 for number in numbers}}]}
    text = judged(plan, [KEY], [{"numbers": numbers}], pings, now=1_770_000_000.9)["metrics"]
    families = list(text_string_to_metric_families(text))
    assert all(family.documentation and family.type == "gauge" for family in families)
    found = {(sample.name.removeprefix("kaleyra_flows_"), *sample.labels.values()): sample.value for family in families for sample in family.samples}
    assert found == {
        ("numbers", "ok", K1): 2,
        ("numbers", "different", K2): 1,
        ("oldest_confirmation_age_seconds",): 7200,
        ("endpoint_up", odd, K1): 1,
        ("endpoint_latency_seconds", odd, K1): 0.034,
        ("check_ok",): 0,
        ("check_timestamp_seconds",): 1_770_000_000,
    }


def test_shown_url_has_no_secrets() -> None:
    assert shown_url("https://user:password@f.example.com/endpoint?token=x#y") == "https://f.example.com/endpoint"
