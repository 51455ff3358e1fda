#!/usr/bin/python
# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: flows_encryption_private_key
short_description: Create a private key if it does not exist
version_added: 1.0.0
author:
  - kaleyra.whatsapp contributors (@kaleyra-whatsapp)
description:
  - Creates an RSA key with M(community.crypto.openssl_privatekey) under a temporary name and links it into place, so that an existing key is
    never overwritten. If two runs create a key at the same time, both use the one that was linked first.
  - Hosts of a run that reach the task at the same time, as with the strategy C(free), create one key. It is meant for the tasks of the role
    P(kaleyra.whatsapp.flows_encryption#role).
attributes:
  action:
    support: full
    description: Has an action plugin.
  check_mode:
    support: full
    description: Creates nothing in check mode.
  diff_mode:
    support: none
    description: Shows nothing, because it creates a private key.
options:
  path:
    description: Path of the private key.
    type: path
    required: true
  temporary_path:
    description: Path in the same folder under which the key is created. A file that a killed run left there is replaced.

    type: path
    required: true
  format:
    description: As O(community.crypto.openssl_privatekey#module:format).
    type: str
    required: true
  passphrase:
    description: Passphrase of the private key.
    type: str
  owner:
    description: Owner of the private key.
    type: str
  group:
    description: Group of the private key.
    type: str
  mode:
    description: Permissions of the private key.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Create the private key
  kaleyra.whatsapp.flows_encryption_private_key:
    path: /etc/flows/private.pem
    temporary_path: /etc/flows/private.pem.new
    format: pkcs8
    mode: "0600"
"""

RETURN = r"""
filename:
  description: O(temporary_path).
  returned: when a key was created
  type: str
  sample: /etc/flows/private.pem.new
"""
