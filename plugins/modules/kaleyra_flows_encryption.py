#!/usr/bin/python
# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: kaleyra_flows_encryption
short_description: Register the public key that encrypts the WhatsApp Flows of a number
version_added: 1.0.0
author:
  - kaleyra.whatsapp contributors (@kaleyra-whatsapp)
description:
  - Registers an RSA public key for WhatsApp Business numbers, with the call C(flows_encryption) of Kaleyra's WhatsApp Flow API v2. Use it for
    one number, or for a list of thousands, which is much faster than a loop.
  - The number must be registered on WhatsApp, its WhatsApp Business Account (WABA) onboarded on Kaleyra's WhatsApp API v2, and the account must
    have an active WhatsApp plan.
  - For each number, the module keeps a small record of the key that was last confirmed, and sends nothing while that is the wanted key. With
    O(read_back), it reads which key the number carries, and uses that instead of the record.
  - The record is written as unconfirmed before the request, and confirmed after a success. After a crash or a lost answer
    in between, the next run registers the key again, which is harmless.
requirements:
  - requests
  - cryptography
  - Both are needed only to register a key or to read one back.
attributes:
  check_mode:
    support: full
    description:
      - Registers and writes nothing, and sends nothing but the GET requests of O(read_back).
      - Returns the same RV(ignore:changed), RV(reason) and RV(ignore:diff) as a real run would.
  diff_mode:
    support: full
    description: Shows public data only.
  idempotent:
    support: partial
    description:
      - Depends on the record, or on O(read_back). Without the latter, the module does not notice if somebody else has set another key since, or
        if the number was registered again on WhatsApp and lost its key. Use O(read_back), O(force) or O(cache_valid_time) for that.
      - If the record does not outlive the run, as in a container, each run registers the key again, unless it is read back.
  action_group:
    description:
      - Use C(group/kaleyra.whatsapp.kaleyra) in C(module_defaults) to set common options for all tasks of an account, as in the example. The other
        module of the group is M(kaleyra.whatsapp.kaleyra_flows_encryption_info).
      - Both modules have O(pod), O(api_url), O(sid), O(api_key), O(cache_path), O(timeout), O(retries), O(validate_certs), O(ca_path),
        O(phone_numbers), O(business_public_key), O(business_public_key_path), O(concurrency), O(max_requests_per_second), O(read_back) and
        the options that belong to it. Set defaults of other options for this module only.
options:
  pod:
    description:
      - Pod of the account. V(in) is C(api.in.kaleyra.io), V(sg) is C(api.kaleyra.io), V(eu) is C(api.eu.kaleyra.io),
        V(na) is C(api.na.kaleyra.ai).
      - Set exactly one of O(pod) and O(api_url).
      - If neither is set, the environment variables E(KALEYRA_POD) and E(KALEYRA_API_URL) are used.
    type: str
    choices: [in, sg, eu, na]
  api_url:
    description:
      - Base URL of the API, instead of O(pod), for example for a new domain.
      - Must be C(https). C(http) is accepted for loopback hosts only.
    type: str
  sid:
    description:
      - Account SID, for example V(HXAP16XXXXXX97IN).
      - Required, unless the environment variable E(KALEYRA_SID) is set.
    type: str
  api_key:
    description:
      - API key of the account.
      - Required, unless the environment variable E(KALEYRA_API_KEY) is set.
    type: str
  phone_number:
    description:
      - The business number in E.164, for example V(+919876543210).
      - Spaces, dots, dashes, brackets and a missing plus sign are accepted. A missing plus sign causes a warning with the country of the
        resulting number.
      - Set exactly one of O(phone_number) and O(phone_numbers).
    type: str
  phone_numbers:
    description:
      - Business numbers, instead of O(phone_number). A number that is listed twice is registered once.
      - Each number has its own record, and its own outcome in RV(numbers). Every number is tried, and the task fails at the end if one
        failed or is not a number.
      - With an empty list, nothing is done.
    type: list
    elements: str
  known_fingerprint:
    description:
      - Fingerprint of the key that you know the number to carry, as returned in RV(fingerprint).
      - Cannot be used with O(phone_numbers).
      - Replaces the record. Nothing is read from or written to O(cache_path) then, and O(cache_valid_time) has no effect.
      - For each number, set it always or never, because an older record on disk is not updated.
      - Store it only after a success. After a failure with RV(outcome=unknown), it is no longer known, so set O(force).
    type: str
  cache_path:
    description:
      - Folder of the records, on the host where the task runs. It is created if needed.
      - Each API host, account and number has its own file, so any number of hosts and processes can share the folder.
      - On a local connection, a relative path is relative to the working directory of C(ansible-playbook).
    type: path
    default: ~/.ansible/kaleyra_flows_encryption
  cache_valid_time:
    description:
      - A record that is older than this many seconds is ignored, and the key is registered again.
      - By default, records do not expire.
    type: int
  force:
    description:
      - Whether to register the key even if the record is up to date.
    type: bool
    default: false
  timeout:
    description:
      - Seconds for each attempt as a whole, from the name look-up to the last byte of the answer.
    type: int
    default: 30
  retries:
    description:
      - Number of further attempts after a failure that may be temporary, that is, a connection failure or one of the HTTP statuses 429, 500,
        502, 503 and 504.
      - The pause before each attempt is as long as the server asks for (C(Retry-After)), or else about 1, 2, 4 seconds and so on, but never
        longer than O(timeout).
    type: int
    default: 3
  concurrency:
    description:
      - How many requests for O(phone_numbers) are sent at once, each over its own connection, from V(1) to V(100).
    type: int
    default: 8
  max_requests_per_second:
    description:
      - Maximum number of requests a second for O(phone_numbers), further attempts included, evenly spaced. V(0.5) is one every two seconds.
      - By default, there is no limit other than O(concurrency).
      - In any case, an HTTP status 429 pauses all numbers of the task for as long as the API asks for. The task then finds the rate that the
        account allows. If the API answers every request with 429 for (2 * O(retries) + 1) * O(timeout) seconds, the numbers that are left fail
        without a request.
    type: float
extends_documentation_fragment:
  - kaleyra.whatsapp._attributes
  - kaleyra.whatsapp._attributes.action_group
  - kaleyra.whatsapp._public_key
  - kaleyra.whatsapp._read_back
  - kaleyra.whatsapp._tls
notes:
  - An empty string counts as not set, for every option. Credential forms and surveys use it for a blank field.
  - On a local connection without C(become), C(async) and C(environment), the work is done inside Ansible's own worker, which is
    much faster than a process for each number. Otherwise the module runs on the task's host, with the same results.
  - Proxies are taken from the environment (E(HTTPS_PROXY), E(NO_PROXY)). Credentials from a C(.netrc) are not used, and redirects are
    not followed.
  - Only an answer with the HTTP status 200, the code C(WA-200) and C(data.success) V(true) counts as a success.
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

- name: Register it again once a month, even if the record is up to date
  kaleyra.whatsapp.kaleyra_flows_encryption:
    pod: eu
    sid: HXAP16XXXXXX97IT
    api_key: "{{ vault_kaleyra_api_key }}"
    phone_number: "+393331234567"
    business_public_key_path: /etc/flows/public.pem
    cache_valid_time: 2592000

- name: Register it where records are lost, with the fingerprint from the inventory
  kaleyra.whatsapp.kaleyra_flows_encryption:
    pod: na
    sid: HXAP16XXXXXX97US
    api_key: "{{ vault_kaleyra_api_key }}"
    phone_number: "+14155550123"
    business_public_key: "{{ flows_public_key }}"
    known_fingerprint: "{{ flows_registered_fingerprint | default('') }}"

- name: Register it for the numbers that do not carry it, even if their records are up to date
  kaleyra.whatsapp.kaleyra_flows_encryption:
    pod: in
    sid: HXAP16XXXXXX97IN
    api_key: "{{ vault_kaleyra_api_key }}"
    phone_numbers: ["+919876543210", "+919876543211"]
    business_public_key_path: /etc/flows/public.pem
    read_back: meta
    meta_access_token: "{{ vault_meta_access_token }}"
    meta_waba_ids: ["102290129340398"]

- name: Set the common options of an account once
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

    - name: Read which number of the account carries which key
      kaleyra.whatsapp.kaleyra_flows_encryption_info:
      register: flows
"""

RETURN = r"""
phone_number:
  description: The number in E.164, with its plus sign.
  returned: with O(phone_number), once the options are valid
  type: str
  sample: "+919876543210"
fingerprint:
  description:
    - SHA-256 of the wanted key's DER SubjectPublicKeyInfo, lower-case hex with colons.
    - The same string as C(sha256) in RV(community.crypto.openssl_publickey_info#module:fingerprints).
  returned: always, once the options are valid
  type: str
  sample: 61:fa:89:3e:ff:90:f2:15:8d:cb:4a:3d:9c:52:b2:47:dc:e8:11:6e:53:5f:28:dd:48:3d:97:7c:ae:7f:48:2a
previous_fingerprint:
  description: Fingerprint of the key that the number was known to carry before, null if unknown.
  returned: with O(phone_number), once the options are valid
  type: str
  sample: null
reason:
  description:
    - Why the key was registered or not.
    - V(up_to_date) is the only reason not to register it. V(absent) means that there is no record, V(different) that another key is on record,
      V(expired) that the record is older than O(cache_valid_time), V(forced) that it was registered only because of O(force), V(unconfirmed)
      that an earlier registration did not complete, V(unreadable) that the record cannot be read or belongs to another number.
    - With O(read_back), V(up_to_date), V(absent) and V(different) refer to the key that the number carries. V(drifted) means that the wanted key is
      on record, but the number carries another key or none, V(mismatch) that it carries the wanted key with that status.
  returned: with O(phone_number), once the options are valid
  type: str
  sample: absent
attempts:
  description: Number of HTTP requests that were sent, for all numbers together.
  returned: always, once the options are valid
  type: int
  sample: 1
held_fingerprint:
  description:
    - Fingerprint of the key that the number carried, as read before anything was registered.
    - Null if the number carried no key, or if the key could not be read.
  returned: with O(phone_number) and O(read_back)
  type: str
  sample: null
held_status:
  description: Status of that key's signature, V(valid), V(mismatch), or null if none was given.
  returned: with O(phone_number) and O(read_back)
  type: str
  sample: null
verified:
  description:
    - Whether the number was seen to carry the key after it was registered. V(false) is a failure with RV(outcome=unknown).
    - Null if that could not be read, or if nothing was registered.
  returned: with O(phone_number) and O(read_back)
  type: bool
  sample: true
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
    - V(rejected) means that the API refused the key and the number keeps the one it had, V(unknown) that the key may or may not have been
      registered. In both cases, the next run registers it again.

  returned: with O(phone_number), on failure after a call
  type: str
  sample: rejected
numbers:
  description:
    - Outcome of each number, in the order of O(phone_numbers).
    - RV(ignore:changed) of the task is true if one number changed, even if another one failed.
    - If more than 20 numbers failed with the same error, those after the 20th have RV(numbers[].phone_number), RV(numbers[].changed),
      RV(numbers[].failed), RV(numbers[].outcome), an RV(numbers[].msg) that names the first number with the error, and only those values
      that differ from the result of that number.
  returned: with O(phone_numbers), once the options are valid
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
      description: The number in E.164, or what was given if it is not a number.
      type: str
    changed:
      description: Whether its key was registered, or would be in check mode.
      type: bool
    reason:
      description: As RV(reason), null if it is not a number.
      type: str
    fingerprint:
      description: As RV(fingerprint).
      type: str
    previous_fingerprint:
      description: As RV(previous_fingerprint).
      type: str
    attempts:
      description: Number of HTTP requests that were sent for it.
      type: int
    held_fingerprint:
      description: As RV(held_fingerprint), with O(read_back).
      type: str
    held_status:
      description: As RV(held_status), with O(read_back).
      type: str
    verified:
      description: As RV(verified), with O(read_back).
      type: bool
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
      description: True if it failed, otherwise not present.
      type: bool
    msg:
      description: On failure, the cause and what to do.
      type: str
    outcome:
      description: As RV(outcome), on failure after a call.
      type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._account import PODS
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._batch import register
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._module import (
    PUBLIC_KEY_OPTIONS,
    PUBLIC_KEY_RULES,
    READ_BACK_OPTIONS,
    TLS_OPTIONS,
    ModuleSpec,
    from_environment,
)

SPEC = ModuleSpec(
    register,
    argument_spec={
        "pod": {"type": "str", "choices": list(PODS)},
        "api_url": {"type": "str"},
        "sid": {"type": "str", "fallback": (from_environment, ["KALEYRA_SID"])},
        "api_key": {"type": "str", "no_log": True, "fallback": (from_environment, ["KALEYRA_API_KEY"])},
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
        **READ_BACK_OPTIONS,
        **TLS_OPTIONS,
    },
    rules={
        "mutually_exclusive": [
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
