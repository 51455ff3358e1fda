# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: waba_numbers
short_description: Phone numbers of WhatsApp Business Accounts as hosts
version_added: 1.0.0
author:
  - kaleyra.whatsapp contributors (@kaleyra-whatsapp)
description:
  - Reads the numbers of WhatsApp Business Accounts from Meta's Graph API, so that no new number is forgotten.
  - The name of a host is its number in E.164, for example C(+919876543210). Its variables are C(waba_id), the ID of its account,
    C(waba_phone_number_id), the ID of the number, C(waba_display_phone_number), and one for each of O(fields), all with the prefix C(waba_).
  - For these hosts, O(kaleyra.whatsapp.kaleyra_flows_encryption#module:read_back=meta) in the role does not need to look up their IDs.
  - The name of the configuration file must end with C(waba_numbers.yml) or C(waba_numbers.yaml).
requirements:
  - requests
extends_documentation_fragment:
  - constructed
  - inventory_cache
options:
  plugin:
    description: V(kaleyra.whatsapp.waba_numbers).
    type: str
    required: true
    choices: [kaleyra.whatsapp.waba_numbers]
  meta_access_token:
    description:
      - Access token of a system user of the business that owns the accounts, with the permission C(whatsapp_business_management).
      - Can be a template, for example for a variable from a vault.
    type: str
    required: true
    env:
      - name: META_ACCESS_TOKEN
  meta_waba_ids:
    description:
      - IDs of the WhatsApp Business Accounts. In the environment, separated by commas.
      - Can be templates.
    type: list
    elements: str
    required: true
    env:
      - name: META_WABA_IDS
  meta_api_url:
    description:
      - Base URL of the Graph API, with its version. Must be C(https). C(http) is accepted for loopback hosts only.
      - Can be a template.
    type: str
    default: https://graph.facebook.com/v23.0
  fields:
    description: Further fields of a phone number to read, from Meta's documentation.
    type: list
    elements: str
    default: [verified_name, status, quality_rating]
  timeout:
    description: Seconds that one attempt may take as a whole.
    type: int
    default: 30
  retries:
    description: Number of further attempts after a failure that may be temporary.
    type: int
    default: 3
  validate_certs:
    description: Whether to verify the certificate of the API host. Disable it in tests only.
    type: bool
    default: true
  ca_path:
    description: PEM file (or hashed folder) with the certificate authorities to trust. By default, the system's trust store is used.
    type: path
notes:
  - If the API cannot be read, or refuses, this source fails and gives no hosts. By default, Ansible continues with a warning if a
    source fails. Set E(ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED) to V(true) to make it stop. AWX always stops.
  - A number that is listed twice, for example by two accounts, is an error, because it is not clear which of its IDs is in use.

"""

EXAMPLES = r"""
# eu.waba_numbers.yml. With META_ACCESS_TOKEN in the environment, plugin and meta_waba_ids are enough.
# This one has the token from a vaulted file, a group for each account, and one of the numbers in use.
plugin: kaleyra.whatsapp.waba_numbers
meta_access_token: "{{ lookup('ansible.builtin.file', 'meta_access_token') }}"
meta_waba_ids:
  - "102290129340398"
  - "104996122399160"
fields: [verified_name, status, quality_rating, code_verification_status]
keyed_groups:
  - key: waba_id
    prefix: waba
groups:
  connected: waba_status == 'CONNECTED'
compose:
  flows_encryption_pod: "'eu'"
cache: true
cache_plugin: ansible.builtin.jsonfile
cache_connection: .cache/inventory
"""

import typing as t

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable
from ansible.utils.unsafe_proxy import wrap_var
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._errors import KaleyraError
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._graph_api import check_fields, check_waba_ids, make_graph_api
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._http import Tls
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._reader import Reader
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._waba_hosts import could_be_template, hosts_of

_TEMPLATES = ("meta_access_token", "meta_waba_ids", "meta_api_url")


class InventoryModule(BaseInventoryPlugin, Constructable, Cacheable):
    NAME = "kaleyra.whatsapp.waba_numbers"

    def verify_file(self, path: str) -> bool:
        return bool(super().verify_file(path)) and path.endswith(("waba_numbers.yml", "waba_numbers.yaml"))

    def parse(self, inventory: t.Any, loader: t.Any, path: str, cache: bool = True) -> None:
        super().parse(inventory, loader, path, cache)
        config = self._read_config_data(path)
        options = {name: self._option(name, name in config) for name in _TEMPLATES}
        try:
            hosts = self._hosts(options, self.get_cache_key(path), use_cache=cache)
        except KaleyraError as exc:
            raise AnsibleParserError(str(exc)) from exc
        for name, variables in hosts.items():
            self._add_host(name, variables)

    def _option(self, name: str, is_in_file: bool) -> t.Any:
        value = self.get_option(name)
        if not is_in_file:
            return value
        self.templar.available_variables = self._vars or {}
        return self.templar.template(value)

    def _hosts(self, options: dict[str, t.Any], cache_key: str, *, use_cache: bool) -> dict[str, dict[str, t.Any]]:
        """Return each host's variables, from the cache or from the API."""
        waba_ids = check_waba_ids(options["meta_waba_ids"], "meta_waba_ids")
        fields = check_fields(self.get_option("fields"), "fields")
        reader = Reader(self.get_option("timeout"), self.get_option("retries"), Tls(self.get_option("validate_certs"), self.get_option("ca_path")))
        api = make_graph_api(str(options["meta_api_url"]), str(options["meta_access_token"]), reader)
        asked = {"api": api.base_url, "waba_ids": waba_ids, "fields": fields}
        caches = self.get_option("cache")
        if caches and use_cache:
            try:
                content = self._cache[cache_key]
            except KeyError:
                content = {}
            if content.get("asked") == asked:
                return t.cast("dict[str, dict[str, t.Any]]", content["hosts"])
        hosts = hosts_of(api, waba_ids, fields, self.display.warning)
        if caches:
            self._cache[cache_key] = {"asked": asked, "hosts": hosts}
        return hosts

    def _add_host(self, name: str, variables: dict[str, t.Any]) -> None:
        if self.inventory is None:
            raise AssertionError("parse() was not called")
        self.inventory.add_host(name)
        variables = {key: wrap_var(value) if could_be_template(value) else value for key, value in variables.items()}
        for key, value in variables.items():
            self.inventory.set_variable(name, key, value)
        strict = self.get_option("strict")
        self._set_composite_vars(self.get_option("compose"), variables, name, strict=strict)
        self._add_host_to_composed_groups(self.get_option("groups"), variables, name, strict=strict)
        self._add_host_to_keyed_groups(self.get_option("keyed_groups"), variables, name, strict=strict)
