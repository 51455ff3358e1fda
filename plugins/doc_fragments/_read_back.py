# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options for reading back which key a number carries."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  read_back:
    description:
      - Where to read which key a number carries. With V(none), nothing is read.
      - V(meta) is Meta's Graph API, which documents its answers. It needs O(meta_access_token), and O(meta_waba_ids) or
        O(meta_phone_number_ids).
      - V(kaleyra) is a GET request to the URL that sets the key, with O(api_key). Kaleyra has not published its answer, so the key may turn out to
        be unreadable.
      - Only GET requests are sent to read a key, in check mode too.
      - If a key is registered in any case (C(force)), it is read only after that, unless O(read_back_required) is V(true).
    type: str
    choices: [none, meta, kaleyra]
    default: none
  read_back_required:
    description:
      - Whether a number fails, before anything is registered for it, if its key cannot be read.
      - Otherwise there is a warning, and the record is used.
    type: bool
    default: false
  meta_access_token:
    description:
      - Access token of a system user of the business that owns the number's WhatsApp Business Account, with the permission
        C(whatsapp_business_messaging) or C(whatsapp_business_management).
      - If it is not set, the environment variable E(META_ACCESS_TOKEN) is used.
    type: str
  meta_waba_ids:
    description:
      - IDs of the WhatsApp Business Accounts that the numbers belong to. The phone number IDs are looked up there, once in a task.
      - If it is not set, the environment variable E(META_WABA_IDS) is used, with commas between the IDs.
    type: list
    elements: str
  meta_phone_number_ids:
    description:
      - Dictionary of Meta's phone number ID for each number in E.164. Numbers in it are not looked up.
      - The inventory plugin P(kaleyra.whatsapp.waba_numbers#inventory) gives each host the variable C(waba_phone_number_id).
    type: dict
  meta_api_url:
    description:
      - Base URL of the Graph API, with its version.
      - Must be C(https). C(http) is accepted for loopback hosts only.

    type: str
    default: https://graph.facebook.com/v23.0
"""
