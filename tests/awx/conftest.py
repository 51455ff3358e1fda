# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from awx._set_up import awx_collection, controller, set_up
from functional.conftest import _simulator, key, playbooks, simulator

__all__ = ["_simulator", "awx_collection", "controller", "key", "playbooks", "set_up", "simulator"]
