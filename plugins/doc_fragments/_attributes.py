# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The attributes that modules share."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in check mode and predict the result.
  diff_mode:
    description: Returns what has changed, or would change in check mode, with C(--diff).
  idempotent:
    description: When run twice with the same options, the second run changes nothing.
  async:
    support: full
    description: Can be used with C(async).
"""

    ACTION_GROUP = r"""
options: {}
attributes:
  action_group:
    support: full
    description: Use C(group/kaleyra.whatsapp.kaleyra) in C(module_defaults) to set common options for all tasks of an account.

    membership:
      - kaleyra.whatsapp.kaleyra
"""
