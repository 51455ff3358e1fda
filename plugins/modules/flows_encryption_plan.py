#!/usr/bin/python
# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: flows_encryption_plan
short_description: Plan a run of the role flows_encryption
version_added: 1.0.0
author:
  - kaleyra.whatsapp contributors (@kaleyra-whatsapp)
description:
  - Reads and checks the role's variables for each host, and returns the distinct key pairs and endpoints. It is only meant for the tasks of the
    role P(kaleyra.whatsapp.flows_encryption#role).
  - The result contains passphrases and the app secret, so the task needs C(no_log).
attributes:
  action:
    support: full
    description: Has an action plugin, and runs on the controller only.
  check_mode:
    support: full
    description: Changes nothing in any mode.
  diff_mode:
    support: none
    description: Changes nothing.
options:
  all_hosts:
    description:
      - Whether to plan for all hosts of the batch, in a task with C(run_once).
      - With the strategies C(free) and C(host_pinned), which do not support C(run_once), nothing is planned then, and RV(shared) is V(false).
    type: bool
    default: false
  whole_play:
    description: With O(all_hosts), whether to plan for the hosts of all batches (C(serial)), whatever the strategy.
    type: bool
    default: false
  registers:
    description: Whether the run registers numbers. If so, account, numbers and options are checked as well.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Plan the run
  kaleyra.whatsapp.flows_encryption_plan:
    all_hosts: true
  register: flows_encryption_plan
  run_once: true
  no_log: true
"""

RETURN = r"""
records:
  description: The distinct folders of records, each with its host.
  returned: when something was planned
  type: list
  elements: dict
  sample: []
shared:
  description: Whether the plan is for all hosts of the batch.
  returned: always
  type: bool
  sample: true
hosts:
  description: The plan for each host.
  returned: when something was planned
  type: dict
  sample: {}
pairs:
  description: The distinct key pairs to be ensured.
  returned: when something was planned
  type: list
  elements: dict
  sample: []
endpoints:
  description: The distinct endpoints to be verified.
  returned: when something was planned
  type: list
  elements: dict
  sample: []
"""
