# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The report's rows, files and figures, without a playbook."""

from __future__ import annotations

import base64
import collections
import csv
import hashlib
import io
import json
from typing import Any

import pytest
from ansible_collections.kaleyra.whatsapp.plugins.plugin_utils._report import as_csv, as_json, describe_page, describe_play

K1, K2 = ("aa:" * 32)[:-1], ("bb:" * 32)[:-1]
NUMBER = "+919876543210"


def number(state: str = "confirmed", fingerprint: str | None = K1, **fields: Any) -> dict[str, Any]:
    known = state in ("confirmed", "unconfirmed")
    row = {
        "phone_number": NUMBER,
        "api": "api.in.kaleyra.io",
        "sid": "HXAP16XXXXXX97IN",
        "state": state,
        "fingerprint": fingerprint if known else None,
        "since": "2026-01-31T10:20:30Z" if known else None,
        "age": 5,
        "msg": None,
    }
    return {**row, **fields}


def info(*numbers: dict[str, Any], expected: str | None = None) -> dict[str, Any]:
    """A result as kaleyra_flows_encryption_info returns it."""
    for each in numbers:
        each["as_expected"] = None if expected is None else each["state"] == "confirmed" and each["fingerprint"] == expected
    states = collections.Counter(each["state"] for each in numbers)
    return {
        "fingerprint": expected,
        "numbers": list(numbers),
        "summary": {
            "numbers": len(numbers),
            "by_state": {state: states[state] for state in ("confirmed", "unconfirmed", "unreadable", "absent")},
            "by_fingerprint": dict(collections.Counter(each["fingerprint"] for each in numbers if each["state"] == "confirmed").most_common()),
        },
    }


def page(*numbers: dict[str, Any], expected: str | None = None) -> dict[str, Any]:
    return describe_page(info(*numbers, expected=expected), [], "p {}", "run()")


def test_what_was_read_back_stands_beside_the_record() -> None:
    held: dict[str, Any] = {"held_status": "valid", "read_back_msg": None, "drifted": False}
    rows = [
        number(held_fingerprint=K1, **held),
        number("drifted", held_fingerprint=K2, **{**held, "drifted": True}),
        number("drifted", held_fingerprint=None, **{**held, "held_status": None, "drifted": True}),
        number(held_fingerprint=None, **{**held, "held_status": None, "drifted": None, "read_back_msg": "HTTP 405."}),
    ]
    told = info(*rows, expected=K1)
    told["summary"]["by_state"]["drifted"] = 2
    lines = list(csv.DictReader(io.StringIO(as_csv(told))))
    assert [(line["state"], line["held_fingerprint"], line["msg"], line["read_back_msg"]) for line in lines] == [
        ("confirmed", K1, "", ""),
        ("drifted", K2, f"The number carries {K2}.", ""),
        ("drifted", "", "The number carries no key.", ""),
        ("confirmed", "", "", "HTTP 405."),
    ]
    document = json.loads(as_json(told, "Title", []))
    assert document["numbers"][1]["held_fingerprint"] == K2 and document["summary"]["by_state"]["drifted"] == 2
    shown = describe_page(told, [], "p {}", "run()")
    assert {"kind": "drifted", "count": 2}.items() <= shown["parts"][1].items()
    # Without read-back the files are as they were.
    assert "held_fingerprint" not in as_csv(info(number())) and "drifted" not in as_json(info(number()), "Title", [])


OWN = {"inventory_hostname": "+919876543210"}


@pytest.mark.parametrize(
    ("name", "given", "numbers"),
    [
        *(("+919876543211", None, ["+919876543211"]), ("919876543211", None, ["919876543211"])),
        *(("192.168.100.10", None, []), ("shops", None, []), ("shops", [], []), ("+919876543211", "", ["+919876543211"])),
        *(("shops", [91987, "+39 333"], ["91987", "+39 333"]), ("shops", " +1\n+2, +3;\r\n", ["+1", "+2", "+3"])),
    ],
)
def test_numbers_of_a_host(name: str, given: Any, numbers: list[str]) -> None:
    host = {"inventory_hostname": name, **({} if given is None else {"flows_encryption_phone_numbers": given})}
    assert describe_play([OWN, host], OWN)["phone_numbers"] == ["+919876543210", *numbers]


def test_own_variables_replace_those_of_the_inventory() -> None:
    own = {**OWN, "flows_encryption_phone_numbers": ["+1"], "flows_encryption_endpoint_verification": {"url": "https://a/", "active": True}}
    play = describe_play([OWN, {"inventory_hostname": "shops"}], own)
    assert play["phone_numbers"] == ["+1"]
    assert [endpoint["url"] for endpoint in play["endpoints"]] == ["https://a/"]


@pytest.mark.parametrize(
    ("own", "path"),
    [
        ({"flows_encryption_private_key_path": "/k/private.pem"}, "/k/private.pub.pem"),
        ({"flows_encryption_private_key_path": "/k.d/private"}, "/k.d/private.pub.pem"),
        ({"flows_encryption_private_key_path": "/k/a", "flows_encryption_public_key_path": "/k/b.pem"}, "/k/b.pem"),
    ],
)
def test_path_of_the_shared_key(own: dict[str, Any], path: str) -> None:
    assert describe_play([OWN], {**OWN, **own})["key"] == {"host": "localhost", "path": path, "text": ""}


def test_key_is_shown_if_all_hosts_share_it() -> None:
    path, other = {"flows_encryption_private_key_path": "/k/private.pem"}, {"inventory_hostname": "+1"}
    for others_path, public in (("/k/other.pem", ""), ("/k/private.pem", "/k/private.pub.pem")):
        hosts = [{**OWN, **path}, {**other, "flows_encryption_private_key_path": others_path}]
        assert describe_play(hosts, {**OWN, **path})["key"]["path"] == public


def test_endpoints_are_listed_once_without_secrets() -> None:
    verification = {"url": "https://user:pass@a:8443/e?token=t\n#f", "active": True, "latency_ms": 3, "fingerprint": K1, "app_secret": "s"}
    hosts = [{"inventory_hostname": name, "flows_encryption_endpoint_verification": verification} for name in ("a", "b")]
    assert describe_play(hosts, OWN)["endpoints"] == [{"url": "https://a:8443/e", "active": True, "latency_ms": 3, "fingerprint": K1}]


def test_csv_has_no_formulas() -> None:
    rows = [number(api=api, sid=sid) for api, sid in (("=cmd()", "-1"), ('@x"y', "S"), ("\t\nx", "\rx"), ("+1+1", "+1"))]
    text = as_csv(info(*rows, expected=K2))
    assert text.startswith("phone_number,api,sid,state,fingerprint,since,as_expected,msg\r\n") and text.endswith("\r\n")
    read = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [(row["api"], row["sid"]) for row in read] == [("'=cmd()", "'-1"), ("'@x\"y", "S"), ("'\t\nx", "'\rx"), ("'+1+1", "+1")]
    assert {(row["phone_number"], row["as_expected"], row["msg"]) for row in read} == {(NUMBER, "false", "")}


def test_json_has_one_line_for_each_number_and_no_ages() -> None:
    rows = [number(), number("absent", api=None), number("unconfirmed", since="2020-01-01T00:00:00Z"), number(since="2026-02-01T00:00:00Z")]
    text = as_json(info(*rows), 'A "title"', [{"url": "https://a/"}])
    read = json.loads(text)
    assert (read["title"], read["fingerprint"], read["endpoints"]) == ('A "title"', None, [{"url": "https://a/"}])
    assert (read["oldest_confirmation"], read["newest_confirmation"]) == ("2026-01-31T10:20:30Z", "2026-02-01T00:00:00Z")
    assert len(read["numbers"]) == sum("phone_number" in line for line in text.splitlines()) == 4
    assert "age" not in read["numbers"][0]
    assert json.loads(as_json(info(), "", []))["numbers"] == []


@pytest.mark.parametrize(
    ("numbers", "expected", "kind", "said"),
    [
        ([], K1, "none", "There are no records. Nothing has been registered with this folder of records."),
        ([number()], K1, "good", "The one number carries the expected key."),
        ([number(), number()], K1, "good", "All 2 numbers carry the expected key."),
        ([number(), number("absent")], K1, "bad", "1 of 2 numbers is not confirmed to carry the expected key. It comes first below."),
        ([number(), number("unconfirmed")], K2, "bad", "2 of 2 numbers are not confirmed to carry the expected key. They come first below."),
        ([number()], None, "good", "The one number has a confirmed key. No key is expected."),
        ([number()] * 1000, None, "good", "All 1,000 numbers have a confirmed key. No key is expected."),
        ([number(), number("absent")], None, "bad", "1 of 2 numbers has no confirmed key. It comes first below. No key is expected."),
    ],
)
def test_verdict(numbers: list[dict[str, Any]], expected: str | None, kind: str, said: str) -> None:
    verdict = page(*numbers, expected=expected)["verdict"]
    assert (verdict["kind"], f"{verdict['sentence']} {verdict['detail']}".strip()) == (kind, said)


def test_tiles_and_parts_with_an_expected_key() -> None:
    shown = page(*[number()] * 5000, number(fingerprint=K2), number("absent"), number("unreadable"), expected=K1)
    assert [(tile["label"], tile["count"], tile["attention"]) for tile in shown["tiles"]] == [
        ("Numbers", 5003, False),
        ("Expected key", 5000, False),
        ("Another key", 1, True),
        ("Not confirmed", 2, True),
    ]
    parts = shown["parts"]
    assert [(part["kind"], part["count"], part["share"]) for part in parts] == [
        ("ok", 5000, ">99.9"),
        ("key0", 1, "<0.1"),
        ("unreadable", 1, "<0.1"),
        ("absent", 1, "<0.1"),
    ]
    # One beside the other, none too narrow to be seen.
    assert [part["x"] for part in parts] == [0, *(part["x"] + part["width"] for part in parts[:-1])]
    assert min(part["width"] for part in parts) == 12 and sum(part["width"] for part in parts) == shown["width"]
    assert page(*[number()] * 9999, number("absent"), expected=K1)["parts"][0]["share"] == ">99.9"


def test_parts_of_missing_and_of_many_keys() -> None:
    first = page(number(fingerprint=K2), expected=K1)["parts"][0]
    assert (first["key"], first["count"], first["width"]) == (K1, 0, 0)
    keys = [f"{i:02x}:{K1[3:]}" for i in range(12)]
    parts = page(*[number(fingerprint=key) for key in keys for dummy in range(2)])["parts"]
    assert [part["label"] for part in parts] == ["Key"] * 8 + ["4 further keys"]
    assert (parts[-1]["key"], parts[-1]["count"], parts[-1]["share"]) == (None, 8, "33.3")


def test_without_scripts_the_first_hundred_are_listed() -> None:
    listed = page(*[number("absent")] * 150, number(), expected=K1)["listed"]
    assert listed["total"] == 150 and len(listed["first"]) == 100
    assert {row["state"] for row in listed["first"]} == {"absent"}


def test_data_of_the_table_cannot_end_its_element() -> None:
    rows = [number(api="</script><!--"), number(fingerprint=K2), number("unreadable", msg="<b>")]
    text = page(*rows, expected=K2)["data"]
    assert "<" not in text
    data = json.loads(text)
    assert data["values"]["fingerprint"] == [K2, K1, None] and data["places"]["fingerprint"] == [1, 0, 2]
    assert data["values"]["api"][data["places"]["api"][0]] == "</script><!--"
    assert data["msg"][2] == "<b>" and data["number"] == [NUMBER] * 3


def test_hashes_are_what_a_policy_wants() -> None:
    expected = base64.b64encode(hashlib.sha256(b"p {}").digest()).decode()
    assert page()["hashes"]["style"] == f"sha256-{expected}" != page()["hashes"]["script"]
