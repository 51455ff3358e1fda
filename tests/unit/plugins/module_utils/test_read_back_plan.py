# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._held_key import HeldKey
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._read_back_plan import plan_from_held
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._registration import Plan

WANTED, OTHER, THIRD = (":".join([digits] * 32) for digits in ("a0", "b1", "c2"))

RECORDS = {
    "absent": Plan("absent"),
    "up_to_date": Plan("up_to_date", WANTED),
    "expired": Plan("expired", WANTED),
    "forced": Plan("forced", WANTED),
    "different": Plan("different", THIRD),
    "unconfirmed": Plan("unconfirmed"),
    "unreadable": Plan("unreadable", None, "ignored"),
}
HELD = {
    "valid": HeldKey(WANTED, "valid"),
    "no-status": HeldKey(WANTED),
    "mismatch": HeldKey(WANTED, "mismatch"),
    "other": HeldKey(OTHER, "valid"),
    "other-mismatch": HeldKey(OTHER, "mismatch"),
    "none": HeldKey(),
}
EXPECTED = {
    # record: (held wanted, held other, held none)
    "absent": ("up_to_date", "different", "absent"),
    "up_to_date": ("up_to_date", "drifted", "drifted"),
    "expired": ("expired", "drifted", "drifted"),
    "forced": ("forced", "drifted", "drifted"),
    "different": ("up_to_date", "different", "absent"),
    "unconfirmed": ("up_to_date", "different", "absent"),
    "unreadable": ("up_to_date", "different", "absent"),
}


@pytest.mark.parametrize("held", HELD)
@pytest.mark.parametrize("record", RECORDS)
def test_every_record_with_every_held_key(record: str, held: str) -> None:
    wanted, other, none = EXPECTED[record]
    columns = {"valid": wanted, "no-status": wanted, "mismatch": "mismatch", "other": other, "other-mismatch": other, "none": none}
    plan = plan_from_held(RECORDS[record], HELD[held], WANTED, force=record == "forced")
    assert (plan.reason, plan.previous_fingerprint) == (columns[held], HELD[held].fingerprint)
    assert plan.changed is (plan.reason != "up_to_date")
    if plan.reason == "drifted":
        assert plan.warning and (OTHER if HELD[held].fingerprint else "no key") in plan.warning
    else:
        assert plan.warning is None


@pytest.mark.parametrize("record", RECORDS)
def test_unknown_held_key_leaves_the_record_to_count(record: str) -> None:
    plan = plan_from_held(RECORDS[record], HeldKey(unknown="HTTP 405."), WANTED, force=False)
    assert plan._replace(warning=None) == RECORDS[record]._replace(warning=None)
    assert plan.warning and "HTTP 405." in plan.warning and (RECORDS[record].warning or "") in plan.warning


@pytest.mark.parametrize("record", [record for record in RECORDS if record != "expired"])
def test_force_registers_what_is_carried_already(record: str) -> None:
    assert plan_from_held(RECORDS[record], HeldKey(WANTED), WANTED, force=True).reason == "forced"
