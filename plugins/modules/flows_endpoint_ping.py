#!/usr/bin/python
# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: flows_endpoint_ping
short_description: Prove that a WhatsApp Flow endpoint holds the private key of a public key
version_added: 1.0.0
author:
  - kaleyra.whatsapp contributors (@kaleyra-whatsapp)
description:
  - Does to a Flow endpoint what WhatsApp does. It encrypts a health check under the public key, signs it with the app secret where one
    is given, sends it, and reads the encrypted answer.
  - An endpoint that answers proves that it holds the private key, and that it encrypts as WhatsApp's client expects. One that holds
    another key would fail in front of customers, so ask it before a public key is registered.
  - Two counter-checks follow. A request under a foreign key must be refused with HTTP 421, which is what makes WhatsApp fetch the new
    public key after a rotation. With O(app_secret), a request with a wrong signature must be refused with HTTP 432. An endpoint
    that does not refuse them is a warning.
requirements:
  - requests
  - cryptography
attributes:
  check_mode:
    support: full
    description: Asks the endpoint in check mode, too, as nothing is changed by that.
  diff_mode:
    support: none
    description: There is no difference to show.
  idempotent:
    support: full
    description: Never changes anything.
  async:
    support: full
    description: Can be used with C(async).
options:
  url:
    description:
      - URL of the Flow endpoint, as it stands in the Flow's settings at Meta.
      - Must be C(https). C(http) is for loopback hosts alone.
    type: str
    required: true
  business_public_key:
    description:
      - PEM of the RSA public key with 2048 bits (C(BEGIN PUBLIC KEY)).
      - Exactly one of O(business_public_key) and O(business_public_key_path) is needed.
    type: str
  business_public_key_path:
    description:
      - Path of a file with the PEM, on the host where the task runs.
    type: path
  app_secret:
    description:
      - Secret of the Meta app that the endpoint belongs to. WhatsApp signs its requests with it (C(X-Hub-Signature-256)).
      - Without it the request goes unsigned, which an endpoint that checks signatures refuses.
    type: str
  timeout:
    description:
      - Seconds that each request may last as a whole. WhatsApp's client gives up after 10.
    type: int
    default: 10
  validate_certs:
    description:
      - Whether the endpoint must prove who it is. WhatsApp insists on it.
    type: bool
    default: true
  ca_path:
    description:
      - PEM file (or hashed folder) with the certificate authorities to trust.
      - Without it the system's trust store counts, as with C(curl).
    type: path
notes:
  - An empty string counts as not given, for every option.
  - Proxies are taken from the environment (E(HTTPS_PROXY), E(NO_PROXY)), and redirects are not followed.
  - Nothing is repeated. To wait for an endpoint, use C(until), as in the example.
seealso:
  - module: kaleyra.whatsapp.kaleyra_flows_encryption
  - name: Implementing endpoints for Flows
    description: Meta's description of the encryption and of the health check.
    link: https://developers.facebook.com/docs/whatsapp/flows/guides/implementingyourflowendpoint
  - name: Flow health and monitoring
    description: Meta's limits for endpoints.
    link: https://developers.facebook.com/docs/whatsapp/flows/guides/healthmonitoring
"""

EXAMPLES = r"""
- name: Prove that the endpoint holds the private key
  kaleyra.whatsapp.flows_endpoint_ping:
    url: https://flows.example.com/endpoint
    business_public_key_path: /etc/flows/private.pub.pem
    app_secret: "{{ vault_meta_app_secret }}"

- name: Wait until the endpoint has loaded its new key
  kaleyra.whatsapp.flows_endpoint_ping:
    url: https://flows.example.com/endpoint
    business_public_key: "{{ lookup('ansible.builtin.file', 'next.pub.pem') }}"
  register: flows_endpoint
  until: flows_endpoint is success
  retries: 10
  delay: 3
"""

RETURN = r"""
active:
  description: Whether the endpoint decrypted the health check and answered that it is active.
  returned: always, once the options could be read
  type: bool
  sample: true
fingerprint:
  description: SHA-256 of the public key's DER SubjectPublicKeyInfo, lower-case hex with colons.
  returned: always, once the options could be read
  type: str
  sample: 61:fa:89:3e:ff:90:f2:15:8d:cb:4a:3d:9c:52:b2:47:dc:e8:11:6e:53:5f:28:dd:48:3d:97:7c:ae:7f:48:2a
latency_ms:
  description: Milliseconds from connecting to the last byte of the answer, null without an answer. From 1000 on there is a warning.
  returned: always, once the options could be read
  type: int
  sample: 84
http_status:
  description: HTTP status of the answer to the health check, null without an answer.
  returned: always, once the options could be read
  type: int
  sample: 200
foreign_key:
  description:
    - What came back for a request under a key that nobody holds, as C(http_status) (null without an answer, C(msg) then says why) and
      C(refused), which is whether it was HTTP 421. Null where the endpoint is not active.
  returned: always, once the options could be read
  type: dict
  sample: {"http_status": 421, "refused": true}
wrong_signature:
  description:
    - What came back for a request with a wrong signature, as C(http_status) (null without an answer, C(msg) then says why) and
      C(refused), which is whether it was HTTP 432. Null without O(app_secret), and where the endpoint is not active.
  returned: always, once the options could be read
  type: dict
  sample: {"http_status": 432, "refused": true}
cause:
  description:
    - Why the endpoint is not proved. One of V(key_mismatch) (HTTP 421), V(signature_refused) (HTTP 432), V(redirect), V(http_status)
      (any other), V(timeout), V(tls), V(connection), V(not_base64), V(clear_json), V(iv_not_inverted), V(wrong_tag),
      V(not_decryptable), V(not_json) and V(not_active).
  returned: when the endpoint was asked and did not prove it
  type: str
  sample: key_mismatch
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._endpoint import prove
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._module import PUBLIC_KEY_OPTIONS, PUBLIC_KEY_RULES, TLS_OPTIONS, ModuleSpec

SPEC = ModuleSpec(
    prove,
    argument_spec={
        "url": {"type": "str", "required": True},
        **PUBLIC_KEY_OPTIONS,
        "app_secret": {"type": "str", "no_log": True},
        "timeout": {"type": "int", "default": 10},
        **TLS_OPTIONS,
    },
    rules=PUBLIC_KEY_RULES,
)


def main() -> None:
    SPEC.run_in(AnsibleModule(argument_spec=SPEC.argument_spec, supports_check_mode=True, **SPEC.rules))


if __name__ == "__main__":
    main()
