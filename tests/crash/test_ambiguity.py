# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Answers that are lost or refused, in every order that matters: one table for the core and for both execution modes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from support.playbook_runs import EXECUTION_MODES, LOST, RBC001, SID, WA_200, WA_400, WA_500, Playbooks, Run, assert_execution_mode
from support.processes import Key, options, register
from support.simulator.client import Simulator

# What the API does with one request, besides WA_200, LOST (applied, and the answer lost) and refusals.
NOT_READ: dict[str, Any] = {"do": "reset", "unread": True}
"""Not applied, but who sent it cannot know."""
WA_500_APPLIED: dict[str, Any] = {**WA_500, "apply": True}
UNCONFIRMED_200: dict[str, Any] = {**WA_200, "body": {"code": "WA-200", "data": {"success": "true"}}}
BUSY: dict[str, Any] = {"do": "answer", "status": 429, "headers": {"Retry-After": "0"}}


@dataclasses.dataclass(frozen=True)
class Step:
    """One run of the task.

    :param key: 1, 2 or 3: the key that is wanted
    :param answers: what each request meets; no more and no fewer requests may come
    :param outcome: of a failure, ``unknown`` or ``rejected``
    :param known: 1, 2 or 3: the key whose fingerprint the caller gives in ``known_fingerprint``
    """

    key: int
    reason: str
    answers: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    outcome: str | None = None
    previous: int | None = None
    known: int | None = None
    retries: int = 0
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


def settled(key: int) -> list[Step]:
    """After a success: it counts, nothing is sent."""
    return [Step(key, "up_to_date", previous=key)]


def registered_again(key: int) -> list[Step]:
    return [Step(key, "unconfirmed", [WA_200]), *settled(key)]


K1 = Step(1, "absent", [WA_200])
K2_LOST = Step(2, "different", [LOST], "unknown", previous=1)
K2_DENIED = Step(2, "different", [RBC001], "rejected", previous=1)
K2_AGAIN_DENIED, K3_DENIED = (Step(key, "unconfirmed", [RBC001], "rejected") for key in (2, 3))
FORCED, EXPIRED = {"force": True}, {"cache_valid_time": 0}  # which makes every record an old one


def tried(*answers: dict[str, Any], outcome: str = "unknown", retries: int = 1) -> Step:
    """K2 in one run of several attempts, K1 being registered."""
    return Step(2, "different", list(answers), outcome, previous=1, retries=retries)


SCENARIOS: dict[str, list[Step]] = {
    "K1; K2 lost; back to K1 must register": [K1, K2_LOST, *registered_again(1)],
    "K1; K2 never read; back to K1 must register": [K1, Step(2, "different", [NOT_READ], "unknown", previous=1), *registered_again(1)],
    "K1; K2 lost; K2 again must register": [K1, K2_LOST, *registered_again(2)],
    "K1; K2 refused; K1 still counts": [K1, K2_DENIED, *settled(1)],
    "K1; K2 refused twice, each in its own way; K1 still counts, K2 must register": [
        K1, K2_DENIED, Step(2, "different", [WA_400], "rejected", previous=1),
        *settled(1), Step(2, "different", [WA_200], previous=1), *settled(2),
    ],
    "K1; K2 lost; K3 refused; K2 must register": [K1, K2_LOST, K3_DENIED, *registered_again(2)],
    "K1; K2 lost; K3 refused; K1 must register": [K1, K2_LOST, K3_DENIED, *registered_again(1)],
    "K1; K2 lost; K2 refused; K2 must register": [K1, K2_LOST, K2_AGAIN_DENIED, *registered_again(2)],
    "K1; K2 lost; K3 lost; K1 must register": [K1, K2_LOST, Step(3, "unconfirmed", [LOST], "unknown"), *registered_again(1)],
    "K1; K2 refused; K3 lost; K1 must register": [
        K1, K2_DENIED, Step(3, "different", [LOST], "unknown", previous=1), *registered_again(1),
    ],
    "nothing; K1 refused; K1 must register as before": [Step(1, "absent", [RBC001], "rejected"), K1, *settled(1)],
    "nothing; K1 lost; K1 must register": [Step(1, "absent", [LOST], "unknown"), *registered_again(1)],
    "nothing; K1 lost; K2 refused; K1 must register": [Step(1, "absent", [LOST], "unknown"), K2_AGAIN_DENIED, *registered_again(1)],
    # --- several attempts in one run
    "K1; K2 lost, then denied: unknown, K1 must register": [K1, tried(LOST, RBC001, retries=2), *registered_again(1)],
    "K1; K2 500 but applied, then denied: unknown, K1 must register": [K1, tried(WA_500_APPLIED, RBC001), *registered_again(1)],
    "K1; K2 throttled, then denied: rejected, K1 still counts": [K1, tried(BUSY, RBC001, outcome="rejected"), *settled(1)],
    "K1; K2 throttled, then lost: unknown, K1 must register": [K1, tried(BUSY, LOST), *registered_again(1)],
    "K1; K2 lost, then fine: settled": [K1, Step(2, "different", [LOST, WA_200], previous=1, retries=1), *settled(2)],
    "K1; K2 500 for good: unknown, K1 must register": [K1, tried(WA_500, retries=0), *registered_again(1)],
    "K1; K2 200 without success: unknown and not tried again, K1 must register": [
        K1, tried(UNCONFIRMED_200, retries=3), *registered_again(1),
    ],
    # --- known_fingerprint: the caller is the record, so he has to keep what the record would keep. After success, the result's
    # fingerprint. After `rejected`, what he knew. After `unknown`, nothing: he must ask for force until a run succeeds. The
    # step "what is told is believed" is what happens to the caller who does not.
    "caller: K1 known; K2 refused; K1 still counts": [
        Step(2, "different", [RBC001], "rejected", previous=1, known=1), Step(1, "up_to_date", previous=1, known=1),
    ],
    "caller: K1 known; K2 lost; K1 by force": [
        Step(2, "different", [LOST], "unknown", previous=1, known=1),
        Step(1, "forced", [WA_200], previous=1, known=1, options=FORCED), Step(1, "up_to_date", previous=1, known=1),
    ],
    "caller: K1 known; K2 lost; K2 again must register": [
        Step(2, "different", [LOST], "unknown", previous=1, known=1), Step(2, "different", [WA_200], previous=1, known=1),
        Step(2, "up_to_date", previous=2, known=2),
    ],
    "caller: K1 known; K2 lost; what is told is believed": [
        Step(2, "different", [LOST], "unknown", previous=1, known=1), Step(1, "up_to_date", previous=1, known=1),
    ],
    "caller: K1 known; K2 lost, then denied: unknown": [
        Step(2, "different", [LOST, RBC001], "unknown", previous=1, known=1, retries=1),
        Step(1, "forced", [WA_200], previous=1, known=1, options=FORCED),
    ],
    # Leaving known_fingerprint out is not enough where a record of earlier days stands: it was not touched, and counts again.
    "caller: an earlier record, not touched by what he tells, is believed when he tells no more": [
        K1, Step(2, "different", [LOST], "unknown", previous=3, known=3), *settled(1),
    ],
    "caller: what he knows does not age": [Step(1, "up_to_date", previous=1, known=1, options=EXPIRED)],
    # --- cache_valid_time
    "K1 expired; K2 refused; K1 is as expired as before, and counts without the limit": [
        K1, Step(2, "different", [RBC001], "rejected", previous=1, options=EXPIRED),
        Step(1, "expired", [RBC001], "rejected", previous=1, options=EXPIRED), *settled(1),
    ],
    "K1 expired; K1 lost; K1 must register, limit or not": [
        K1, Step(1, "expired", [LOST], "unknown", previous=1, options=EXPIRED),
        Step(1, "unconfirmed", [LOST], "unknown", options={"cache_valid_time": 10**6}), *registered_again(1),
    ],
    "K1 expired; K2 lost; K1 must register": [
        K1, Step(2, "different", [LOST], "unknown", previous=1, options=EXPIRED), *registered_again(1),
    ],
    # --- force
    "K1; K1 forced and refused; K1 still counts": [
        K1, Step(1, "forced", [RBC001], "rejected", previous=1, options=FORCED), *settled(1),
    ],
    "K1; K1 forced and lost; K1 must register": [
        K1, Step(1, "forced", [LOST], "unknown", previous=1, options=FORCED), *registered_again(1),
    ],
    "K1; K2 forced and lost; K1 must register": [
        K1, Step(2, "different", [LOST], "unknown", previous=1, options=FORCED), *registered_again(1),
    ],
    "K1; K2 lost; K2 forced and refused; K2 must register": [
        K1, K2_LOST, Step(2, "unconfirmed", [RBC001], "rejected", options=FORCED), *registered_again(2),
    ],
}

BELIEVED = {name for name in SCENARIOS if "is believed" in name}


@pytest.fixture(scope="module")
def keys() -> dict[int, Key]:
    return {number: Key.make() for number in (1, 2, 3)}


NUMBERS = {name: f"+{919_700_000_000 + index}" for index, name in enumerate(SCENARIOS)}


def orders(names: list[str]) -> dict[str, list[dict[str, Any]]]:
    """The API's misbehaviour in all steps, one request after the other."""
    return {NUMBERS[name]: [answer for step in SCENARIOS[name] for answer in step.answers] for name in names}


def task_options(step: Step, keys: dict[int, Key]) -> dict[str, Any]:
    known = {"known_fingerprint": keys[step.known].fingerprint} if step.known else {}
    return {"business_public_key": keys[step.key].public, "retries": step.retries, **known, **step.options}


def assert_step(step: Step, result: dict[str, Any], keys: dict[int, Key]) -> None:
    seen = {name: result.get(name) for name in ("reason", "attempts", "outcome", "previous_fingerprint", "fingerprint", "changed")}
    assert seen == {
        "reason": step.reason,
        "attempts": len(step.answers),
        "outcome": step.outcome,
        "previous_fingerprint": keys[step.previous].fingerprint if step.previous else None,
        "fingerprint": keys[step.key].fingerprint,
        "changed": bool(step.answers) and not step.outcome,
    }, result
    assert bool(result.get("failed")) == bool(step.outcome)


def assert_end(name: str, simulator: Simulator, keys: dict[int, Key]) -> None:
    """Whatever the last step left to be believed is so."""
    last, sent = SCENARIOS[name][-1], [step for step in SCENARIOS[name] if WA_200 in step.answers or LOST in step.answers]
    held = simulator.registered().get(SID, {}).get(NUMBERS[name])
    if last.reason == "up_to_date" and sent and not last.known and not any(step.known for step in SCENARIOS[name]):
        assert held == keys[last.key].fingerprint
    if name in BELIEVED:
        assert held == keys[2].fingerprint  # though the last run found K1 in place, on the caller's word


@pytest.mark.parametrize("name", SCENARIOS)
def test_ambiguity_by_the_core(name: str, simulator: Simulator, keys: dict[int, Key], tmp_path: Path) -> None:
    simulator.faults(orders([name]))
    sent = 0
    for step in SCENARIOS[name]:
        given = task_options(step, keys)
        params = options(simulator.url, tmp_path / "records", NUMBERS[name], given.pop("business_public_key"), **given)
        # A rehearsal gives the same reason, and does nothing.
        rehearsed = register(params, check_mode=True)
        assert (rehearsed["reason"], rehearsed["changed"], rehearsed["attempts"]) == (step.reason, bool(step.answers), 0)
        assert simulator.count() == sent
        assert_step(step, register(params), keys)
        sent += len(step.answers)
        assert simulator.count() == sent
    assert_end(name, simulator, keys)
    if all(step.known for step in SCENARIOS[name]):
        assert not (tmp_path / "records").exists()  # what the caller knows is kept by him alone


# The core is the same in both modes.
IN_BOTH_MODES = [
    "K1; K2 lost, then denied: unknown, K1 must register",
    "caller: K1 known; K2 lost; K1 by force",
    "K1 expired; K1 lost; K1 must register, limit or not",
]


@pytest.mark.parametrize("mode", EXECUTION_MODES)
def test_ambiguity_in_each_mode(mode: str, tmp_path: Path, simulator: Simulator, keys: dict[int, Key]) -> None:
    """A host for each scenario, a task for each step."""
    scenarios = {NUMBERS[name]: SCENARIOS[name] for name in IN_BOTH_MODES}
    simulator.faults(orders(IN_BOTH_MODES))
    playbooks = Playbooks(tmp_path, simulator.url)
    hosts = {
        number: {"ansible_connection": "local", "steps": [task_options(step, keys) for step in steps]} for number, steps in scenarios.items()
    }
    optional = ("known_fingerprint", "cache_valid_time", "force")
    tasks = [
        playbooks.task(
            f"step {index}",
            mode,
            {"when": f"steps | length > {index}", "ignore_errors": True},
            phone_number="{{ inventory_hostname }}",
            business_public_key=f"{{{{ steps[{index}].business_public_key }}}}",
            retries=f"{{{{ steps[{index}].retries }}}}",
            cache_path=str(tmp_path / "records"),
            **{option: f"{{{{ steps[{index}].{option} | default(omit) }}}}" for option in optional},
        )
        for index in range(max(map(len, scenarios.values())))
    ]
    play = [{"hosts": "all", "gather_facts": False, "tasks": tasks}]
    run: Run = playbooks.run(play, {"all": {"hosts": hosts}}, "-f", "8")
    for index in range(len(tasks)):
        results = run.by_host(f"step {index}")
        assert set(results) == {number for number, steps in scenarios.items() if len(steps) > index}
        for number, result in results.items():
            assert_step(scenarios[number][index], result, keys)
    assert_execution_mode(run, mode)
    assert simulator.count() == sum(len(step.answers) for steps in scenarios.values() for step in steps)
    for name in IN_BOTH_MODES:
        assert_end(name, simulator, keys)
