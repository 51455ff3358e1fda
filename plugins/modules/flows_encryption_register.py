#!/usr/bin/python
# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: flows_encryption_register
short_description: Register the numbers of a host of the role flows_encryption
version_added: 1.0.0
author:
  - kaleyra.whatsapp contributors (@kaleyra-whatsapp)
description:
  - Runs M(kaleyra.whatsapp.kaleyra_flows_encryption), unless the role's plan says that the host cannot go on. The role's tasks use it. It is of
    no use elsewhere.
attributes:
  action:
    support: full
    description: Has an action plugin.
  check_mode:
    support: full
    description: As M(kaleyra.whatsapp.kaleyra_flows_encryption) does.
  diff_mode:
    support: full
    description: As M(kaleyra.whatsapp.kaleyra_flows_encryption) does.
options:
  registration:
    description: Options of M(kaleyra.whatsapp.kaleyra_flows_encryption), with C(phone_numbers).
    type: dict
    required: true
  stop:
    description: Why the host cannot go on. The task fails with this message, and nothing is registered. Empty where nothing stops it.
    type: str
    default: ""
  pending:
    description: Whether the key pair is yet to be created, in check mode. The task is then changed.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Register the public key of each number
  kaleyra.whatsapp.flows_encryption_register:
    registration:
      pod: in
      api_key: "{{ vault_kaleyra_api_key }}"
      phone_numbers: ["+919876543210"]
      business_public_key: "{{ lookup('ansible.builtin.file', 'public.pem') }}"
"""

RETURN = r"""
numbers:
  description: As M(kaleyra.whatsapp.kaleyra_flows_encryption) returns it, like everything else.
  returned: when numbers were tried
  type: list
  elements: dict
  sample: []
"""
