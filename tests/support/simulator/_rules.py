# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the API accepts, and what it answers: pure functions of a request, no network and no state.

Where the vendor's page is silent the simulator is strict, so that a client that passes here asks for nothing that is
not printed: one field and no other, the canonical PEM, exactly one header of each kind.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import unquote_plus, urlencode

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

CONTENT_TYPE = "application/x-www-form-urlencoded"
FIELD = "business_public_key"
KEY_BITS = 2048

_PATH = re.compile(r"/v2/([^/?]+)/whatsapp/([^/?]+)/flows_encryption")
# At most 15 digits, the first of a country code is never 0. The shortest numbers in use have 7 digits in all.
_E164 = re.compile(r"\+[1-9][0-9]{6,14}")
# Four times what the form of a 2048-bit key takes. Longer ones are refused unread, which also bounds the cache.
_MAX_FORM = 4096


class Answer(NamedTuple):
    """One answer of the API: HTTP status, the `code` in the body (None where the body has none), the body itself."""

    status: int
    code: str | None
    body: bytes
    content_type: str = "application/json"


class Account(NamedTuple):
    """What the platform knows of one SID. `available` false: the account may not use this API (401 WA-401)."""

    api_key: bytes
    available: bool = True


class PublicKey(NamedTuple):
    """A key that the API accepts.

    `pem` is the text as sent, without a last newline; `fingerprint` is the SHA-256 of its DER SubjectPublicKeyInfo, in
    lower-case hex with colons.
    """

    pem: str
    fingerprint: str


def _documented(status: int, code: str, message: str, data: Any, error: Any) -> Answer:
    body = json.dumps({"code": code, "message": message, "data": data, "error": error})
    return Answer(status, code, body.encode())


# The vendor's table, row by row. `data` and `error` really do change their JSON type from row to row.
SUCCESS = _documented(200, "WA-200", "Request Processed Successfully", {"success": True}, {})
BAD_CREDENTIALS = _documented(401, "RBC001", "Incorrect SID or API key.", [], {"error": "Incorrect SID or API key."})
_UNAVAILABLE_TEXT = "API is not available for given customer.Please contact support for more info"
UNAVAILABLE = _documented(401, "WA-401", _UNAVAILABLE_TEXT, {}, _UNAVAILABLE_TEXT)
BAD_PAYLOAD = _documented(400, "WA-400", "Refer to correct payload format", {}, {"payload": "Incorrect payload format"})
SERVER_ERROR = _documented(500, "WA-500", "Please try again later", {}, {"error": "Internal server error"})
# By other pages of the vendor, which print its code so.
THROTTLED = _documented(429, "WA429", "Too many requests", {}, {"error": "Too many requests"})

# Not in the vendor's table: what any web server says to a request that is not for this API.
NOT_FOUND = Answer(404, None, b"404: Not Found", "text/plain")
METHOD_NOT_ALLOWED = Answer(405, None, b"405: Method Not Allowed", "text/plain")
# Stands for the answer to an allowed GET on the setter's URL, which `_held` makes.
READ_BACK = Answer(200, None, b"")


def read_accounts(document: Any) -> dict[str, Account]:
    """Turn the accounts file's JSON (SID -> API key, or SID -> object) into accounts.

    Raises ValueError that says what is wrong; it never quotes an API key.
    """
    if not isinstance(document, dict):
        raise ValueError("accounts must be a JSON object of SID -> API key")
    accounts = {}
    for sid, value in document.items():
        if not re.fullmatch(r"[A-Za-z0-9_-]+", sid):
            raise ValueError(f"{sid!r} is no SID: letters, digits, '-' and '_' only")
        entry = {"api_key": value} if isinstance(value, str) else value
        if not isinstance(entry, dict) or not set(entry) <= {"api_key", "available"}:
            raise ValueError(f"{sid}: expected an API key, or an object of api_key and available")
        api_key, available = entry.get("api_key"), entry.get("available", True)
        if not isinstance(api_key, str) or not api_key:
            raise ValueError(f"{sid}: api_key must be a string that is not empty")
        if not isinstance(available, bool):
            raise ValueError(f"{sid}: available must be true or false")
        accounts[sid] = Account(api_key.encode(), available)
    return accounts


def is_phone_number(text: str) -> bool:
    """Whether `text` is an E.164 number with its plus sign, and nothing else."""
    return _E164.fullmatch(text) is not None


def parse_path(raw_path: str) -> tuple[str, str] | None:
    """SID and number of an API path, as they stand in it (nothing is decoded); None for any other path."""
    match = _PATH.fullmatch(raw_path)
    return (match[1], match[2]) if match else None


def parse_form(body: bytes) -> PublicKey | None:
    """The key in a request's body, or None if the body is not exactly what the API's own sample would send."""
    return _parse_form(body) if len(body) <= _MAX_FORM else None


@lru_cache(maxsize=1024)
def _parse_form(body: bytes) -> PublicKey | None:
    name, dummy, value = body.partition(b"=")
    if name != FIELD.encode():
        return None
    try:
        key = load_pem_public_key(unquote_plus(value.decode("ascii")).encode())
    except (ValueError, UnsupportedAlgorithm):
        return None
    if not isinstance(key, RSAPublicKey) or key.key_size != KEY_BITS:
        return None
    # Encoding the key again and comparing bytes settles all the rest at once: encoding of every character, columns of
    # the PEM, PKCS#1, text around it, a second key, further fields, newlines at the end.
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode().rstrip("\n")
    if body != urlencode({FIELD: pem}).encode():
        return None
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return PublicKey(pem, hashlib.sha256(der).digest().hex(":"))


def judge(
    accounts: Mapping[str, Account],
    *,
    method: str,
    raw_path: str,
    api_keys: Sequence[str],
    content_types: Sequence[str],
    key: PublicKey | None,
) -> Answer:
    """What the API answers to a request.

    `api_keys` and `content_types` are the values of those two headers, one for each time that the header was sent;
    `key` is what `parse_form` made of the body. Credentials come first: nobody learns about the payload without them.
    """
    target = parse_path(raw_path)
    if target is None:
        return NOT_FOUND
    if method not in ("POST", "GET"):
        return METHOD_NOT_ALLOWED
    sid, phone_number = target
    account = accounts.get(sid)
    # An unknown SID costs the same comparison as a known one, and no key passes it.
    expected = account.api_key if account else b""
    given = api_keys[0].encode("utf-8", "surrogateescape") if len(api_keys) == 1 else b""
    if not hmac.compare_digest(given, expected) or account is None:
        return BAD_CREDENTIALS
    if not account.available:
        return UNAVAILABLE
    if method == "GET" and is_phone_number(phone_number):
        return READ_BACK
    if key is None or list(content_types) != [CONTENT_TYPE] or not is_phone_number(phone_number):
        return BAD_PAYLOAD
    return SUCCESS
