# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Filters for the role's rotation: decisions from its plan and from the results of its tasks."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.kaleyra.whatsapp.plugins.module_utils._phone_number import normalise_phone_number
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._rotation import endpoint_stops, known_numbers, known_records, pair_leader


def rotation_numbers(
    plan: t.Mapping[str, t.Any], hostvars: t.Mapping[str, t.Any], play_hosts: t.Sequence[str], at_work: t.Sequence[str], pair: str
) -> list[dict[str, t.Any]]:
    # A failed host may still have the result of an earlier play, and with the strategy free any host may.
    registrations = {host: hostvars[host].get("flows_encryption_registration") for host in at_work} if plan["shared"] else {}
    return [dataclasses.asdict(number) for number in known_numbers(plan, play_hosts, registrations, pair, normalise_phone_number)]


def phone_number_ids(hostvars: t.Mapping[str, t.Any], hosts: t.Sequence[str]) -> dict[str, t.Any]:
    """Return Meta's ID of each number whose host has one from the inventory plugin waba_numbers."""
    return {host: hostvars[host]["waba_phone_number_id"] for host in hosts if hostvars[host].get("waba_phone_number_id")}


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {
            "flows_pair_leader": pair_leader,
            "flows_endpoint_stops": endpoint_stops,
            "flows_rotation_numbers": rotation_numbers,
            "flows_rotation_records": known_records,
            "flows_phone_number_ids": phone_number_ids,
        }
