#!/usr/bin/python
# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: flows_key_rotation
short_description: Plan and apply the steps of a key pair rotation of WhatsApp Flows
version_added: 1.0.0
author:
  - kaleyra.whatsapp contributors (@kaleyra-whatsapp)
description:
  - Replaces a private key with the next one, and keeps the previous one until no number may carry it any more. The entry point C(rotate) of the
    role P(kaleyra.whatsapp.flows_encryption#role) uses these steps. In between, it creates the next key, deploys both keys to the endpoint, and
    registers the next key.
  - Beside the current private key C(private.pem), there is the next one, C(private.next.pem), until it is promoted, and the previous one,
    C(private.previous.pem), until it is retired, each with its public key.
  - The plan is made once and passed to each further step. A step that changes files locks the key pair and reads the files again. If they have
    changed since the plan was made, because another run was faster, it fails without a change.
  - A private key file is never overwritten unless its key also has another name, and never removed while a number may carry its key.
  - Can be interrupted at any time. The next run completes what was not done.
attributes:
  check_mode:
    support: full
    description: Returns the plan, and what each step would do as far as that can be predicted. Writes nothing.
  diff_mode:
    support: none
    description: Shows nothing, because it changes private keys. The fingerprints are in RV(plan).
  idempotent:
    support: full
    description: A step that has already been done changes nothing.
options:
  step:
    description:
      - V(plan) reads the key files and decides what to do. It changes nothing.
      - V(stage) links the new private key at RV(new_private_key_path) as the next key, if the plan begins a rotation, and the
        current key as the previous one. If another run has staged a next key in the meantime, that one is used.
      - V(promote) replaces the current key with the next one, if every known number carries the next key. Otherwise nothing is changed, and
        RV(obstacles) gives the reasons.
      - V(clean_up) removes the name of the next key after it was promoted.
      - V(retire) removes the previous key, if that is planned and no number may carry it.
    type: str
    required: true
    choices: [plan, stage, promote, clean_up, retire]
  private_key_path:
    description: Path of the current private key. The next and the previous one are in the same folder.
    type: path
    required: true
  public_key_path:
    description: Path of the current public key. By default, the private key's path with the extension C(.pub.pem).
    type: path
  private_key_passphrase:
    description: Passphrase of the private keys.
    type: str
  plan:
    description:
      - For every step but V(plan), the RV(plan) that the previous step returned.
      - For the step V(plan), the plan that the same run has already made for the key pair, in another play or batch. Its time is used, and no
        further rotation begins.
    type: dict
  rotate_after:
    description: Age from which the current key is rotated, such as V(90d), V(12h), V(30m) or a number of seconds.
    type: str
    default: 1d
  keep_previous:
    description: How long the previous key is kept after it was replaced, in the same form.
    type: str
    default: 7d
  retire_previous:
    description: Whether to remove the previous key as soon as no number may carry it. No rotation begins then.
    type: bool
    default: false
  numbers:
    description:
      - For V(promote) and V(retire), the numbers of this run. Those that use the key pair must carry the target.
    type: list
    elements: dict
    suboptions:
      host:
        description: Host of the inventory that the number belongs to.
        type: str
        required: true
      phone_number:
        description: The number in E.164.
        type: str
        required: true
      registered:
        description: Fingerprint of the key that this run has registered for it. Not set if that failed or was not tried.
        type: str
      uses_this_pair:
        description: Whether the number uses this key pair. Not set if that is not known.
        type: bool
  records:
    description: For V(promote) and V(retire), the records of all numbers, from M(kaleyra.whatsapp.kaleyra_flows_encryption_info).
    type: list
    elements: dict
    suboptions:
      phone_number:
        description: The number in E.164.
        type: str
        required: true
      possible:
        description: Fingerprints of the keys that it may carry. Not set if it may carry any key.
        type: list
        elements: str
  limited:
    description: Whether this run covers only some of the hosts (C(--limit)). Nothing is promoted or retired then.
    type: bool
    default: false
notes:
  - On a local connection without C(become), C(async) and C(environment), the work is done inside Ansible's own worker. Otherwise the module
    runs on the task's host, with the same results.
  - Runs on the host of the key pair and needs the Python library cryptography there, and a file system with hard links.
seealso:
  - module: kaleyra.whatsapp.kaleyra_flows_encryption
  - module: kaleyra.whatsapp.kaleyra_flows_encryption_info
"""

EXAMPLES = r"""
- name: Plan a rotation
  kaleyra.whatsapp.flows_key_rotation:
    step: plan
    private_key_path: /etc/flows/private.pem
    rotate_after: 90d
  register: rotation

- name: Show the plan
  ansible.builtin.debug:
    msg: "{{ rotation.msg }}"
"""

RETURN = r"""
plan:
  description: What this run does with the key pair. Pass it to the next step as O(plan).
  returned: success
  type: dict
  contains:
    action:
      description:
        - V(begin) a rotation, V(resume) one that has a next key, V(complete) one whose next key is promoted, V(keep) or remove the
          previous key, or V(nothing).
      type: str
      sample: begin
    current:
      description: Fingerprint of the current key when the plan was made.
      type: str
    next:
      description: Fingerprint of the next key, null if there is none.
      type: str
    previous:
      description: Fingerprint of the previous key, null if there is none.
      type: str
    target:
      description: Fingerprint of the key that every number is to carry, null if it does not exist yet.
      type: str
    other:
      description: Fingerprint of the other key that numbers may still carry, null if there is none.
      type: str
    retires:
      description: Whether this run removes C(other) once no number may carry it.
      type: bool
    now:
      description: When the plan was made, in seconds since 1970 (UTC).
      type: float
public_key:
  description: PEM of the public key that every number is to carry. Empty if it does not exist yet.
  returned: success
  type: str
other_public_key:
  description: PEM of the other public key that numbers may still carry. Empty if there is none.
  returned: success
  type: str
private_key_paths:
  description: Paths of the private keys to deploy to the endpoint. Two of them can be the same key.
  returned: success
  type: list
  elements: str
  sample: [/etc/flows/private.pem, /etc/flows/private.next.pem, /etc/flows/private.previous.pem]
new_private_key_path:
  description: Path where the next private key has to be created, if the plan begins a rotation.
  returned: with the step V(plan)
  type: str
  sample: /etc/flows/private.next.pem.flows_encryption.new
obstacles:
  description: Why nothing was promoted or removed, empty if there is no obstacle.
  returned: with the steps V(promote) and V(retire)
  type: list
  elements: str
  sample: ["without the key in this run: +919876543210"]
retires:
  description: Whether the step V(retire) would remove the previous key now. Deploy only the current key to the endpoint before.
  returned: with the step V(promote)
  type: bool
msg:
  description: What was found or done. On failure, the cause and what to do.
  returned: always
  type: str
  sample: No rotation begins, as the current key is not old enough.
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._module import ModuleSpec
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._rotation_steps import KEEP_PREVIOUS, ROTATE_AFTER, STEPS, run_step

SPEC = ModuleSpec(
    run_step,
    argument_spec={
        "step": {"type": "str", "required": True, "choices": list(STEPS)},
        "private_key_path": {"type": "path", "required": True, "no_log": False},
        "public_key_path": {"type": "path", "no_log": False},
        "private_key_passphrase": {"type": "str", "no_log": True},
        "plan": {"type": "dict"},
        "rotate_after": {"type": "str", "default": ROTATE_AFTER},
        "keep_previous": {"type": "str", "default": KEEP_PREVIOUS},
        "retire_previous": {"type": "bool", "default": False},
        "numbers": {
            "type": "list",
            "elements": "dict",
            "options": {
                "host": {"type": "str", "required": True},
                "phone_number": {"type": "str", "required": True},
                "registered": {"type": "str"},
                "uses_this_pair": {"type": "bool"},
            },
        },
        "records": {
            "type": "list",
            "elements": "dict",
            "options": {
                "phone_number": {"type": "str", "required": True},
                "possible": {"type": "list", "elements": "str"},
            },
        },
        "limited": {"type": "bool", "default": False},
    },
    rules={},
)


def main() -> None:
    SPEC.run_in(AnsibleModule(argument_spec=SPEC.argument_spec, supports_check_mode=True, **SPEC.rules))


if __name__ == "__main__":
    main()
