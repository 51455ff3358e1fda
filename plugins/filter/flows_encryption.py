# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Filters for the role's tasks: decisions from its plan and from their results."""

from __future__ import annotations

import typing as t

from ansible_collections.kaleyra.whatsapp.plugins.plugin_utils._delegation import delegation_order
from ansible_collections.kaleyra.whatsapp.plugins.plugin_utils._role_plan import (
    absolute_path_on,
    endpoints_to_verify,
    known_keys,
    shared_pair,
    summarise,
    verifications,
    what_to_register,
)


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {
            "flows_known_keys": known_keys,
            "flows_endpoints_to_verify": endpoints_to_verify,
            "flows_verifications": verifications,
            "flows_what_to_register": what_to_register,
            "flows_summary": summarise,
            "flows_shared_pair": shared_pair,
            "flows_absolute_path": absolute_path_on,
            "flows_delegation_order": delegation_order,
        }
