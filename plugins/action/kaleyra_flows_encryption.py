# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

from ansible_collections.kaleyra.whatsapp.plugins.modules.kaleyra_flows_encryption import SPEC
from ansible_collections.kaleyra.whatsapp.plugins.plugin_utils._action_module import ModuleAction


class ActionModule(ModuleAction):
    spec = SPEC

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        # Of the role alone, so that a host that cannot go on needs no further task to say why.
        stop, pending = self._task.args.pop("role_stop", ""), self._task.args.pop("role_pending", False)
        if stop:
            return {"failed": True, "changed": False, "msg": stop}
        if pending in (True, "True"):
            numbers = ", ".join(map(str, self._task.args["phone_numbers"]))
            return {"changed": True, "msg": f"The key pair would be created, and its public key registered for {numbers}."}
        return super().run(tmp, task_vars)
