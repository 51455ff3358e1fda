# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options that give one public key."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  business_public_key:
    description:
      - PEM of the public key, RSA with 2048 bits (C(BEGIN PUBLIC KEY)).
      - Carriage returns, missing or extra newlines at the ends, and literal C(\n) sequences are repaired.
      - Set exactly one of O(business_public_key) and O(business_public_key_path).

    type: str
  business_public_key_path:
    description:
      - Path of a file with the PEM, on the host where the task runs.
    type: path
"""
