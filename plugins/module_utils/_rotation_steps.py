# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Applies one step of a rotation and returns the task's result."""

from __future__ import annotations

import functools
import time
import typing as t
import uuid

from ._errors import InvalidInput
from ._key_files import KeyFiles
from ._rotation import (
    BEGIN,
    KnownNumber,
    KnownRecord,
    Plan,
    Policy,
    describe_plan,
    find_obstacles,
    in_utc,
    make_plan,
    parse_duration,
)

STEPS = ("plan", "stage", "promote", "clean_up", "retire")
ROTATE_AFTER, KEEP_PREVIOUS = "1d", "7d"


def run_step(params: t.Mapping[str, t.Any], *, check_mode: bool) -> dict[str, t.Any]:
    """Apply the step that the options choose, and return the task's result. In check mode, nothing is written.

    :param params: the module's options
    :raises KaleyraError: an option cannot be used, or a key file is not what it should be; no key file was changed
    """
    step = _Step(params, check_mode)
    steps = {"plan": step.plan, "stage": step.stage, "promote": step.promote, "clean_up": step.clean_up, "retire": step.retire}
    return steps[params["step"]]()


class _Step:
    def __init__(self, params: t.Mapping[str, t.Any], check_mode: bool) -> None:
        self._params = params
        self._check_mode = check_mode
        self._files = KeyFiles(params["private_key_path"], params["public_key_path"] or None, params["private_key_passphrase"] or None)
        self._policy = Policy(
            parse_duration("rotate_after", params["rotate_after"] or ROTATE_AFTER),
            parse_duration("keep_previous", params["keep_previous"] or KEEP_PREVIOUS),
            bool(params["retire_previous"]),
        )

    def plan(self) -> dict[str, t.Any]:
        keys = self._files.read()
        earlier = Plan.from_result(self._params["plan"]) if self._params["plan"] else None
        plan = make_plan(keys, self._policy, time.time(), uuid.uuid4().hex, earlier)
        return self._result(plan, False, describe_plan(plan, keys, self._policy), new_private_key_path=self._files.new_private_key_path)

    def stage(self) -> dict[str, t.Any]:
        before = self._given_plan()
        if self._check_mode:
            return self._result(before, before.action == BEGIN, "The next key would be created and staged." if before.action == BEGIN else "")
        staged = self._files.stage(before)
        message = f"The next key is staged as {self._files.next.private}." if staged.stages else "The key files are as planned."
        return self._result(staged, before.action == BEGIN, message)

    def promote(self) -> dict[str, t.Any]:
        plan = self._given_plan()
        if self._check_mode:
            obstacles = self._expected_obstacles(plan)
            message = "Once every number carries the next key, it would replace the current key." if plan.stages else ""
            return self._result(plan, plan.stages and not obstacles, message, obstacles=obstacles, retires=False)
        changed, obstacles = self._files.promote(plan, self._obstacles)
        if obstacles:
            message = (
                f"The next key is not promoted yet, and the endpoint still needs both keys: {'; '.join(obstacles)}. "
                "Correct this and run it again."
            )
        elif plan.stages:
            message = f"The next key is promoted: it is now {self._files.current.private}."
        else:
            message = "Every number of this run carries the current key."
        keys = self._files.read()
        retires = plan.retires and keys.kept is not None and not self._files.retirement_obstacles(keys, self._obstacles)
        return self._result(plan, changed, message, obstacles=obstacles, retires=retires)

    def clean_up(self) -> dict[str, t.Any]:
        plan = self._given_plan()
        changed = False if self._check_mode else self._files.clean_up(plan)
        return self._result(plan, changed, "The current key's other names are removed." if changed else "")

    def retire(self) -> dict[str, t.Any]:
        plan = self._given_plan()
        obstacles: list[str] = []
        changed = False
        if self._check_mode:
            if plan.retires:
                obstacles = self._expected_obstacles(plan)
                changed = not obstacles
        else:
            changed, obstacles = self._files.retire(plan, self._obstacles)
        keys = self._files.read()
        if changed:
            message = "The previous key would be removed." if self._check_mode else "The previous key is removed."
        elif obstacles:
            message = f"The previous key is not removed yet: {'; '.join(obstacles)}."
        elif keys.kept:
            until = in_utc(keys.previous_since + self._policy.keep_previous)
            message = f"The previous key is kept as {self._files.previous.private} until {until}. Run it again then to remove it."
        else:
            message = ""
        return self._result(plan, changed, message, obstacles=obstacles)

    def _given_plan(self) -> Plan:
        if not self._params["plan"]:
            raise InvalidInput(f"plan is missing: the step {self._params['step']} needs the plan that the previous step returned.")
        return Plan.from_result(self._params["plan"])

    def _obstacles(self, target: str, other: str) -> list[str]:
        limited = bool(self._params["limited"])
        return find_obstacles(self._numbers, self._records, target=target, other=other, limited=limited)

    def _expected_obstacles(self, plan: Plan) -> list[str]:
        """Return what check mode can predict: the numbers of this run would carry the target, and their records would confirm it."""
        if plan.target is None:
            return self._obstacles_of_limit()
        registered = {number.phone_number for number in self._numbers if number.registered == plan.target}
        records = [record for record in self._records if record.phone_number not in registered]
        return find_obstacles(
            self._numbers, records, target=plan.target, other=plan.other or "", limited=bool(self._params["limited"])
        )

    def _obstacles_of_limit(self) -> list[str]:
        return find_obstacles([], [], target="", other="", limited=bool(self._params["limited"]))

    @functools.cached_property
    def _numbers(self) -> list[KnownNumber]:
        return [KnownNumber(**number) for number in self._params["numbers"] or ()]

    @functools.cached_property
    def _records(self) -> list[KnownRecord]:
        return [
            KnownRecord(record["phone_number"], None if record["possible"] is None else tuple(record["possible"]))
            for record in self._params["records"] or ()
        ]

    def _result(self, plan: Plan, changed: bool, message: str, **further: t.Any) -> dict[str, t.Any]:
        return {
            "changed": changed,
            "plan": plan.as_result(),
            "public_key": self._files.public_pem(plan.target),
            "other_public_key": self._files.public_pem(plan.other) if plan.other else "",
            "private_key_paths": self._files.paths(),
            "msg": message,
            **further,
        }
