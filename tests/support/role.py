# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Variables of the role, and inventories of numbers for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from support.playbook_runs import API_KEY, SID

ROLE = "kaleyra.whatsapp.flows_encryption"
REGISTER = "Register the public key of each number"


def prefixed(variables: Mapping[str, Any]) -> dict[str, Any]:
    """The role's variables, by their names without its own; those of Ansible as they are."""
    return {name if name.startswith("ansible_") else f"flows_encryption_{name}": value for name, value in variables.items()}


def fleet(url: str, hosts: Iterable[str] | Mapping[str, Mapping[str, Any]], /, **variables: Any) -> dict[str, Any]:
    """An inventory of numbers, which nobody can connect to: all work is delegated. Hosts can have variables of their own."""
    own = hosts if isinstance(hosts, Mapping) else {host: {} for host in hosts}
    account = {"api_url": url, "sid": SID, "api_key": API_KEY}
    return {"all": {"hosts": {host: prefixed(of_host) for host, of_host in own.items()}, "vars": prefixed({**account, **variables})}}


def included(entry_point: str = "main", **keywords: Any) -> dict[str, Any]:
    """A task that includes the role."""
    return {"name": "Include", "ansible.builtin.include_role": {"name": ROLE, "tasks_from": entry_point}, **keywords}
