# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Action plugins that do a module's work without a process of its own."""

from __future__ import annotations

import importlib.util
import os
import typing as t

from ansible.errors import AnsibleActionFail
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.common.parameters import remove_values
from ansible.module_utils.errors import UnsupportedError
from ansible.plugins.action import ActionBase
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._libraries import load_if_needed
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._module import ModuleSpec, reject_misplaced_secrets, without_empty

_LIBRARIES_ARE_HERE = all(importlib.util.find_spec(name) for name in ("requests", "cryptography"))

# Ansible imports this file once, in the process that forks the workers.
os.register_at_fork(before=load_if_needed)


class ModuleAction(ActionBase):
    """Does the module's work in Ansible's own worker where it can, and ships the module where it cannot."""

    spec: ModuleSpec  # of the module of the same name

    _supports_async = True  # by shipping the module

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        result = super().run(tmp, task_vars)
        arguments = without_empty(self._task.args)
        if rejected := reject_misplaced_secrets(arguments):
            return {**result, **rejected}
        if self._connection.transport == "local":
            arguments = self._with_absolute_paths(arguments)
        if not self._can_work_here():
            return self._execute_module(module_args=arguments, task_vars=task_vars, wrap_async=self._task.async_val)
        done = self.spec.run(self._validated(arguments), check_mode=self._task.check_mode, diff_mode=self._task.diff, progress=self._show_progress)
        return {**result, **done}

    def _show_progress(self, words: str) -> None:
        # Not among what callbacks write to the standard output, which programs may read.
        self._display.display(f"{self._task.action.rpartition('.')[2]}: {words}", stderr=True)

    def _with_absolute_paths(self, arguments: dict[str, t.Any]) -> dict[str, t.Any]:
        """Let relative paths start at the working directory of Ansible: a module's own would be the folder of the playbook.

        Those that begin with ``~`` or a variable are left for the module to expand.
        """
        paths = {
            name: os.path.abspath(value)
            for name, value in arguments.items()
            if self.spec.argument_spec.get(name, {}).get("type") == "path" and isinstance(value, str) and not value.startswith(("/", "~", "$"))
        }
        return {**arguments, **paths}

    def _can_work_here(self) -> bool:
        """On a local connection, when nothing about the task asks for a process of its own."""
        return (
            _LIBRARIES_ARE_HERE
            and self._connection.transport == "local"
            and not self._connection.become
            and not self._task.async_val
            and not any(self._task.environment or ())
        )

    def _validated(self, arguments: dict[str, t.Any]) -> dict[str, t.Any]:
        validation = ArgumentSpecValidator(self.spec.argument_spec, **self.spec.rules).validate(arguments)
        if validation.error_messages:
            message = validation.errors.msg
            if isinstance(validation.errors[0], UnsupportedError):  # which names no more than the parameters, here as in AnsibleModule
                message = f"Unsupported parameters for ({self._task.resolved_action}) module: {message}"
            raise AnsibleActionFail(remove_values(message, validation._no_log_values))
        validated: dict[str, t.Any] = validation.validated_parameters
        return validated
