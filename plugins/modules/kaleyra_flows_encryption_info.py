#!/usr/bin/python
# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: kaleyra_flows_encryption_info
short_description: Tell which number carries which public key of WhatsApp Flows
version_added: 1.0.0
author:
  - kaleyra.whatsapp contributors (@kaleyra-whatsapp)
description:
  - Reads the records that M(kaleyra.whatsapp.kaleyra_flows_encryption) keeps, and tells for each number which key it carries, since
    when, and whether that is sure.
  - Nothing is sent to the API. A record is what was last proved, not what the API holds now. A key that somebody else has set for the
    number since is not seen, and neither is a number that was registered anew on WhatsApp and so has lost its key.
attributes:
  check_mode:
    support: full
    description: Reads only, and returns the same.
  diff_mode:
    support: none
    description: Changes nothing, so there is no difference to show.
  idempotent:
    support: full
    description: Changes nothing.
  async:
    support: full
    description: Can be used with C(async).
  action_group:
    support: full
    description: Use C(group/kaleyra.whatsapp.kaleyra) in C(module_defaults) to set what all tasks of an account share.
    membership:
      - kaleyra.whatsapp.kaleyra
options:
  cache_path:
    description:
      - Folder of the records, on the host where the task runs.
      - Where there is no such folder, there are no records. A folder that cannot be read is a failure.
    type: path
    default: ~/.ansible/kaleyra_flows_encryption
  pod:
    description:
      - Only numbers of this pod, as M(kaleyra.whatsapp.kaleyra_flows_encryption) names them.
      - Where neither O(pod) nor O(api_url) is given, the numbers of every API host are told. The environment does not count here.
    type: str
    choices: [in, sg, eu, na]
  api_url:
    description:
      - Only numbers of the API with this base URL, in place of O(pod).
    type: str
  sid:
    description:
      - Only numbers of the account with this SID. The environment does not count here.
    type: str
  phone_numbers:
    description:
      - Only these numbers, in E.164. Blanks, dots, dashes, brackets and a missing plus sign are forgiven.
      - One that has no record is told too, with the state V(absent).
      - Without it, or with an empty list, every number that has a record is told.
    type: list
    elements: str
  fingerprint:
    description:
      - Fingerprint of the key that each number should carry, as M(kaleyra.whatsapp.kaleyra_flows_encryption) returns it.
      - At most one of O(fingerprint), O(business_public_key) and O(business_public_key_path) can be given.
    type: str
  business_public_key:
    description:
      - PEM of the public key that each number should carry, in place of its fingerprint.
    type: str
  business_public_key_path:
    description:
      - Path of a file with that PEM, on the host where the task runs.
    type: path
  api_key:
    description:
      - Has no effect, as the API is not asked. It is here, like the following options, so that the defaults of the action group
        C(group/kaleyra.whatsapp.kaleyra) can be set for M(kaleyra.whatsapp.kaleyra_flows_encryption) and this module alike.
    type: str
  timeout:
    description: Has no effect, see O(api_key).
    type: int
  retries:
    description: Has no effect, see O(api_key).
    type: int
  validate_certs:
    description: Has no effect, see O(api_key).
    type: bool
  ca_path:
    description: Has no effect, see O(api_key).
    type: path
notes:
  - An empty string counts as not given, for every option.
  - On a local connection without C(become), C(async) and C(environment), the work is done inside Ansible's own worker. In every other
    case the module runs on the task's host, with the same results. No library beyond Python's own is needed.
  - Files in the folder whose names are not those of records are passed over. Links are not followed.
seealso:
  - module: kaleyra.whatsapp.kaleyra_flows_encryption
"""

EXAMPLES = r"""
- name: Ask which number carries which key
  kaleyra.whatsapp.kaleyra_flows_encryption_info:
  register: flows

- name: Show how many numbers carry each key
  ansible.builtin.debug:
    var: flows.summary.by_fingerprint

- name: Ask for the numbers of one account
  kaleyra.whatsapp.kaleyra_flows_encryption_info:
    pod: in
    sid: HXAP16XXXXXX97IN
    cache_path: /var/lib/flows/records

- name: Require that every number of the inventory surely carries the key
  kaleyra.whatsapp.kaleyra_flows_encryption_info:
    phone_numbers: "{{ groups['whatsapp_numbers'] }}"
    business_public_key: "{{ lookup('ansible.builtin.file', 'public.pem') }}"
  register: flows
  failed_when: flows is failed or flows.summary.different | length > 0
"""

RETURN = r"""
numbers:
  description:
    - What is on record of each number, sorted by number. A number that has a record in several accounts is there several times.
  returned: success
  type: list
  elements: dict
  contains:
    phone_number:
      description: The number in E.164, with its plus sign.
      type: str
      sample: "+919876543210"
    api:
      description: API host, with port and path where they are not the usual ones. Null for V(absent), unless O(pod) or O(api_url) is given.
      type: str
      sample: api.in.kaleyra.io
    sid:
      description: Account SID. Null for V(absent), unless O(sid) is given.
      type: str
      sample: HXAP16XXXXXX97IN
    state:
      description:
        - V(confirmed) means that the key was registered with proven success.
        - V(unconfirmed) means that a registration is under way, or did not come to its end. The number may carry the key or the one it
          had before.
        - V(unreadable) means that there is something in the record's place that is not its record.
        - V(absent) means that there is no record of a number that was asked for.
      type: str
      sample: confirmed
    fingerprint:
      description:
        - SHA-256 of the key's DER SubjectPublicKeyInfo, lower-case hex with colons.
        - Null for V(unreadable) and V(absent).
      type: str
      sample: 61:fa:89:3e:ff:90:f2:15:8d:cb:4a:3d:9c:52:b2:47:dc:e8:11:6e:53:5f:28:dd:48:3d:97:7c:ae:7f:48:2a
    possible_fingerprints:
      description:
        - Every key that the number may carry. For V(confirmed) that is RV(numbers[].fingerprint) alone, for V(unconfirmed) also those that
          were possible before.
        - Null where it cannot be told and could be any key. That is so for V(unreadable) and V(absent), and for V(unconfirmed) where the
          record before was one of these.
      type: list
      elements: str
      sample: [61:fa:89:3e:ff:90:f2:15:8d:cb:4a:3d:9c:52:b2:47:dc:e8:11:6e:53:5f:28:dd:48:3d:97:7c:ae:7f:48:2a]
    since:
      description: When the record got this state, in UTC (ISO 8601). Null for V(unreadable) and V(absent).
      type: str
      sample: "2026-01-31T10:20:30Z"
    age:
      description:
        - How many seconds ago that was. Less than 0 where the clock was ahead then.
        - Null for V(unreadable) and V(absent).
      type: int
      sample: 86400
    as_expected:
      description:
        - Whether the number surely carries the key that was given with O(fingerprint), O(business_public_key) or
          O(business_public_key_path). Only a confirmed record of that key is sure.
        - Null where none of them was given.
      type: bool
      sample: true
    msg:
      description: Path of the file and why it is ignored, for V(unreadable). Otherwise null.
      type: str
      sample: null
fingerprint:
  description: The key that each number should carry, null where none was given.
  returned: success
  type: str
  sample: null
summary:
  description: The same in figures.
  returned: success
  type: dict
  contains:
    numbers:
      description: How many entries RV(numbers) has.
      type: int
      sample: 2
    by_state:
      description: How many numbers are in each of the four states.
      type: dict
      sample: {"confirmed": 2, "unconfirmed": 0, "unreadable": 0, "absent": 0}
    by_fingerprint:
      description: How many numbers carry each key, the most frequent key first. Counts confirmed records only.
      type: dict
      sample: {"61:fa:89:3e:ff:90:f2:15:8d:cb:4a:3d:9c:52:b2:47:dc:e8:11:6e:53:5f:28:dd:48:3d:97:7c:ae:7f:48:2a": 2}
    different:
      description:
        - Numbers that carry another key than the one that was given, or do not surely carry it.
        - Null where none was given.
      type: list
      elements: str
      sample: []
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._account import PODS
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._module import PUBLIC_KEY_OPTIONS, ModuleSpec
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._registrations_info import read_registrations

SPEC = ModuleSpec(
    read_registrations,
    argument_spec={
        "cache_path": {"type": "path", "default": "~/.ansible/kaleyra_flows_encryption"},
        "pod": {"type": "str", "choices": list(PODS)},
        "api_url": {"type": "str"},
        "sid": {"type": "str"},
        "phone_numbers": {"type": "list", "elements": "str"},
        "fingerprint": {"type": "str"},
        **PUBLIC_KEY_OPTIONS,
        # Of no use here: what the action group's defaults may hold for kaleyra_flows_encryption.
        "api_key": {"type": "str", "no_log": True},
        "timeout": {"type": "int"},
        "retries": {"type": "int"},
        "validate_certs": {"type": "bool"},
        "ca_path": {"type": "path"},
    },
    rules={"mutually_exclusive": [("pod", "api_url"), ("fingerprint", *PUBLIC_KEY_OPTIONS)]},
)


def main() -> None:
    SPEC.run_in(AnsibleModule(argument_spec=SPEC.argument_spec, supports_check_mode=True, **SPEC.rules))


if __name__ == "__main__":
    main()
