# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which key each number carries, and the settings and answers of the two APIs that tell it.

Meta's Graph API prints its answers; Kaleyra's page does not, so that its shape is a setting, and none of them by default.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlencode, urlsplit

from . import _rules

SHAPES = ("flat", "data", "list")
_GRAPH_PATH = re.compile(r"/v[0-9]+\.[0-9]+/([0-9]+)/(phone_numbers|whatsapp_business_encryption)(?:\?.*)?")


class Held(NamedTuple):
    """A key that a number carries; `status` as Meta gives it, None for an answer without one."""

    key: _rules.PublicKey
    status: str | None = "VALID"


class HeldKeys:
    """The keys that numbers carry. A new one becomes visible to readers `delay` seconds after it was set."""

    def __init__(self) -> None:
        self._keys: dict[str, tuple[Held | None, Held | None, float]] = {}

    def set(self, phone_number: str, held: Held | None, delay: float = 0.0) -> None:
        self._keys[phone_number] = (held, self.visible(phone_number), time.monotonic() + delay)

    def visible(self, phone_number: str) -> Held | None:
        """What a reader is told now."""
        current, earlier, since = self._keys.get(phone_number, (None, None, 0.0))
        return current if time.monotonic() >= since else earlier


@dataclass
class Settings:
    """How both APIs read back, as tests order it.

    :param kaleyra_get: shape of Kaleyra's answer to GET, None for 405
    :param meta_shape: shape of Meta's answer
    :param access_token: the only one that Meta's API accepts, none by default
    :param wabas: WABA ID -> its numbers, objects with `id`, `display_phone_number` and whatever else Meta tells
    :param page_size: numbers in a page at most
    :param visible_after: seconds until readers see a key that was set
    """

    kaleyra_get: str | None = None
    meta_shape: str = "flat"
    access_token: str | None = None
    wabas: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    page_size: int = 25
    visible_after: float = 0.0

    def __post_init__(self) -> None:
        self._numbers = {
            number["id"]: "+" + re.sub(r"[^0-9]", "", str(number["display_phone_number"])) for numbers in self.wabas.values() for number in numbers
        }

    def update(self, document: Any) -> None:
        """Take the settings that are given. Raises ValueError, and changes nothing, if one is not known."""
        known = {each.name for each in fields(self)}
        if not isinstance(document, dict) or not document.keys() <= known:
            raise ValueError(f"settings must be a JSON object with some of {', '.join(sorted(known))}")
        if document.get("kaleyra_get") not in (None, *SHAPES) or document.get("meta_shape", "flat") not in SHAPES:
            raise ValueError(f"a shape must be one of {', '.join(SHAPES)}")
        for name, value in document.items():
            setattr(self, name, value)
        self.__post_init__()

    def phone_number(self, phone_number_id: str) -> str | None:
        """The number with this ID in E.164."""
        return self._numbers.get(phone_number_id)


class GraphTarget(NamedTuple):
    """What a path of the Graph API names: an object's ID, its edge, and the query."""

    object_id: str
    edge: str
    query: dict[str, str]


def parse_graph_path(raw_path: str) -> GraphTarget | None:
    """Read a path of the Graph API; None for any other."""
    match = _GRAPH_PATH.fullmatch(raw_path)
    if not match:
        return None
    return GraphTarget(match[1], match[2], {name: values[-1] for name, values in parse_qs(urlsplit(raw_path).query).items()})


def kaleyra_answer(shape: str | None, held: Held | None) -> _rules.Answer:
    """What Kaleyra says to GET on the setter's URL."""
    if shape is None:
        return _rules.METHOD_NOT_ALLOWED
    envelope = {"code": "WA-200", "message": "Request Processed Successfully", "error": {}}
    return _answer(200, {**envelope, **_shaped(shape, held)}, "WA-200")


def graph_answer(settings: Settings, keys: HeldKeys, *, method: str, target: GraphTarget, authorization: str | None, base_url: str) -> _rules.Answer:
    """What Meta says to a request."""
    if settings.access_token is None or authorization != f"Bearer {settings.access_token}":
        return graph_error(401, 190, "Invalid OAuth access token - Cannot parse access token")
    phone_number = settings.phone_number(target.object_id)
    known = target.object_id in settings.wabas if target.edge == "phone_numbers" else phone_number is not None
    if method != "GET" or not known:
        message = f"Unsupported {method.lower()} request. Object with ID '{target.object_id}' does not exist or does not support this operation."
        return graph_error(400, 100, message, subcode=33)
    if phone_number is not None and target.edge == "whatsapp_business_encryption":
        return _answer(200, _shaped(settings.meta_shape, keys.visible(phone_number)))
    return _page(settings, target, base_url)


def graph_error(status: int, code: int, message: str, *, subcode: int | None = None) -> _rules.Answer:
    """One of Meta's errors."""
    error: dict[str, Any] = {"message": message, "type": "OAuthException", "code": code, "fbtrace_id": "AbCdEfGh1234"}
    if subcode is not None:
        error["error_subcode"] = subcode
    return _answer(status, {"error": error}, str(code))


def _page(settings: Settings, target: GraphTarget, base_url: str) -> _rules.Answer:
    asked = [name for name in target.query.get("fields", "id,display_phone_number,verified_name,quality_rating").split(",") if name]
    size = min(int(target.query.get("limit", settings.page_size)), settings.page_size)
    start = int(base64.b64decode(target.query["after"])) if "after" in target.query else 0
    numbers = settings.wabas[target.object_id]
    end = start + size
    page: dict[str, Any] = {"data": [{name: number[name] for name in (*asked, "id") if name in number} for number in numbers[start:end]]}
    if numbers:
        cursors = {"before": base64.b64encode(b"%d" % start).decode(), "after": base64.b64encode(b"%d" % end).decode()}
        page["paging"] = {"cursors": cursors}
        if end < len(numbers):
            query = urlencode({"access_token": settings.access_token, "fields": ",".join(asked), "limit": size, "after": cursors["after"]})
            page["paging"]["next"] = f"{base_url}/v23.0/{target.object_id}/phone_numbers?{query}"
    return _answer(200, page)


def _shaped(shape: str, held: Held | None) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if held:
        content["business_public_key"] = held.key.pem
        if held.status is not None:
            content["business_public_key_signature_status"] = held.status
    if shape == "flat":
        return content
    if shape == "data":
        return {"data": content}
    return {"data": [content] if content else []}


def read_held(document: Any) -> dict[str, Held | None]:
    """Turn number -> PEM, `{"pem": ..., "status": ...}` or None into what the numbers carry. Raises ValueError for anything else."""
    if not isinstance(document, dict):
        raise ValueError("held keys must be a JSON object of number -> key")
    keys: dict[str, Held | None] = {}
    for number, value in document.items():
        entry: Mapping[str, Any] | None = {"pem": value} if isinstance(value, str) else value
        if not _rules.is_phone_number(number) or not (entry is None or isinstance(entry, dict)):
            raise ValueError(f"{number}: expected an E.164 number and its key")
        keys[number] = None if entry is None else Held(_key(number, entry["pem"]), entry.get("status", "VALID"))
    return keys


def _key(number: str, pem: str) -> _rules.PublicKey:
    key = _rules.parse_form(urlencode({_rules.FIELD: pem.strip()}).encode())
    if key is None:
        raise ValueError(f"{number} has no public key")
    return key


def _answer(status: int, document: Any, code: str | None = None) -> _rules.Answer:
    return _rules.Answer(status, code, json.dumps(document).encode())
