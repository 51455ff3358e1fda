# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The order of loops that delegate."""

from __future__ import annotations

from ansible_collections.kaleyra.whatsapp.plugins.plugin_utils._delegation import delegation_order


def test_hosts_without_a_connection_come_first() -> None:
    hostvars = {"localhost": {"ansible_connection": "local"}, "flows01": {"ansible_host": "10.0.0.7"}, "gate": {"ansible_connection": "ssh"}}
    hosts = ["localhost", "flows01", "gate", "not in the inventory", "localhost"]
    ordered = delegation_order([{"key_host": host, "place": place} for place, host in enumerate(hosts)], hostvars, "key_host")
    assert [item["place"] for item in ordered] == [1, 3, 0, 2, 4]
