#!/usr/bin/python
# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: kaleyra_flows_encryption_info
short_description: Return which number carries which public key of WhatsApp Flows
version_added: 1.0.0
author:
  - kaleyra.whatsapp contributors (@kaleyra-whatsapp)
description:
  - Reads the records that M(kaleyra.whatsapp.kaleyra_flows_encryption) keeps, and returns for each number which key it carries,
    since when, and whether that is confirmed.
  - A record shows what was last confirmed, not what the number carries now. It does not show a key that somebody else has set for the number
    since, or that the number was registered again on WhatsApp and lost its key.
  - With O(read_back), the key that each number carries is read and returned beside the record. Without it, nothing is sent.
attributes:
  check_mode:
    support: full
    description: Returns the same, because it only reads.
  diff_mode:
    support: none
    description: Changes nothing, so there is no difference to show.
  idempotent:
    support: full
    description: Changes nothing.
options:
  cache_path:
    description:
      - Folder of the records, on the host where the task runs.
      - If the folder does not exist, there are no records. If it cannot be read, the module fails.
    type: path
    default: ~/.ansible/kaleyra_flows_encryption
  pod:
    description:
      - Return only numbers of this pod, see O(kaleyra.whatsapp.kaleyra_flows_encryption#module:pod).
      - If neither O(pod) nor O(api_url) is set, the numbers of every API host are returned. The environment is not used.
    type: str
    choices: [in, sg, eu, na]
  api_url:
    description:
      - Return only numbers of the API with this base URL. Set at most one of O(pod) and O(api_url).
    type: str
  sid:
    description:
      - Return only numbers of the account with this SID. The environment is not used.
    type: str
  phone_numbers:
    description:
      - Return only these numbers, in E.164. Spaces, dots, dashes, brackets and a missing plus sign are accepted.
      - A number that has no record is returned with the state V(absent).
      - By default, or with an empty list, every number that has a record is returned.
    type: list
    elements: str
  fingerprint:
    description:
      - Fingerprint of the key that each number should carry, as M(kaleyra.whatsapp.kaleyra_flows_encryption) returns it.
      - At most one of O(fingerprint), O(business_public_key) and O(business_public_key_path) can be set.
    type: str
  business_public_key:
    description:
      - PEM of the public key that each number should carry, instead of its fingerprint.
    type: str
  business_public_key_path:
    description:
      - Path of a file with that PEM, on the host where the task runs.
    type: path
  concurrency:
    description: How many numbers are read back at once, each over its own connection, from V(1) to V(100).
    type: int
    default: 8
  max_requests_per_second:
    description: Maximum number of requests a second to read back, evenly spaced. By default, there is no limit other than O(concurrency).
    type: float
  api_key:
    description:
      - API key of the account. Only used with O(read_back=kaleyra), which also needs O(sid), and O(pod) or O(api_url).
      - If it is not set, the environment variable E(KALEYRA_API_KEY) is used.
    type: str
  timeout:
    description: Seconds for each attempt to read back as a whole, by default V(30).
    type: int
  retries:
    description: Number of further attempts to read back after a failure that may be temporary, by default V(3).
    type: int
  validate_certs:
    description: Whether to verify the server's certificate, by default V(true). Disable it in tests only.
    type: bool
  ca_path:
    description: PEM file (or hashed folder) with the certificate authorities to trust. By default, the system's trust store is used.
    type: path
extends_documentation_fragment:
  - kaleyra.whatsapp._attributes
  - kaleyra.whatsapp._attributes.action_group
  - kaleyra.whatsapp._read_back
notes:
  - An empty string counts as not set, for every option.
  - On a local connection without C(become), C(async) and C(environment), the work is done inside Ansible's own worker. Otherwise the module
    runs on the task's host, with the same results.
  - The Python libraries requests and cryptography are needed for O(read_back) only.
  - Files in the folder whose names are not those of records are ignored. Links are not followed.
seealso:
  - module: kaleyra.whatsapp.kaleyra_flows_encryption
"""

EXAMPLES = r"""
- name: Read which number carries which key
  kaleyra.whatsapp.kaleyra_flows_encryption_info:
  register: flows

- name: Show how many numbers carry each key
  ansible.builtin.debug:
    var: flows.summary.by_fingerprint

- name: Read the numbers of one account
  kaleyra.whatsapp.kaleyra_flows_encryption_info:
    pod: in
    sid: HXAP16XXXXXX97IN
    cache_path: /var/lib/flows/records

- name: Find the numbers that do not carry the key on record
  kaleyra.whatsapp.kaleyra_flows_encryption_info:
    read_back: meta
    meta_access_token: "{{ vault_meta_access_token }}"
    meta_waba_ids: ["102290129340398"]
  register: flows

- name: Require that every number of the inventory carries the key
  kaleyra.whatsapp.kaleyra_flows_encryption_info:
    phone_numbers: "{{ groups['whatsapp_numbers'] }}"
    business_public_key: "{{ lookup('ansible.builtin.file', 'public.pem') }}"
  register: flows
  failed_when: flows is failed or flows.summary.different | length > 0
"""

RETURN = r"""
numbers:
  description:
    - The record of each number, sorted by number. A number that has records in several accounts appears several times.
  returned: success
  type: list
  elements: dict
  contains:
    phone_number:
      description: The number in E.164, with its plus sign.
      type: str
      sample: "+919876543210"
    api:
      description: API host, with port and path if they are not the default ones. Null for V(absent), unless O(pod) or O(api_url) is set.
      type: str
      sample: api.in.kaleyra.io
    sid:
      description: Account SID. Null for V(absent), unless O(sid) is set.
      type: str
      sample: HXAP16XXXXXX97IN
    state:
      description:
        - V(confirmed) means that the API confirmed the registration of the key.
        - V(unconfirmed) means that a registration is in progress or did not complete. The number may carry the key or one it had before.
        - V(unreadable) means that the record is damaged, a link, or the record of another number.
        - V(absent) means that there is no record of a number in O(phone_numbers).
        - V(drifted) means that the number does not carry the key on record, according to O(read_back). See RV(numbers[].drifted).
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
        - Every key that the number may carry. For V(confirmed), that is only RV(numbers[].fingerprint). For V(unconfirmed), it includes the keys that
          were possible before, and with O(read_back), the key that was read.
        - Null if it could be any key. That is the case for V(unreadable) and V(absent), and for V(unconfirmed) if the earlier record was one of
          these.
      type: list
      elements: str
      sample: [61:fa:89:3e:ff:90:f2:15:8d:cb:4a:3d:9c:52:b2:47:dc:e8:11:6e:53:5f:28:dd:48:3d:97:7c:ae:7f:48:2a]
    since:
      description: Since when the record has had this state, in UTC (ISO 8601). Null for V(unreadable) and V(absent).
      type: str
      sample: "2026-01-31T10:20:30Z"
    age:
      description:
        - Age of this state in seconds. Negative if the clock was ahead then.
        - Null for V(unreadable) and V(absent).
      type: int
      sample: 86400
    held_fingerprint:
      description: Fingerprint of the key that the number carries. Null if it carries none, or if the key could not be read.
      returned: with O(read_back)
      type: str
      sample: 61:fa:89:3e:ff:90:f2:15:8d:cb:4a:3d:9c:52:b2:47:dc:e8:11:6e:53:5f:28:dd:48:3d:97:7c:ae:7f:48:2a
    held_status:
      description: Status of that key's signature, V(valid), V(mismatch), or null if none was given.
      returned: with O(read_back)
      type: str
      sample: valid
    drifted:
      description:
        - Whether the number carries no key that is possible according to its record, or carries it with the status V(mismatch).
        - Null if the key could not be read.
      returned: with O(read_back)
      type: bool
      sample: false
    read_back_msg:
      description: Why the key that the number carries could not be read, otherwise null.
      returned: with O(read_back)
      type: str
      sample: null
    as_expected:
      description:
        - Whether the number is confirmed to carry the key of O(fingerprint), O(business_public_key) or O(business_public_key_path). If the key could
          be read back, that decides. Otherwise, a confirmed record of that key is needed.
        - Null if none of these options is set.
      type: bool
      sample: true
    msg:
      description: For V(unreadable), the path of the file and why it is ignored. Otherwise null.
      type: str
      sample: null
fingerprint:
  description: Fingerprint of the key that each number should carry, null if none is set.
  returned: success
  type: str
  sample: null
summary:
  description: Summary of RV(numbers).
  returned: success
  type: dict
  contains:
    numbers:
      description: Number of entries in RV(numbers).
      type: int
      sample: 2
    by_state:
      description: How many numbers have each of the states. V(drifted) only appears with O(read_back).
      type: dict
      sample: {"confirmed": 2, "unconfirmed": 0, "unreadable": 0, "absent": 0}
    by_fingerprint:
      description: How many numbers carry each key, the most frequent key first. Only confirmed records are counted.
      type: dict
      sample: {"61:fa:89:3e:ff:90:f2:15:8d:cb:4a:3d:9c:52:b2:47:dc:e8:11:6e:53:5f:28:dd:48:3d:97:7c:ae:7f:48:2a": 2}
    drifted:
      description: Numbers for which RV(numbers[].drifted) is true.
      returned: with O(read_back)
      type: list
      elements: str
      sample: []
    different:
      description:
        - Numbers that carry another key than the expected one, or are not confirmed to carry it.
        - Null if no key is expected.

      type: list
      elements: str
      sample: []
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._account import PODS
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._module import PUBLIC_KEY_OPTIONS, READ_BACK_OPTIONS, ModuleSpec
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
        **READ_BACK_OPTIONS,
        "concurrency": {"type": "int", "default": 8},
        "max_requests_per_second": {"type": "float"},
        "api_key": {"type": "str", "no_log": True},
        "timeout": {"type": "int"},
        "retries": {"type": "int"},
        "validate_certs": {"type": "bool"},
        "ca_path": {"type": "path"},
    },
    rules={"mutually_exclusive": [("fingerprint", *PUBLIC_KEY_OPTIONS)]},
)


def main() -> None:
    SPEC.run_in(AnsibleModule(argument_spec=SPEC.argument_spec, supports_check_mode=True, **SPEC.rules))


if __name__ == "__main__":
    main()
