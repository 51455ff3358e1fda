# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Registers a host's numbers, or fails with the reason why the host cannot continue, in one task for each host."""

from __future__ import annotations

import typing as t

from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase

_MODULE = "kaleyra.whatsapp.kaleyra_flows_encryption"


class ActionModule(ActionBase):
    _supports_async = True  # like the module's own action

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        result = super().run(tmp, task_vars)
        arguments = self._task.args
        if arguments.get("stop"):
            return {**result, "failed": True, "changed": False, "msg": arguments["stop"]}
        if boolean(arguments.get("pending", False)):
            numbers = ", ".join(map(str, arguments["registration"]["phone_numbers"]))
            message = f"The key pair would be created, and its public key registered for {numbers}."
            return {**result, "changed": True, "msg": message}
        task = self._task.copy(exclude_parent=True, exclude_tasks=True)
        task.action, task.args = _MODULE, arguments["registration"]
        register = self._shared_loader_obj.action_loader.get(
            _MODULE,
            task=task,
            connection=self._connection,
            play_context=self._play_context,
            loader=self._loader,
            templar=self._templar,
            shared_loader_obj=self._shared_loader_obj,
        )
        try:
            done: dict[str, t.Any] = register.run(task_vars=task_vars)
        finally:
            register.cleanup()  # Ansible only calls this action's own, and the temporary folder with the arguments would remain
        return done
