#!/usr/bin/python
# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: flows_key_rotation
short_description: Plan and carry out the steps of a rotation of a key pair of WhatsApp Flows
version_added: 1.0.0
author:
  - kaleyra.whatsapp contributors (@kaleyra-whatsapp)
description:
  - Replaces a private key by a next one, and keeps the replaced one until no number may carry it any more. Its steps are those of the
    entry point C(rotate) of the role P(kaleyra.whatsapp.flows_encryption#role), which makes the next key, has the endpoint hold both keys, and
    registers the next key in between.
  - Beside the current private key C(private.pem) there are the next one, C(private.next.pem), until it is promoted, and the previous one,
    C(private.previous.pem), until it is retired; each with its public key.
  - A plan is made once, and each further step is given it. A step that changes files holds a lock on the key pair, reads the files
    again, and fails without a change when they are not what the plan was made from, because another run was faster.
  - A private key file is never overwritten without its key keeping another name, and never removed while a number may carry its key.
  - Can be killed at any moment. What is left undone is done by the next run.
attributes:
  check_mode:
    support: full
    description: Tells the plan, and what each step would do as far as it can be foreseen. Nothing is written.
  diff_mode:
    support: none
    description: Changes private keys, of which nothing is shown. The fingerprints are in RV(plan).
  idempotent:
    support: full
    description: A step that is done already changes nothing.
options:
  step:
    description:
      - V(plan) reads the key files and decides what is to be done. It changes nothing.
      - V(stage) links the newly made private key at RV(new_private_key_path) as the next key, where the plan begins a rotation, and the
        current key as the previous one. Where another run has staged a next key in the meantime, that one is taken.
      - V(promote) puts the next key in the current one's place, if every known number carries it. Otherwise nothing is changed and
        RV(obstacles) says why.
      - V(clean_up) removes the name of the next key after it was promoted.
      - V(retire) removes the previous key, if the plan says so and no number may carry it.
    type: str
    required: true
    choices: [plan, stage, promote, clean_up, retire]
  private_key_path:
    description: Path of the current private key. The next and the previous one are beside it.
    type: path
    required: true
  public_key_path:
    description: Path of the current public key. By default C(.pub.pem) takes the place of the private key's extension.
    type: path
  private_key_passphrase:
    description: Passphrase of the private keys.
    type: str
  plan:
    description:
      - For every step but V(plan), the RV(plan) that the step before it returned.
      - For the step V(plan), the plan that the same run made for the key pair before, in another play or batch. Its time counts, and no
        further rotation is begun.
    type: dict
  rotate_after:
    description: Age of the current key from which on it is rotated, such as V(90d), V(12h), V(30m) or a number of seconds.
    type: str
    default: 1d
  keep_previous:
    description: How long the previous key is kept after its replacement, in the same form.
    type: str
    default: 7d
  retire_previous:
    description: Whether the previous key is removed as soon as no number may carry it. No rotation is begun then.
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
        description: Fingerprint of the key that is registered for it by the outcome of this run. Not given where that failed or was not tried.
        type: str
      uses_this_pair:
        description: Whether the number uses this key pair. Not given where that is not known.
        type: bool
  records:
    description: For V(promote) and V(retire), what is on record of any number, by M(kaleyra.whatsapp.kaleyra_flows_encryption_info).
    type: list
    elements: dict
    suboptions:
      phone_number:
        description: The number in E.164.
        type: str
        required: true
      possible:
        description: Fingerprints of the keys that it may carry. Not given where it may be any key.
        type: list
        elements: str
  limited:
    description: Whether this run sees only a part of the hosts (C(--limit)). Nothing is promoted or retired then.
    type: bool
    default: false
notes:
  - Runs on the host of the key pair and needs the Python library cryptography there, and a file system with hard links.
seealso:
  - module: kaleyra.whatsapp.kaleyra_flows_encryption
  - module: kaleyra.whatsapp.kaleyra_flows_encryption_info
"""

EXAMPLES = r"""
- name: Ask what a rotation would do
  kaleyra.whatsapp.flows_key_rotation:
    step: plan
    private_key_path: /etc/flows/private.pem
    rotate_after: 90d
  register: rotation

- name: Show the answer
  ansible.builtin.debug:
    msg: "{{ rotation.msg }}"
"""

RETURN = r"""
plan:
  description: What this run does with the key pair, for the next step's O(plan).
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
      description: Fingerprint of the current key that the plan was made from.
      type: str
    next:
      description: Fingerprint of the next key, null where there is none.
      type: str
    previous:
      description: Fingerprint of the previous key, null where there is none.
      type: str
    target:
      description: Fingerprint of the key that every number is to carry, null while it is still to be made.
      type: str
    other:
      description: Fingerprint of the key that numbers may still carry beside it, null where there is none.
      type: str
    retires:
      description: Whether that one is removed in this run, once no number may carry it.
      type: bool
    now:
      description: When the plan was made, in seconds since 1970 (UTC).
      type: float
public_key:
  description: PEM of the public key that every number is to carry. Empty while it is still to be made.
  returned: success
  type: str
other_public_key:
  description: PEM of the public key that numbers may still carry beside it. Empty where there is none.
  returned: success
  type: str
private_key_paths:
  description: Paths of the private keys that exist, which the endpoint is to hold. Two of them can be the same key.
  returned: success
  type: list
  elements: str
  sample: [/etc/flows/private.pem, /etc/flows/private.next.pem, /etc/flows/private.previous.pem]
new_private_key_path:
  description: Where the next private key is to be made, if the plan begins a rotation.
  returned: with the step V(plan)
  type: str
  sample: /etc/flows/private.next.pem.flows_encryption.new
obstacles:
  description: Why nothing was promoted or removed, empty where nothing is in the way.
  returned: with the steps V(promote) and V(retire)
  type: list
  elements: str
  sample: ["without the key in this run: +919876543210"]
retires:
  description: Whether the step V(retire) would remove the previous key now, so that the endpoint can be given the current key alone before.
  returned: with the step V(promote)
  type: bool
msg:
  description: What was found or done, in a sentence or two. On failure, the cause and what to do.
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
