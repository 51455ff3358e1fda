# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Filters for the role's check: what to read, and what it means."""

from __future__ import annotations

import os
import typing as t

from ansible_collections.kaleyra.whatsapp.plugins.plugin_utils._check import endpoints_to_ask, judge, plan, read_keys
from ansible_collections.kaleyra.whatsapp.plugins.plugin_utils._role_plan import user_folder


def plan_check(hosts: t.Iterable[t.Mapping[str, t.Any]], own: t.Mapping[str, t.Any], provided: str = "") -> dict[str, t.Any]:
    return plan(hosts, own, provided, os.environ, user_folder(own["playbook_dir"], os.getcwd()))


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {
            "flows_check_plan": plan_check,
            "flows_check_keys": read_keys,
            "flows_check_endpoints": endpoints_to_ask,
            "flows_check_result": judge,
        }
