# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Concludes from an API's answer which key a number carries."""

from __future__ import annotations

import dataclasses
import functools
import typing as t

from ._errors import InvalidInput
from ._http import shown
from ._json import parse_object
from ._public_key import PublicKey, parse_public_key

FIELD = "business_public_key"
STATUS_FIELD = "business_public_key_signature_status"
STATUSES = ("valid", "mismatch")


@dataclasses.dataclass(frozen=True)
class HeldKey:
    """The key that a number carries.

    :param fingerprint: of the key; None if the number carries none, or if the key could not be read
    :param status: of the key's signature: ``valid``, ``mismatch``, or None if the answer has none
    :param unknown: why the key could not be read, None if it could
    """

    fingerprint: str | None = None
    status: str | None = None
    unknown: str | None = None

    def carries(self, fingerprint: str) -> bool:
        """Whether the number carries this key, as far as it was read, and its status is not ``mismatch``."""
        return self.unknown is None and self.fingerprint == fingerprint and self.status != "mismatch"


@dataclasses.dataclass(frozen=True)
class MetaError:
    """An error of the Graph API.

    :source: Meta, Graph API, "Handle Errors"
    """

    code: int
    message: str

    @property
    def is_throttling(self) -> bool:
        return self.code in (4, 80007, 130429)

    @property
    def remedy(self) -> str:
        if self.code == 190:
            return "The token has expired or is invalid: create a new one for the system user and set meta_access_token."
        if self.code == 10 or 200 <= self.code <= 299:
            return "Give the token's system user the permission whatsapp_business_messaging or whatsapp_business_management, and access to the WABA."
        if self.is_throttling:
            return "Meta limits the rate: run it again later, or at a lower rate."
        if self.code == 100:
            return "Check the ID, and that the token's system user has access to the WABA."
        return ""

    def __str__(self) -> str:
        return f"Meta's error {self.code}" + (f" ({self.message})" if self.message else "")


def meta_error(content: t.Mapping[str, t.Any] | None, secret: str) -> MetaError | None:
    """Return the Graph API's error in an answer, or in one that passes it on, with the secret removed from its text."""
    error = content.get("error") if content else None
    if not isinstance(error, dict):
        return None
    code, message = error.get("code"), error.get("message")
    if isinstance(code, bool) or not isinstance(code, int):
        return None
    return MetaError(code, shown(message, secret) if isinstance(message, str) else "")


def read_meta_answer(status: int, body: bytes, secret: str) -> HeldKey:
    """Read an answer to ``GET /<phone number ID>/whatsapp_business_encryption``.

    The Graph API returns an empty object or an empty list if there is nothing.

    :source: Meta, Cloud API, "Business Encryption API" (v23.0), which shows the key with its status both flat and in a list
    """
    content = parse_object(body)
    error = meta_error(content, secret)
    if error:
        return HeldKey(unknown=" ".join(filter(None, [f"{error}.", error.remedy])))
    if status != 200 or content is None:
        return _strange(status)
    if content in ({}, {"data": []}, {"data": [{}]}):
        return HeldKey()
    return _conclude(content, status)


def read_kaleyra_answer(status: int, body: bytes, secret: str) -> HeldKey:
    """Read an answer to ``GET`` at the URL that sets the key, which Kaleyra has not published."""
    content = parse_object(body)
    error = meta_error(content, secret)
    if error:
        return HeldKey(unknown=f"HTTP {status} with {error}.")
    if status in (404, 405):
        return HeldKey(unknown=f"HTTP {status}: this API does not return keys. Set read_back to meta or none.")
    if status != 200 or content is None or content.get("error") or _is_refused(content.get("code")):
        return _strange(status, content, secret)
    return _conclude(content, status)


def _conclude(content: t.Mapping[str, t.Any], status: int) -> HeldKey:
    """Read the object that has the key: at the top level, in ``data``, or in a list ``data`` with one object."""
    data = content.get("data")
    places = [content, data, data[0] if isinstance(data, list) and len(data) == 1 else None]
    found = [place for place in places if isinstance(place, dict) and (FIELD in place or STATUS_FIELD in place)]
    if len(found) != 1 or FIELD not in found[0]:
        return HeldKey(unknown=f"HTTP {status}, with no {FIELD} in a known place.")
    text, given_status = found[0][FIELD], found[0].get(STATUS_FIELD)
    key_status = given_status.lower() if isinstance(given_status, str) and given_status.lower() in STATUSES else None
    if text in (None, "") and given_status in (None, ""):
        return HeldKey()
    fingerprint = _fingerprint(text) if isinstance(text, str) else None
    if fingerprint is None:
        return HeldKey(unknown=f"HTTP {status}, with a {FIELD} that is not the PEM of an RSA-2048 public key.")
    return HeldKey(fingerprint, key_status)


@functools.lru_cache(maxsize=64)
def _fingerprint(pem: str) -> str | None:
    try:
        key: PublicKey = parse_public_key(pem)
        key.require_rsa_2048()
    except InvalidInput:
        return None
    return key.fingerprint


def _is_refused(code: t.Any) -> bool:
    return code is not None and (not isinstance(code, str) or code.replace("-", "") != "WA200")


def _strange(status: int, content: t.Mapping[str, t.Any] | None = None, secret: str | None = None) -> HeldKey:
    values = [(content or {}).get(name) for name in ("code", "message")]
    text = ", ".join(shown(value, secret) for value in values if isinstance(value, str) and value)
    return HeldKey(unknown=f"HTTP {status} ({text})." if text else f"HTTP {status}, with content that cannot be read.")
