# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan of a rotation, and what keeps a key from being promoted or removed, as tables."""

from __future__ import annotations

import re
from typing import Any

import pytest
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._errors import InvalidInput
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._rotation import (
    Keys,
    KnownNumber,
    KnownRecord,
    Plan,
    Policy,
    describe_plan,
    endpoint_stops,
    find_obstacles,
    known_numbers,
    make_plan,
    pair_leader,
    parse_duration,
)

A, B, C = "aa:11", "bb:22", "cc:33"
DAY = 86400
NOW = 1_800_000_000.0
WEEK_OLD: dict[str, Any] = {"current_since": NOW - 7 * DAY, "previous_since": NOW - 7 * DAY}
YOUNG: dict[str, Any] = {"current_since": NOW - 60, "previous_since": NOW - 60}
POLICY = Policy(rotate_after=DAY, keep_previous=7 * DAY)
AT_ONCE = Policy(rotate_after=0, keep_previous=0)
REMOVE = Policy(rotate_after=0, keep_previous=7 * DAY, retire_previous=True)


@pytest.mark.parametrize(
    ("keys", "policy", "action", "target", "other", "retires"),
    [
        (Keys(A, **WEEK_OLD), POLICY, "begin", None, A, False),
        (Keys(A, **WEEK_OLD), AT_ONCE, "begin", None, A, True),
        (Keys(A, **YOUNG), POLICY, "nothing", A, None, False),
        (Keys(A, **YOUNG), AT_ONCE, "begin", None, A, True),
        (Keys(A, current_since=NOW + 60), AT_ONCE, "nothing", A, None, False),  # the clock was ahead
        (Keys(A, current_since=NOW - DAY), POLICY, "begin", None, A, False),
        (Keys(A, current_since=NOW - DAY + 1), POLICY, "nothing", A, None, False),
        (Keys(A, **WEEK_OLD), REMOVE, "nothing", A, None, False),
        # The current key linked as the previous one is not a previous key.
        (Keys(A, previous=A, **WEEK_OLD), POLICY, "begin", None, A, False),
        (Keys(A, next=B, previous=A, **YOUNG), POLICY, "resume", B, A, False),
        (Keys(A, next=B, **YOUNG), POLICY, "resume", B, A, False),
        (Keys(A, next=B, previous=A, **YOUNG), REMOVE, "resume", B, A, True),
        (Keys(A, next=B, previous=A, **YOUNG), AT_ONCE, "resume", B, A, True),
        (Keys(B, next=B, previous=A, **YOUNG), POLICY, "complete", B, A, False),
        (Keys(B, next=B, previous=A, **WEEK_OLD), POLICY, "complete", B, A, True),
        (Keys(B, next=B, **YOUNG), AT_ONCE, "complete", B, None, False),
        (Keys(B, previous=A, **YOUNG), POLICY, "keep", B, A, False),
        (Keys(B, previous=A, **WEEK_OLD), POLICY, "keep", B, A, True),
        (Keys(B, previous=A, previous_since=NOW - 7 * DAY + 1), POLICY, "keep", B, A, False),
        (Keys(B, previous=A, previous_since=NOW + 60), AT_ONCE, "keep", B, A, True),
        (Keys(B, previous=A, **YOUNG), REMOVE, "keep", B, A, True),
    ],
)
def test_plan(keys: Keys, policy: Policy, action: str, target: str | None, other: str | None, retires: bool) -> None:
    plan = make_plan(keys, policy, NOW, "run")
    assert (plan.action, plan.target, plan.other, plan.retires) == (action, target, other, retires)
    assert describe_plan(plan, keys, policy)
    assert Plan.from_result(plan.as_result()) == plan
    as_text = {name: "" if value is None else str(value) for name, value in plan.as_result().items()}
    assert Plan.from_result(as_text) == plan


def test_invalid_keys_or_plan_are_refused() -> None:
    with pytest.raises(InvalidInput, match="both a next and a previous private key"):
        make_plan(Keys(A, next=B, previous=C), POLICY, NOW, "run")
    with pytest.raises(InvalidInput, match="must be the plan that the step plan returned"):
        Plan.from_result({"action": "begin"})


def test_plan_one_rotation_a_run() -> None:
    """What the run planned first for a key pair counts in its further batches and plays: its time, and that it begins one rotation."""
    first = make_plan(Keys(A, **WEEK_OLD), AT_ONCE, NOW, "run")
    assert make_plan(Keys(A, **WEEK_OLD), AT_ONCE, NOW + 1, "batch", first).action == "begin"  # check mode, or nothing staged
    later = make_plan(Keys(B, current_since=NOW), AT_ONCE, NOW + 9, "batch", first)
    assert (later.action, later.now) == ("nothing", NOW)
    nothing = make_plan(Keys(A, current_since=NOW - DAY + 1), POLICY, NOW, "run")
    assert make_plan(Keys(A, current_since=NOW - DAY + 1), POLICY, NOW + 9, "batch", nothing).action == "nothing"
    kept = make_plan(Keys(B, previous=A, previous_since=NOW - 7 * DAY + 1), POLICY, NOW, "run")
    assert not make_plan(Keys(B, previous=A, previous_since=NOW - 7 * DAY + 1), POLICY, NOW + 9, "batch", kept).retires


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        *(("7d", 7 * DAY), ("12h", 43200), ("30m", 1800), ("90s", 90), ("90", 90), (0, 0), (" 2w ", 14 * DAY), ("1 d", DAY), ("0s", 0)),
        *((value, None) for value in ("soon", "", "-1d", "1.5d", "7days", "d", "1d 2h", "9999999999", "٣d")),
    ],
)
def test_duration_is_read_or_refused(value: str | int, seconds: int | None) -> None:
    if seconds is not None:
        assert parse_duration("keep_previous", value) == seconds
    else:
        with pytest.raises(InvalidInput, match=r"keep_previous is .*, but must be a duration such as 7d"):
            parse_duration("keep_previous", value)


ONE, TWO = "+919876543210", "+919876543211"


def number(phone_number: str = ONE, registered: str | None = B, uses_this_pair: bool | None = True) -> KnownNumber:
    return KnownNumber(phone_number, phone_number, registered, uses_this_pair)


@pytest.mark.parametrize(
    ("numbers", "records", "obstacle"),
    [
        ([number()], [], None),
        ([number()], [KnownRecord(ONE, (B,))], None),
        ([number(registered=None)], [KnownRecord(ONE, (B,))], None),  # registered by an earlier batch
        ([number(registered=None)], [], f"numbers without the key in this run: {ONE}"),
        ([number(registered=A)], [], f"numbers without the key in this run: {ONE}"),
        ([number(registered=None)], [KnownRecord(ONE, (C,))], f"numbers without the key in this run: {ONE}"),
        ([number(registered=None)], [KnownRecord(ONE, (B, C))], f"numbers without the key in this run: {ONE}"),
        # Another run has begun to register something else since.
        ([number()], [KnownRecord(ONE, (A, B))], f"may still carry the other key .*: {ONE}"),
        # Numbers outside this run, or of another account.
        ([number()], [KnownRecord(TWO, (A,))], f"may still carry the other key .*: {TWO}"),
        ([number()], [KnownRecord(ONE, (B,)), KnownRecord(ONE, (A,))], f"may still carry the other key .*: {ONE}"),
        ([number()], [KnownRecord(TWO, (C,))], None),
        # An unconfirmed record of a third key: the number may still carry the other one.
        ([number()], [KnownRecord(TWO, (C, A))], f"may still carry the other key .*: {TWO}"),
        ([number()], [KnownRecord(TWO, None)], f"may still carry the other key .*: {TWO}"),
        # Numbers of another pair are judged by their records alone.
        ([number(), number(TWO, None, False)], [], None),
        ([number(), number(TWO, None, False)], [KnownRecord(TWO, (A, C))], f"may still carry the other key .*: {TWO}"),
        ([number(), number(TWO, None, None)], [], f"numbers that this run has not reached, without a record: {TWO}"),
        ([number(), number(TWO, None, None)], [KnownRecord(TWO, (C,))], None),
    ],
)
def test_obstacles(numbers: list[KnownNumber], records: list[KnownRecord], obstacle: str | None) -> None:
    found = find_obstacles(numbers, records, target=B, other=A, limited=False)
    assert bool(found) is (obstacle is not None)
    assert obstacle is None or any(re.search(obstacle.replace("+", r"\+"), text) for text in found), found


def test_obstacles_of_a_limited_run_and_of_many_numbers() -> None:
    (text,) = find_obstacles([number()], [], target=B, other=A, limited=True)
    assert text == "this run is limited (--limit), so it does not cover every number"
    numbers = [number(f"+9198765{place:05}", None) for place in range(2000)]
    (text,) = find_obstacles(numbers, [], target=B, other=A, limited=False)
    assert text.endswith("and 1990 more") and len(text) < 250


PAIRS = [
    {"id": "one", "key_host": "keys", "private_key_path": "/k/private.pem"},
    {"id": "two", "key_host": "keys", "private_key_path": "/k/other.pem"},
    {"id": "public key elsewhere", "key_host": "keys", "private_key_path": "/k/private.pem"},
]


def role_plan(shared: bool = True, **hosts: Any) -> dict[str, Any]:
    return {"shared": shared, "pairs": PAIRS, "keys": {"given": {}}, "hosts": hosts}


def planned(pair: str | None = "one", **fields: Any) -> dict[str, Any]:
    return {"pair": pair, "numbers": [ONE], "stop": "", **fields}


@pytest.mark.parametrize(
    ("outcome", "registered"),
    [({}, B), ({"failed": True}, None), ({"verified": False}, None), ({"verified": None}, B), ({"phone_number": TWO}, None)],
    ids=str,
)
def test_known_numbers_registered(outcome: dict[str, Any], registered: str | None) -> None:
    numbers = [{"phone_number": ONE, "fingerprint": B, **outcome}]
    found = known_numbers(role_plan(host=planned()), ["host"], {"host": {"numbers": numbers}}, "one", str)
    assert found == [KnownNumber("host", ONE, registered, True)]


@pytest.mark.parametrize(
    ("pair", "uses_this_pair"),
    [("one", True), ("two", False), ("given", False), ("public key elsewhere", True), (None, None), ("of stopped hosts alone", None)],
)
def test_known_numbers_pair(pair: str | None, uses_this_pair: bool | None) -> None:
    found = known_numbers(role_plan(host=planned(pair)), ["host", "not of this rotation"], {"host": None}, "one", str)
    assert found == [KnownNumber("host", ONE, None, uses_this_pair)]


def test_known_numbers_stopped_host_and_invalid_number() -> None:
    def refuse(text: str) -> str:
        raise InvalidInput(text)

    (found,) = known_numbers(role_plan(web1=planned(None, numbers=[], stop="why")), ["web1"], {}, "one", refuse)
    assert found == KnownNumber("web1", "web1", None, None)


def test_pair_leader() -> None:
    hosts = {"a": planned(stop="why"), "b": planned("two"), "c": planned(), "d": planned()}
    plan = role_plan(True, **hosts)
    names = ["a", "b", "c", "d"]
    assert [pair_leader(plan, names, name) for name in names] == ["", "b", "c", "c"]
    assert pair_leader(plan, ["a", "b", "d"], "d") == "d" and pair_leader(plan, ["a", "b"], "d") == ""
    assert pair_leader(role_plan(shared=False, d=planned()), ["a", "b", "d"], "d") == "d"
    assert pair_leader(plan, names, "unknown") == ""


def test_endpoint_stops() -> None:
    results = [
        {"active": True, "flows_encryption_endpoint": [{"id": "one"}, "key"]},
        {"active": False, "msg": "HTTP 421.", "flows_encryption_endpoint": [{"id": "one"}, "other key"]},
        {"unreachable": True, "flows_encryption_endpoint": [{"id": "two"}, "key"]},
        {"active": True, "flows_encryption_endpoint": [{"id": "three"}, "key"]},
    ]
    assert endpoint_stops({"results": results}) == {
        "one": "HTTP 421. No key was registered in this run.",
        "two": "The endpoint was not verified. No key was registered in this run.",
    }
