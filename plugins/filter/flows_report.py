# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Filters for the role's report."""

from __future__ import annotations

import typing as t

from ansible_collections.kaleyra.whatsapp.plugins.plugin_utils._report import as_csv, as_json, describe_page, describe_play


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {
            "flows_report_play": describe_play,
            "flows_report_page": describe_page,
            "flows_report_csv": as_csv,
            "flows_report_json": as_json,
        }
