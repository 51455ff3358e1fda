# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which key a number carries, as far as an API's answer tells."""

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
    """What a number carries.

    :param fingerprint: of the key that it carries, None for no key, and where it cannot be told
    :param status: of the key's signature: ``valid``, ``mismatch``, or None if the answer does not say
    :param unknown: why it cannot be told, None where it can
    """

    fingerprint: str | None = None
    status: str | None = None
    unknown: str | None = None

    def carries(self, fingerprint: str) -> bool:
        """Whether the number is seen to carry this key, and nothing is wrong with it."""
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
            return "The token has expired or is not valid: make a new one for the system user and set meta_access_token."
        if self.code == 10 or 200 <= self.code <= 299:
            return "Give the token's system user the permission whatsapp_business_messaging or whatsapp_business_management, and access to the WABA."
        if self.is_throttling:
            return "Meta limits the rate: run it again later, or more slowly."
        if self.code == 100:
            return "Check the ID, and that the token's system user has access to the WABA."
        return ""

    def __str__(self) -> str:
        return f"Meta's error {self.code}" + (f" ({self.message})" if self.message else "")


def meta_error(content: t.Mapping[str, t.Any] | None, secret: str) -> MetaError | None:
    """Return the error that an answer of the Graph API, or one that passes it on, names; its text without the secret."""
    error = content.get("error") if content else None
    if not isinstance(error, dict):
        return None
    code, message = error.get("code"), error.get("message")
    if isinstance(code, bool) or not isinstance(code, int):
        return None
    return MetaError(code, shown(message, secret) if isinstance(message, str) else "")


def read_meta_answer(status: int, body: bytes, secret: str) -> HeldKey:
    """Conclude from an answer to ``GET /<phone number ID>/whatsapp_business_encryption``.

    An object without any field, or a list without an object, is how the Graph API says that there is nothing.

    :source: Meta, Cloud API, "Business Encryption API" (v23.0), which prints the key with its status both flat and in a list
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
    """Conclude from an answer to ``GET`` on the URL that sets the key; what Kaleyra answers there is not published."""
    content = parse_object(body)
    error = meta_error(content, secret)
    if error:
        return HeldKey(unknown=f"HTTP {status} with {error}.")
    if status in (404, 405):
        return HeldKey(unknown=f"HTTP {status}: this API does not tell keys in answer to GET. Use read_back=meta, or none.")
    if status != 200 or content is None or content.get("error") or _is_refused(content.get("code")):
        return _strange(status, content, secret)
    return _conclude(content, status)


def _conclude(content: t.Mapping[str, t.Any], status: int) -> HeldKey:
    """Read the one object that names a key, at the top, in ``data``, or in the one object of the list ``data``."""
    data = content.get("data")
    places = [content, data, data[0] if isinstance(data, list) and len(data) == 1 else None]
    found = [place for place in places if isinstance(place, dict) and (FIELD in place or STATUS_FIELD in place)]
    if len(found) != 1 or FIELD not in found[0]:
        return HeldKey(unknown=f"its answer (HTTP {status}) has no {FIELD} in a known place.")
    text, told = found[0][FIELD], found[0].get(STATUS_FIELD)
    key_status = told.lower() if isinstance(told, str) and told.lower() in STATUSES else None
    if text in (None, "") and told in (None, ""):
        return HeldKey()
    fingerprint = _fingerprint(text) if isinstance(text, str) else None
    if fingerprint is None:
        return HeldKey(unknown=f"its answer (HTTP {status}) has a {FIELD} that is no RSA public key in PEM.")
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
    said = ", ".join(shown(value, secret) for value in values if isinstance(value, str) and value)
    return HeldKey(unknown=f"HTTP {status} ({said})." if said else f"HTTP {status}, with an answer that cannot be read.")
