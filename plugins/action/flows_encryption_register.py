# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Registers a host's numbers, or fails with the reason why the host cannot continue, in one task for each host."""

from __future__ import annotations

import typing as t

from ansible.plugins.action import ActionBase
from ansible_collections.kaleyra.whatsapp.plugins.action.kaleyra_flows_encryption import ActionModule as RegisterAction
from ansible_collections.kaleyra.whatsapp.plugins.plugin_utils._role_plan import part_of, registration

_MODULE = "kaleyra.whatsapp.kaleyra_flows_encryption"


class ActionModule(ActionBase):
    _supports_async = True  # like the module's own action

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        result = super().run(tmp, task_vars)
        part = self._part(task_vars or {})
        if part["stop"]:
            return {**result, "failed": True, "changed": False, "msg": part["stop"]}
        if part["pending"]:
            numbers = ", ".join(map(str, part["registration"]["phone_numbers"]))
            message = f"The key pair would be created, and its public key registered for {numbers}."
            return {**result, "changed": True, "msg": message}
        task = self._task.copy(exclude_parent=True, exclude_tasks=True)
        task.action, task.args = _MODULE, part["registration"]
        # The class itself, which Ansible has loaded before it forks: a look-up by name would load it for each host.
        register = RegisterAction(
            task=task,
            connection=self._connection,
            play_context=self._play_context,
            loader=self._loader,
            templar=self._templar,
            shared_loader_obj=self._shared_loader_obj,
        )
        try:
            return register.run(task_vars=task_vars)
        finally:
            t.cast("t.Any", register).cleanup()  # Ansible only calls this action's own, and the temporary folder with the arguments would remain

    def _part(self, variables: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
        """What this host has to do, read from the variables as they are: to hand it over as an argument would template all of the plan."""
        given, host = self._task.args, variables["inventory_hostname"]
        if "public_key" not in given:
            return part_of(variables, host)
        stop, public_key = str(given.get("stop") or ""), given["public_key"] or ""
        numbers = {} if stop else registration(variables["flows_encryption_plan"], host, public_key)
        return {"registration": numbers, "stop": stop, "pending": not public_key}
