#!/usr/bin/python
# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: flows_encryption_register
short_description: Register the numbers of a host for the role flows_encryption
version_added: 1.0.0
author:
  - kaleyra.whatsapp contributors (@kaleyra-whatsapp)
description:
  - Runs M(kaleyra.whatsapp.kaleyra_flows_encryption) for the numbers of the host, with what M(kaleyra.whatsapp.flows_encryption_plan) has
    planned for it, or fails if the host cannot continue according to the plan. It is only meant for the tasks of the role
    P(kaleyra.whatsapp.flows_encryption#role).
attributes:
  action:
    support: full
    description: Has an action plugin.
  check_mode:
    support: full
    description: The same as M(kaleyra.whatsapp.kaleyra_flows_encryption).
  diff_mode:
    support: full
    description: The same as M(kaleyra.whatsapp.kaleyra_flows_encryption).
options:
  public_key:
    description:
      - PEM of the public key, for the entry point V(rotate), instead of the one that was found according to the plan.
      - If it is empty, the key does not exist yet, in check mode. The task is reported as changed then.
    type: str
  stop:
    description: With O(public_key), why the host cannot continue. The task fails with this message, and nothing is registered.
    type: str
"""

EXAMPLES = r"""
- name: Plan the run
  kaleyra.whatsapp.flows_encryption_plan:
    all_hosts: true
  register: flows_encryption_plan
  run_once: true
  no_log: true

- name: Register the public key of each number
  kaleyra.whatsapp.flows_encryption_register:
    public_key: "{{ lookup('ansible.builtin.file', 'public.pem') }}"
  register: flows_encryption_registration
"""

RETURN = r"""
numbers:
  description: The result of each number. All return values are those of M(kaleyra.whatsapp.kaleyra_flows_encryption).
  returned: when numbers were tried
  type: list
  elements: dict
  sample: []
"""
