#!/usr/bin/python
# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: flows_endpoint_ping
short_description: Verify that a WhatsApp Flow endpoint holds the private key of a public key
version_added: 1.0.0
author:
  - kaleyra.whatsapp contributors (@kaleyra-whatsapp)
description:
  - Sends a health check to a Flow endpoint as WhatsApp does. It encrypts the request with the public key, signs it with O(app_secret) if that is
    set, and decrypts the answer.
  - An endpoint that answers the health check holds the private key, and encrypts as WhatsApp's client expects. If it holds another key, Flows
    fail from the first customer on, so verify it before you register the public key.
  - Two counter-checks follow. A request with a foreign key must be refused with HTTP 421, because WhatsApp fetches the new public key after a
    rotation only then. With O(app_secret), a request with a wrong signature must be refused with HTTP 432. If the endpoint accepts one of them,
    there is a warning.
extends_documentation_fragment:
  - kaleyra.whatsapp._attributes
  - kaleyra.whatsapp._public_key
  - kaleyra.whatsapp._tls
requirements:
  - requests
  - cryptography
attributes:
  check_mode:
    support: full
    description: Sends the same requests, because they change nothing.
  diff_mode:
    support: none
    description: Changes nothing, so there is no difference to show.
  idempotent:
    support: full
    description: Changes nothing.
options:
  url:
    description:
      - URL of the Flow endpoint, as in the Flow's settings at Meta.
      - Must be C(https). C(http) is accepted for loopback hosts only.
    type: str
    required: true
  app_secret:
    description:
      - App secret of the Meta app that the endpoint belongs to. WhatsApp signs its requests with it (C(X-Hub-Signature-256)).
      - Without it, the request is unsigned, and an endpoint that checks signatures refuses it.
    type: str
  timeout:
    description:
      - Seconds for each request as a whole. WhatsApp's client waits 10.
    type: int
    default: 10
notes:
  - An empty string counts as not set, for every option.
  - Proxies are taken from the environment (E(HTTPS_PROXY), E(NO_PROXY)). Redirects are not followed.
  - Failed requests are not repeated. To wait for an endpoint, use C(until) as in the example.
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
- name: Verify that the endpoint holds the private key
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
  returned: always, once the options are valid
  type: bool
  sample: true
fingerprint:
  description: SHA-256 of the public key's DER SubjectPublicKeyInfo, in lower-case hex with colons.
  returned: always, once the options are valid
  type: str
  sample: 61:fa:89:3e:ff:90:f2:15:8d:cb:4a:3d:9c:52:b2:47:dc:e8:11:6e:53:5f:28:dd:48:3d:97:7c:ae:7f:48:2a
latency_ms:
  description: Milliseconds from connecting to the last byte of the answer, null without an answer. From 1000, there is a warning.
  returned: always, once the options are valid
  type: int
  sample: 84
http_status:
  description: HTTP status of the answer to the health check, null without an answer.
  returned: always, once the options are valid
  type: int
  sample: 200
foreign_key:
  description:
    - Answer to a request that is encrypted with a key whose private key nobody holds. C(http_status) is null without an answer, and C(msg) gives
      the cause then. C(refused) is true if the status was HTTP 421. Null if the endpoint is not active.
  returned: always, once the options are valid
  type: dict
  sample: {"http_status": 421, "refused": true}
wrong_signature:
  description:
    - Answer to a request with a wrong signature, in the same form. C(refused) is true if the status was HTTP 432.
    - Null without O(app_secret), or if the endpoint is not active.
  returned: always, once the options are valid
  type: dict
  sample: {"http_status": 432, "refused": true}
cause:
  description:
    - Why the verification failed. One of V(key_mismatch) (HTTP 421), V(signature_refused) (HTTP 432), V(redirect), V(http_status)
      (any other), V(timeout), V(tls), V(connection), V(not_base64), V(clear_json), V(iv_not_inverted), V(wrong_tag),
      V(not_decryptable), V(not_json) and V(not_active).
  returned: when the request was sent and the verification failed

  type: str
  sample: key_mismatch
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._endpoint import verify_endpoint
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._module import PUBLIC_KEY_OPTIONS, PUBLIC_KEY_RULES, TLS_OPTIONS, ModuleSpec

SPEC = ModuleSpec(
    verify_endpoint,
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
