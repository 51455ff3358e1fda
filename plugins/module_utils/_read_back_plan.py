# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plans from the key that a number carries, if it could be read."""

from __future__ import annotations

import typing as t

from ._held_key import HeldKey

if t.TYPE_CHECKING:
    from ._registration import Plan


def plan_from_held(plan: Plan, held: HeldKey, fingerprint: str, *, force: bool) -> Plan:
    """Return the plan from the key that the number carries, or if it could not be read, the plan from the record with a warning.

    :param plan: made from the record
    :param fingerprint: of the wanted key
    """
    if held.unknown:
        unread = f"The key that the number carries could not be read, so the record is used: {held.unknown}"
        return plan._replace(warning=" ".join(filter(None, [plan.warning, unread])))
    if held.carries(fingerprint):
        reason = "forced" if force else "expired" if plan.reason == "expired" else "up_to_date"
        return plan._replace(reason=reason, previous_fingerprint=fingerprint, warning=None)
    if held.fingerprint == fingerprint:
        return plan._replace(reason="mismatch", previous_fingerprint=fingerprint, warning=None)
    if plan.reason in ("up_to_date", "forced", "expired"):
        carried = f"the key {held.fingerprint}" if held.fingerprint else "no key"
        warning = f"The wanted key is on record, but the number carried {carried}. The key is registered again."
        return plan._replace(reason="drifted", previous_fingerprint=held.fingerprint, warning=warning)
    return plan._replace(reason="different" if held.fingerprint else "absent", previous_fingerprint=held.fingerprint, warning=None)
