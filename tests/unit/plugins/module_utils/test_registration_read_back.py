# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Registrations that read back what numbers carry: the table of reasons, and what is sent and recorded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._held_key import HeldKey
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._read_back_plan import plan_from_held
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._registration import Plan
from support.processes import Key
from support.read_back import KALEYRA, META, REFUSED, ROWS, World
from support.simulator.client import Simulator

WANTED, OTHER, THIRD = (":".join([digits] * 32) for digits in ("a0", "b1", "c2"))
# Held: the wanted key, the wanted one with a mismatch, another one, none.
HELD = (HeldKey(WANTED, "valid"), HeldKey(WANTED, "mismatch"), HeldKey(OTHER, "valid"), HeldKey())


@pytest.mark.parametrize(
    ("record", "reasons"),
    [
        (Plan("absent"), ("up_to_date", "mismatch", "different", "absent")),
        (Plan("up_to_date", WANTED), ("up_to_date", "mismatch", "drifted", "drifted")),
        (Plan("expired", WANTED), ("expired", "mismatch", "drifted", "drifted")),
        (Plan("forced", WANTED), ("forced", "mismatch", "drifted", "drifted")),
        (Plan("different", THIRD), ("up_to_date", "mismatch", "different", "absent")),
        (Plan("unconfirmed"), ("up_to_date", "mismatch", "different", "absent")),
        (Plan("unreadable", None, "ignored"), ("up_to_date", "mismatch", "different", "absent")),
    ],
    ids=lambda value: getattr(value, "reason", ""),
)
def test_every_record_with_every_held_key(record: Plan, reasons: tuple[str, ...]) -> None:
    force = record.reason == "forced"
    rows = [*zip(HELD, reasons), (HeldKey(WANTED), reasons[0]), (HeldKey(OTHER, "mismatch"), reasons[2])]
    for held, reason in rows:
        plan = plan_from_held(record, held, WANTED, force=force)
        assert (plan.reason, plan.previous_fingerprint, plan.changed) == (reason, held.fingerprint, reason != "up_to_date")
        if reason == "drifted":
            assert plan.warning and (OTHER if held.fingerprint else "no key") in plan.warning
        else:
            assert plan.warning is None
    # Where it could not be read, the record counts.
    plan = plan_from_held(record, HeldKey(unknown="HTTP 405."), WANTED, force=force)
    assert plan._replace(warning=None) == record._replace(warning=None)
    assert plan.warning and "HTTP 405." in plan.warning and (record.warning or "") in plan.warning
    assert plan_from_held(record, HeldKey(WANTED), WANTED, force=True).reason == "forced"


@pytest.fixture
def world(
    simulator: Simulator, tmp_path: Path, params: Callable[..., dict[str, Any]], public_pem: Callable[[str], str], fingerprint: Callable[[str], str]
) -> World:
    kinds = {"wanted": "rsa-2048", "other": "other-rsa-2048", "third": "rsa-2048-exponent-3"}
    keys = {name: Key(public_pem(kind), fingerprint(kind)) for name, kind in kinds.items()}
    numbers = {f"+9198765432{place:02}": row for place, row in enumerate(ROWS)}
    return World(simulator, tmp_path / "records", keys, numbers, params)


@pytest.mark.parametrize("source", [META, KALEYRA], ids=["meta", "kaleyra"])
def test_every_row_of_the_table(source: dict[str, Any], world: World) -> None:
    if source is KALEYRA:  # a key that is gone cannot be distinguished from an answer of another kind
        world.numbers = {number: row for number, row in world.numbers.items() if row.held != "none"}
    world.prepare()
    before = {path.name: path.read_bytes() for path in world.cache.iterdir()}
    checked = {number: world.register(phone_number=number, check_mode=True, **source) for number in world.numbers}
    assert {path.name: path.read_bytes() for path in world.cache.iterdir()} == before
    sent = world.simulator.methods()["POST"]
    done, again = ({number: world.register(phone_number=number, **source) for number in world.numbers} for dummy in range(2))
    for number in world.numbers:
        world.assert_row(number, checked[number], done[number], again[number])
    assert world.simulator.methods()["POST"] - sent == sum(result["changed"] for result in done.values())


def test_list_needs_one_look_up(world: World) -> None:
    world.prepare()
    count, numbers = world.simulator.count(), list(world.numbers)
    check = world.register(phone_numbers=numbers, check_mode=True, **META)
    assert world.simulator.count() - count == len(numbers) + 1  # one page for all
    real = world.register(phone_numbers=numbers, **META)
    rows = [(row.reason, row.reason != "up_to_date") for row in world.numbers.values()]
    for result in (check, real):
        assert [(each["reason"], each["changed"]) for each in result["numbers"]] == rows
    before = world.simulator.methods()
    again = world.register(phone_numbers=numbers, **META)
    assert not again["changed"] and again["attempts"] == len(numbers) + 1
    assert world.simulator.methods() == {**before, "GET": before["GET"] + len(numbers) + 1}


def test_required_and_unreadable_number_is_not_registered(world: World) -> None:
    numbers = list(world.numbers)[:3]
    world.simulator.faults({number: [REFUSED] for number in numbers[:2]})
    listed = world.register(phone_numbers=numbers, read_back_required=True, **META)
    alone = world.register(phone_number=numbers[0], read_back_required=True, **META)
    for result in (*listed["numbers"][:2], alone):
        assert result["failed"] and "read_back_required" in result["msg"] and "Meta's error 190" in result["msg"] and not result["changed"]
    assert listed["numbers"][2]["changed"] and listed["numbers"][2]["verified"]
    ((held),) = world.simulator.registered().values()
    assert held == {numbers[2]: world.keys["wanted"].fingerprint}


def test_key_becomes_visible_late_or_never(world: World) -> None:
    first, second, never = list(world.numbers)[:3]
    world.simulator.configure(visible_after=1)
    result = world.register(phone_numbers=[first, second], concurrency=1, timeout=20, **META)
    for number in result["numbers"]:
        assert number["verified"] is True and number["attempts"] > 3 and world.record(number["phone_number"])["state"] == "confirmed"
    # While it waits for the first, its one thread registers the second.
    sent = [(request["method"], request["phone_number"]) for request in world.simulator.requests()]
    assert sent.index(("POST", second)) < len(sent) - sent[::-1].index(("GET", first))
    world.simulator.configure(visible_after=600)
    result = world.register(phone_number=never, timeout=1, **META)
    assert (result["failed"], result["outcome"], result["verified"], result["changed"]) == (True, "unknown", False, False)
    assert "still carries no key" in result["msg"] and world.record(never)["state"] == "unconfirmed"


def test_refusal_leaves_what_is_held_on_record(world: World) -> None:
    """Where a number drifted, and its registration is refused."""
    world.numbers = {number: row for number, row in world.numbers.items() if row.reason == "drifted"}
    world.prepare()
    other, none = world.numbers
    world.simulator.faults({number: [{"do": "answer", "status": 400, "method": "POST"}] for number in world.numbers})
    for number in world.numbers:
        result = world.register(phone_number=number, **META)
        assert (result["outcome"], result["reason"]) == ("rejected", "drifted")
    assert (world.record(other)["fingerprint"], world.record(other)["state"]) == (world.keys["other"].fingerprint, "confirmed")
    assert not list(world.cache.glob(f"*{none}.json"))


def test_force_reads_only_what_it_needs(world: World) -> None:
    number = next(iter(world.numbers))
    given = {**META, "meta_waba_ids": None, "meta_phone_number_ids": {number: 2_000_001}, "force": True}
    assert world.register(phone_number=number, **given)["verified"] is True
    assert world.requests(number) == ["POST", "GET"]
    result = world.register(phone_number=number, read_back_required=True, **given)
    assert (result["reason"], result["verified"]) == ("forced", True)
    assert world.requests(number)[2:] == ["GET", "POST", "GET"]


def test_unusable_cache_path_fails_in_check_mode_too(world: World) -> None:
    for check_mode in (True, False):
        result = world.register(phone_number=next(iter(world.numbers)), cache_path="/dev/null", check_mode=check_mode, **META)
        assert result["failed"] and "cache_path /dev/null" in result["msg"] and not result["changed"]
    assert world.simulator.methods().get("POST", 0) == 0
