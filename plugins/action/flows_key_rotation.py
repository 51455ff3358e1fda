# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.kaleyra.whatsapp.plugins.modules.flows_key_rotation import SPEC
from ansible_collections.kaleyra.whatsapp.plugins.plugin_utils._action_module import ModuleAction


class ActionModule(ModuleAction):
    spec = SPEC
