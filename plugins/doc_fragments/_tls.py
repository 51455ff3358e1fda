# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options for a server's certificate."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  validate_certs:
    description:
      - Whether to verify the server's certificate. Disable it in tests only, because anyone on the network path can read the request then.
    type: bool
    default: true
  ca_path:
    description:
      - PEM file (or hashed folder) with the certificate authorities to trust.
      - By default, the system's trust store is used, as with C(curl).

    type: path
"""
