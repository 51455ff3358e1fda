# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Chooses the hosts of a job that registers the numbers of a survey or of an inventory group."""

from __future__ import annotations

import re
import typing as t

from ansible.errors import AnsibleFilterError


def flows_job_hosts(typed: t.Any, group: str, groups: t.Mapping[str, t.Sequence[str]], limit: str = "", is_slice: bool = False) -> str:
    """Return the hosts of the job.

    :raises AnsibleFilterError: there is nothing to register, or a limit would exclude the numbers that were entered
    """
    numbers = _as_text(typed)
    if not numbers:
        if groups.get(group) or is_slice:
            return group
        if not groups.get("all"):
            return "localhost"  # where the role fails: an error here would fail a syntax check, which has no inventory
        raise AnsibleFilterError(
            f"Nothing to register: no numbers were given, and the inventory has no host in the group {group}."
            " Set flows_encryption_phone_numbers (in AWX: answer the survey), or add the numbers to that group."
        )
    if not re.search(r"\d", numbers):
        raise AnsibleFilterError(
            f"Nothing to register: flows_encryption_phone_numbers is {numbers!r}, which has no phone number."
            " Give numbers in E.164, one on each line or with commas."
        )
    if limit:
        raise AnsibleFilterError(
            f"Nothing was registered: flows_encryption_phone_numbers is {numbers!r} and the limit is {limit!r}."
            " A limit chooses hosts of the inventory, not typed numbers: set only one of the two."
        )
    return "localhost"


def _as_text(typed: t.Any) -> str:
    """Return what was entered, an empty string for nothing."""
    if isinstance(typed, list):
        try:
            return ", ".join(str(number) for number in typed)
        except Exception:  # the role's default needs inventory_hostname, which is undefined here; the error has no public class
            return ""
    return "" if typed is None else str(typed).strip()


class FilterModule:
    """The filter."""

    @staticmethod
    def filters() -> dict[str, t.Callable[..., t.Any]]:
        return {"flows_job_hosts": flows_job_hosts}
