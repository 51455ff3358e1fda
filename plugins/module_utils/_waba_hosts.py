# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Turns the numbers of WhatsApp Business Accounts into hosts of an inventory."""

from __future__ import annotations

import json
import typing as t

from ._errors import InvalidInput
from ._graph_api import GraphApi, number_with_id

_ALWAYS = ("id", "display_phone_number")


def hosts_of(api: GraphApi, waba_ids: t.Sequence[str], fields: t.Sequence[str], warn: t.Callable[[str], object]) -> dict[str, dict[str, t.Any]]:
    """Return a dictionary of number in E.164 -> variables, each with the prefix ``waba_``.

    :param fields: further fields of a phone number to read
    :param warn: called for each entry without a number or an ID
    :raises GraphApiError: an account could not be read
    :raises InvalidInput: a number is listed twice
    """
    api.prepare()
    hosts: dict[str, dict[str, t.Any]] = {}
    for waba_id in waba_ids:
        for listed in api.phone_numbers(waba_id, list(dict.fromkeys([*_ALWAYS, *fields])))[0]:
            number, phone_number_id = number_with_id(listed) or (None, None)
            if number is None:
                warn(f"The WhatsApp Business Account {waba_id} has an entry without a number in E.164 or without an ID, which is ignored.")
                continue
            if number in hosts:
                raise InvalidInput(
                    f"{number} is listed twice: as phone number ID {hosts[number]['waba_phone_number_id']} by the WhatsApp Business Account "
                    f"{hosts[number]['waba_id']}, and as {phone_number_id} by {waba_id}. Remove the account that the number has left."
                )
            further = {f"waba_{name}": value for name, value in listed.items() if name != "id"}
            hosts[number] = {**further, "waba_phone_number_id": phone_number_id, "waba_id": waba_id}
    return hosts


def could_be_template(value: t.Any) -> bool:
    """Whether an untrusted value must be marked, because Ansible before 2.19 would evaluate it. Others are not, because marks are visible in AWX."""
    text = json.dumps(value)
    return any(start in text for start in ("{{", "{%", "{#"))
