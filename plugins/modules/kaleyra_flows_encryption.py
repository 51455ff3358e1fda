#!/usr/bin/python
# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: kaleyra_flows_encryption
short_description: Register the public key that WhatsApp Flows of a number are encrypted with
version_added: 1.0.0
author:
  - kaleyra.whatsapp contributors (@kaleyra-whatsapp)
description:
  - Makes WhatsApp Business numbers carry one RSA public key, with the call C(flows_encryption) of Kaleyra's WhatsApp Flow API v2. It
    takes one number, or a list of thousands, which is much faster than a loop.
  - The number must be registered, its WABA onboarded on Kaleyra's WhatsApp API v2, and the account must have an active WhatsApp plan.
  - The API is not asked which key a number carries. This module keeps a small record for each number of what was last proved
    to be registered, and sends nothing while the wanted key is on record.
  - The record is written before the request as unconfirmed, and confirmed after a proven success. Whatever happens in between, a kill
    or a lost answer included, makes the next run register the key again, which is harmless.
requirements:
  - requests
  - cryptography
  - Both are needed only where a key is to be registered.
attributes:
  check_mode:
    support: full
    description: Sends and writes nothing, and returns the same RV(ignore:changed), RV(reason) and RV(ignore:diff) as a real run would.
  diff_mode:
    support: full
    description: Shows public facts alone.
  idempotent:
    support: partial
    description:
      - Idempotent as far as the record tells. A key that somebody else has set for the number since is not seen, and neither is a number
        that was registered anew on WhatsApp and so has lost its key. Use O(force) or O(cache_valid_time) for that.
      - Where the record does not outlive the run, as in a container, the key is registered again in each run.
  async:
    support: full
    description: Can be used with C(async).
  action_group:
    support: full
    description:
      - Use C(group/kaleyra.whatsapp.kaleyra) in C(module_defaults) to set what all tasks of an account share, as in the example. The other
        module of the group is M(kaleyra.whatsapp.kaleyra_flows_encryption_info).
      - Both have O(pod), O(api_url), O(sid), O(api_key), O(cache_path), O(timeout), O(retries), O(validate_certs), O(ca_path),
        O(phone_numbers), O(business_public_key) and O(business_public_key_path). Set the defaults of other options for this module alone.
    membership:
      - kaleyra.whatsapp.kaleyra
options:
  pod:
    description:
      - The pod that the account is on. V(in) is C(api.in.kaleyra.io), V(sg) is C(api.kaleyra.io), V(eu) is C(api.eu.kaleyra.io),
        V(na) is C(api.na.kaleyra.ai).
      - Exactly one of O(pod) and O(api_url) is needed.
      - Where neither is given, the environment variables E(KALEYRA_POD) and E(KALEYRA_API_URL) count.
    type: str
    choices: [in, sg, eu, na]
  api_url:
    description:
      - The API's base URL in place of O(pod), for example for a new domain.
      - Must be C(https). C(http) is for loopback hosts alone.
    type: str
  sid:
    description:
      - Account SID, for example V(HXAP16XXXXXX97IN).
      - Where it is not given, the environment variable E(KALEYRA_SID) counts.
    type: str
    required: true
  api_key:
    description:
      - API key of the account.
      - Where it is not given, the environment variable E(KALEYRA_API_KEY) counts.
    type: str
    required: true
  phone_number:
    description:
      - The business number in E.164, for example V(+919876543210).
      - Spaces, dots, dashes, brackets and a missing plus sign are forgiven.
      - Exactly one of O(phone_number) and O(phone_numbers) is needed.
    type: str
  phone_numbers:
    description:
      - Business numbers in place of O(phone_number), spelled like it. A number that is listed twice is registered once.
      - Each has a record and an outcome of its own in RV(numbers). Every number is tried, and the task fails at the end if one failed,
        one that is no number included.
      - With an empty list nothing is done.
    type: list
    elements: str
  business_public_key:
    description:
      - PEM of the RSA public key with 2048 bits (C(BEGIN PUBLIC KEY)).
      - Carriage returns, missing or extra newlines at the ends, and literal C(\n) sequences are mended.
      - Exactly one of O(business_public_key) and O(business_public_key_path) is needed.
    type: str
  business_public_key_path:
    description:
      - Path of a file with the PEM, on the host where the task runs.
    type: path
  known_fingerprint:
    description:
      - Fingerprint of the key that you know the number to carry, as returned in RV(fingerprint).
      - Cannot be used with O(phone_numbers).
      - Takes the place of the record. Nothing is read from or written to O(cache_path) then, and O(cache_valid_time) has no effect.
      - Give it for a number always or never, as a record that is on disk from before is not brought up to date.
      - Keep it only after a success. After a failure with RV(outcome=unknown) it is not known any longer, so set O(force).
    type: str
  cache_path:
    description:
      - Folder of the records, on the host where the task runs. It is made when needed.
      - Each API host, account and number has a file of its own, so any number of hosts and processes can share the folder.
    type: path
    default: ~/.ansible/kaleyra_flows_encryption
  cache_valid_time:
    description:
      - A record that is older than this many seconds does not count any longer, and the key is registered again.
      - Where it is not given, records do not age.
    type: int
  force:
    description:
      - Whether to register the key whatever the record says.
    type: bool
    default: false
  timeout:
    description:
      - Seconds that one attempt may last as a whole, from looking up the name to the last byte of the answer.
    type: int
    default: 30
  retries:
    description:
      - How many further attempts follow a failure that may pass. These are failures of the connection, and the HTTP statuses 429, 500,
        502, 503 and 504.
      - The pause before each is what the server asks for (C(Retry-After)), else about 1, 2, 4 seconds and so on, and never longer than
        O(timeout).
    type: int
    default: 3
  concurrency:
    description:
      - How many of O(phone_numbers) are registered at once, each over a connection of its own that is kept, from V(1) to V(100).
    type: int
    default: 8
  max_requests_per_second:
    description:
      - Most requests a second for O(phone_numbers), further attempts included, evenly spaced. V(0.5) is one every two seconds.
      - Where it is not given, there are as many as O(concurrency) allows.
      - Whatever it is, an HTTP status 429 holds all numbers of the task for as long as the API asks for. They go on at the rate that had
        got through until then, and get faster with each success.
    type: float
  validate_certs:
    description:
      - Whether the API host must prove who it is. Set this to V(false) only for tests, as anyone on the way can read the API key then.
    type: bool
    default: true
  ca_path:
    description:
      - PEM file (or hashed folder) with the certificate authorities to trust.
      - Without it the system's trust store counts, as with C(curl).
    type: path
notes:
  - An empty string counts as not given, for every option. Credential forms and surveys give one for what was left blank.
  - On a local connection without C(become), C(async) and C(environment), the work is done inside Ansible's own worker, which is
    much faster than a process for each number. In every other case the module runs on the task's host, with the same results.
  - Proxies are taken from the environment (E(HTTPS_PROXY), E(NO_PROXY)). Credentials from a C(.netrc) are not used, and redirects are
    not followed.
  - Of the API's answer only an HTTP status 200 with the code C(WA-200) and C(data.success) V(true) counts as a success.
seealso:
  - module: kaleyra.whatsapp.kaleyra_flows_encryption_info
  - module: kaleyra.whatsapp.flows_endpoint_ping
  - module: community.crypto.openssl_privatekey
  - module: community.crypto.openssl_publickey
  - name: Kaleyra documentation
    description: Set Encryption Public Key (WhatsApp Flow API v2).
    link: https://developers.kaleyra.io/docs/whatsapp-flow-api-v2-set-encryption-public-key
"""

EXAMPLES = r"""
- name: Register the public key of a number
  kaleyra.whatsapp.kaleyra_flows_encryption:
    pod: in
    sid: HXAP16XXXXXX97IN
    api_key: "{{ vault_kaleyra_api_key }}"
    phone_number: "+919876543210"
    business_public_key_path: /etc/flows/public.pem

- name: Register it for many numbers, credentials from KALEYRA_SID and KALEYRA_API_KEY
  kaleyra.whatsapp.kaleyra_flows_encryption:
    pod: eu
    phone_numbers:
      - "+393331234567"
      - "+393337654321"
    business_public_key: "{{ lookup('ansible.builtin.file', 'public.pem') }}"
    max_requests_per_second: 20

- name: Register it again once a month, whatever the record says
  kaleyra.whatsapp.kaleyra_flows_encryption:
    pod: eu
    sid: HXAP16XXXXXX97IT
    api_key: "{{ vault_kaleyra_api_key }}"
    phone_number: "+393331234567"
    business_public_key_path: /etc/flows/public.pem
    cache_valid_time: 2592000

- name: Register it where no record outlives the run, with the fingerprint kept by the inventory
  kaleyra.whatsapp.kaleyra_flows_encryption:
    pod: na
    sid: HXAP16XXXXXX97US
    api_key: "{{ vault_kaleyra_api_key }}"
    phone_number: "+14155550123"
    business_public_key: "{{ flows_public_key }}"
    known_fingerprint: "{{ flows_registered_fingerprint | default('') }}"

- name: Say once what the tasks of an account share
  module_defaults:
    group/kaleyra.whatsapp.kaleyra:
      pod: eu
      sid: HXAP16XXXXXX97IT
      api_key: "{{ vault_kaleyra_api_key }}"
      cache_path: /var/lib/flows/records
  block:
    - name: Register the public key of a number
      kaleyra.whatsapp.kaleyra_flows_encryption:
        phone_number: "+393331234567"
        business_public_key_path: /etc/flows/public.pem

    - name: Ask which number of the account carries which key
      kaleyra.whatsapp.kaleyra_flows_encryption_info:
      register: flows
"""

RETURN = r"""
phone_number:
  description: The number in E.164, with its plus sign.
  returned: with O(phone_number), once the options could be read
  type: str
  sample: "+919876543210"
fingerprint:
  description:
    - SHA-256 of the wanted key's DER SubjectPublicKeyInfo, lower-case hex with colons.
    - The same string as RV(community.crypto.openssl_publickey_info#module:fingerprints) has in C(sha256).
  returned: always, once the options could be read
  type: str
  sample: 61:fa:89:3e:ff:90:f2:15:8d:cb:4a:3d:9c:52:b2:47:dc:e8:11:6e:53:5f:28:dd:48:3d:97:7c:ae:7f:48:2a
previous_fingerprint:
  description: Fingerprint of the key that the number was known to carry before, null if that was not known.
  returned: with O(phone_number), once the options could be read
  type: str
  sample: null
reason:
  description:
    - Why the key was registered, or was not.
    - V(up_to_date) is the only reason not to. V(absent) means that there is no record, V(different) that another key is on record,
      V(expired) that the record is older than O(cache_valid_time), V(forced) that only O(force) asked for it, V(unconfirmed) that an
      earlier registration did not come to its end, V(unreadable) that the record cannot be read or is that of another number.
  returned: with O(phone_number), once the options could be read
  type: str
  sample: absent
attempts:
  description: How many HTTP requests were sent, for all numbers together.
  returned: always, once the options could be read
  type: int
  sample: 1
http_status:
  description: HTTP status of the last answer.
  returned: with O(phone_number), after a call that was answered
  type: int
  sample: 200
code:
  description: Kaleyra's code in the last answer, null if it had none.
  returned: with O(phone_number), after a call that was answered
  type: str
  sample: WA-200
message:
  description: Kaleyra's message in the last answer, null if it had none.
  returned: with O(phone_number), after a call that was answered
  type: str
  sample: Request Processed Successfully
outcome:
  description:
    - What a failed call means for the number.
    - V(rejected) means that the API refused and the number keeps the key it had, V(unknown) that the key may or may not have been
      registered. The next run registers it again in both cases.
  returned: with O(phone_number), on failure after a call
  type: str
  sample: rejected
numbers:
  description:
    - What came of each number, in the order of O(phone_numbers).
    - RV(ignore:changed) of the task is true if one number changed, also if another one failed.
  returned: with O(phone_numbers), once the options could be read
  type: list
  elements: dict
  sample:
    - attempts: 0
      changed: false
      fingerprint: 61:fa:89:3e:ff:90:f2:15:8d:cb:4a:3d:9c:52:b2:47:dc:e8:11:6e:53:5f:28:dd:48:3d:97:7c:ae:7f:48:2a
      phone_number: "+393331234567"
      previous_fingerprint: 61:fa:89:3e:ff:90:f2:15:8d:cb:4a:3d:9c:52:b2:47:dc:e8:11:6e:53:5f:28:dd:48:3d:97:7c:ae:7f:48:2a
      reason: up_to_date
  contains:
    phone_number:
      description: The number in E.164, or what was given where it is none.
      type: str
    changed:
      description: Whether its key was registered, or in check mode would be.
      type: bool
    reason:
      description: As RV(reason), null where the number is none.
      type: str
    fingerprint:
      description: As RV(fingerprint).
      type: str
    previous_fingerprint:
      description: As RV(previous_fingerprint).
      type: str
    attempts:
      description: How many HTTP requests were sent for it.
      type: int
    http_status:
      description: As RV(http_status), after a call that was answered.
      type: int
    code:
      description: As RV(code), after a call that was answered.
      type: str
    message:
      description: As RV(message), after a call that was answered.
      type: str
    failed:
      description: True if it failed, and not there if it did not.
      type: bool
    msg:
      description: On failure, its cause and what to do.
      type: str
    outcome:
      description: As RV(outcome), on failure after a call.
      type: str
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._account import PODS
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._batch import register_batch
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._module import (
    PUBLIC_KEY_OPTIONS,
    PUBLIC_KEY_RULES,
    TLS_OPTIONS,
    ModuleSpec,
    from_environment,
)
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._parent import Parent
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._registration import register


def register_one_or_all(params: t.Mapping[str, t.Any], *, check_mode: bool, progress: t.Callable[[str], None], parent: Parent) -> dict[str, t.Any]:
    if params["phone_numbers"] is None:
        return register(params, check_mode=check_mode, parent=parent)
    return register_batch(params, check_mode=check_mode, progress=progress, parent=parent)


SPEC = ModuleSpec(
    register_one_or_all,
    argument_spec={
        "pod": {"type": "str", "choices": list(PODS)},
        "api_url": {"type": "str"},
        "sid": {"type": "str", "required": True, "fallback": (from_environment, ["KALEYRA_SID"])},
        "api_key": {"type": "str", "required": True, "no_log": True, "fallback": (from_environment, ["KALEYRA_API_KEY"])},
        "phone_number": {"type": "str"},
        "phone_numbers": {"type": "list", "elements": "str"},
        **PUBLIC_KEY_OPTIONS,
        "known_fingerprint": {"type": "str"},
        "cache_path": {"type": "path", "default": "~/.ansible/kaleyra_flows_encryption"},
        "cache_valid_time": {"type": "int"},
        "force": {"type": "bool", "default": False},
        "timeout": {"type": "int", "default": 30},
        "retries": {"type": "int", "default": 3},
        "concurrency": {"type": "int", "default": 8},
        "max_requests_per_second": {"type": "float"},
        **TLS_OPTIONS,
    },
    rules={
        "mutually_exclusive": [
            ("pod", "api_url"),
            ("phone_number", "phone_numbers"),
            ("known_fingerprint", "phone_numbers"),
            *PUBLIC_KEY_RULES["mutually_exclusive"],
        ],
        "required_one_of": [("phone_number", "phone_numbers"), *PUBLIC_KEY_RULES["required_one_of"]],
    },
    reports_progress=True,
)


def main() -> None:
    SPEC.run_in(AnsibleModule(argument_spec=SPEC.argument_spec, supports_check_mode=True, **SPEC.rules))


if __name__ == "__main__":
    main()
