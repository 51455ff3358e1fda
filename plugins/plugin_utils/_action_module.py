# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Base class of action plugins that run a module's work in Ansible's worker."""

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
    """Runs the module's work in Ansible's own worker if possible, and otherwise runs the module on the host."""

    spec: ModuleSpec  # of the module of the same name

    _supports_async = True  # by running the module on the host

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

    def _show_progress(self, message: str) -> None:
        # Not on the standard output, where callbacks write and which programs may read.
        self._display.display(f"{self._task.action.rpartition('.')[2]}: {message}", stderr=True)

    def _with_absolute_paths(self, arguments: dict[str, t.Any]) -> dict[str, t.Any]:
        """Make relative paths absolute, from Ansible's working directory: a module would take them from the folder of the playbook.

        Paths that begin with ``~`` or a variable are expanded by the module.
        """
        paths = {
            name: os.path.abspath(value)
            for name, value in arguments.items()
            if self.spec.argument_spec.get(name, {}).get("type") == "path" and isinstance(value, str) and not value.startswith(("/", "~", "$"))
        }
        return {**arguments, **paths}

    def _can_work_here(self) -> bool:
        """Whether the connection is local, and nothing about the task needs a separate process."""
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
            if isinstance(validation.errors[0], UnsupportedError):  # contains only the parameters, as in AnsibleModule
                message = f"Unsupported parameters for ({self._task.resolved_action}) module: {message}"
            raise AnsibleActionFail(remove_values(message, validation._no_log_values))
        validated: dict[str, t.Any] = validation.validated_parameters
        return validated
