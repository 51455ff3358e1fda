# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Orders the items of a loop that are delegated to different hosts, so that each is done on its own host."""

from __future__ import annotations

import typing as t


def delegation_order(items: t.Iterable[t.Mapping[str, t.Any]], hostvars: t.Mapping[str, t.Any], name: str) -> list[t.Mapping[str, t.Any]]:
    """Return the items, those first whose host has no variable ``ansible_connection``.

    Ansible uses the connection of the previous item for such a host (https://github.com/ansible/ansible/issues/65783): after an item on
    localhost, the work for a remote host would be done on the controller.

    :param hostvars: of all hosts
    :param name: of the item's host in each item
    """
    return sorted(items, key=lambda item: item[name] in hostvars and "ansible_connection" in hostvars[item[name]])
