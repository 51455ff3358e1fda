#!/usr/bin/python
# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: flows_encryption_key_pair
short_description: Ensure a key pair for the role flows_encryption
version_added: 1.0.0
author:
  - kaleyra.whatsapp contributors (@kaleyra-whatsapp)
description:
  - Sets the permissions of the private key, reads it with M(community.crypto.openssl_privatekey_info), and writes the public key with
    M(community.crypto.openssl_publickey).
  - If there is no private key, creates one with M(community.crypto.openssl_privatekey) under a temporary name and links it into place, so
    that an existing key is never overwritten. If two runs create a key at the same time, both use the one that was linked first.
  - Hosts of a run that reach the task at the same time, as with the strategy C(free), create one key.
  - An error is returned in RV(stop) and does not fail the task. The module is only meant for the tasks of the role
    P(kaleyra.whatsapp.flows_encryption#role).
attributes:
  action:
    support: full
    description: Has an action plugin.
  check_mode:
    support: full
    description: Creates nothing, but reports if the folder of the key cannot be written to.
  diff_mode:
    support: none
    description: Shows nothing, because it creates a private key.
options:
  pair:
    description: Key pair from the result of M(kaleyra.whatsapp.flows_encryption_plan).
    type: dict
    required: true
  passphrase:
    description: Passphrase of the private key.
    type: str
"""

EXAMPLES = r"""
- name: Plan the run
  kaleyra.whatsapp.flows_encryption_plan:
    all_hosts: true
  register: flows_encryption_plan
  run_once: true
  no_log: true

- name: Ensure the key pairs
  kaleyra.whatsapp.flows_encryption_key_pair:
    pair: "{{ flows_encryption_pair }}"
  loop: "{{ flows_encryption_plan.pairs }}"
  loop_control:
    loop_var: flows_encryption_pair
  delegate_to: "{{ flows_encryption_pair.key_host }}"
"""

RETURN = r"""
stop:
  description: Why the hosts that share the key pair cannot continue. Empty if they can.
  returned: always
  type: str
  sample: ""
public_key:
  description: PEM of the public key. Empty if there is none.
  returned: always
  type: str
  sample: ""
fingerprint:
  description: SHA-256 of the public key.
  returned: when there is a public key
  type: str
  sample: ""
pending:
  description: Whether the key pair does not exist yet, in check mode.
  returned: when the hosts can continue
  type: bool
  sample: false
"""
