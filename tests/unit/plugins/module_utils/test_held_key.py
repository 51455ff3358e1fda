# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the vendors' answers say about the key that a number carries; anything unclear is unknown."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._held_key import FIELD, STATUS_FIELD, HeldKey, read_kaleyra_answer, read_meta_answer

SECRET = "EAAsecret-token"
READERS = {"meta": read_meta_answer, "kaleyra": read_kaleyra_answer}
OK = {"code": "WA-200", "message": "Request Processed Successfully", "error": {}}

Named = Callable[[str], str]
Read = Callable[..., HeldKey]


def _read(source: str, content: Any, status: int = 200) -> HeldKey:
    return READERS[source](status, content if isinstance(content, bytes) else json.dumps(content).encode(), SECRET)


@pytest.fixture(params=READERS)
def read(request: pytest.FixtureRequest) -> Read:
    """Both vendors' answers, as Kaleyra may pass on what Meta prints."""
    return lambda content, status=200: _read(request.param, content, status)


@pytest.mark.parametrize("wrap", [lambda told: told, lambda told: {"data": told}, lambda told: {"data": [told]}])
def test_key_is_read_in_every_known_place(read: Read, wrap: Callable[[Any], Any], public_pem: Named, fingerprint: Named) -> None:
    pem, found = public_pem("rsa-2048"), fingerprint("rsa-2048")
    statuses: list[tuple[Any, str | None]] = [("VALID", "valid"), ("MISMATCH", "mismatch"), ("mismatch", "mismatch")]
    for status, expected in (*statuses, ("PENDING", None), (None, None), ([], None)):
        assert read(wrap({FIELD: pem, STATUS_FIELD: status})) == HeldKey(found, expected)
        for code in ("WA-200", "WA200"):
            told = {**OK, "code": code, "data": {FIELD: pem, STATUS_FIELD: status}}
            assert _read("kaleyra", told) == HeldKey(found, expected)
    for changed in (pem.replace("\n", "\r\n"), pem.replace("\n", "\\n"), f"\n{pem}\n"):
        assert read(wrap({FIELD: changed})).fingerprint == found


@pytest.mark.parametrize("content", [{FIELD: None}, {FIELD: ""}, {"data": {FIELD: ""}}, {"data": [{FIELD: "", STATUS_FIELD: ""}]}])
def test_empty_field_is_no_key(read: Read, content: Any) -> None:
    assert read(content) == HeldKey()


@pytest.mark.parametrize("content", [{}, {"data": []}, {"data": [{}]}])
def test_no_field_is_no_key_for_meta_alone(content: Any) -> None:
    assert _read("meta", content) == HeldKey()
    assert _read("kaleyra", content).unknown and _read("kaleyra", {**OK, **content}).unknown


@pytest.mark.parametrize(
    "make",
    [
        lambda pem: {"data": [{STATUS_FIELD: "VALID"}]},  # a sample of Meta's reference prints this for a valid key
        lambda pem: {FIELD: " ", STATUS_FIELD: "MISMATCH"},
        lambda pem: {FIELD: None, STATUS_FIELD: "VALID"},
        lambda pem: {FIELD: pem, "data": {FIELD: pem}},
        lambda pem: {FIELD: pem, "data": [{STATUS_FIELD: "VALID"}]},
        lambda pem: {"data": [{FIELD: pem}, {FIELD: pem}]},
        lambda pem: {"data": [[{FIELD: pem}]]},
        lambda pem: {"data": {"data": {FIELD: pem}}},
        lambda pem: {"result": {FIELD: pem}},
        lambda pem: {FIELD: [pem]},
        lambda pem: {FIELD: pem[:200]},
        lambda pem: {FIELD: pem.replace("PUBLIC KEY", "CERTIFICATE")},
        lambda pem: {FIELD: pem + pem},
        lambda pem: {FIELD: "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"},
        lambda pem: {"success": True},
        lambda pem: [{FIELD: pem}],
        lambda pem: f'{{"{FIELD}": {json.dumps(pem)}, "{FIELD}": null}}'.encode(),
        lambda pem: json.dumps({FIELD: pem, "fill": "x" * 70_000}).encode(),
        lambda pem: b"<html>Not here</html>",
        lambda pem: b"",
        lambda pem: b"\xff",
        lambda pem: b"[" * 50_000,
    ],
)
def test_anything_else_is_unknown(read: Read, make: Callable[[str], Any], public_pem: Named) -> None:
    held = read(make(public_pem("rsa-2048")))
    assert held.unknown and held.fingerprint is None
    assert "BEGIN" not in held.unknown and not held.carries(held.fingerprint or "")


@pytest.mark.parametrize("kind", ["rsa-3072", "ec", "rsa-pss"])
def test_key_of_another_kind_is_unknown(read: Read, kind: str, public_pem: Named) -> None:
    assert read({FIELD: public_pem(kind)}).unknown


@pytest.mark.parametrize("status", [201, 204, 302, 400, 404, 405, 500])
def test_only_http_200_has_a_key(read: Read, status: int, public_pem: Named) -> None:
    held = read({FIELD: public_pem("rsa-2048")}, status)
    assert held.unknown and f"HTTP {status}" in held.unknown


@pytest.mark.parametrize("more", [{"code": "WA-400"}, {"code": 200}, {"error": "x"}, {"error": {"payload": "x"}}])
def test_refusal_of_kaleyra_has_no_key(more: dict[str, Any], public_pem: Named) -> None:
    assert _read("kaleyra", {**OK, FIELD: public_pem("rsa-2048"), **more}).unknown


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        *((190, "meta_access_token"), (10, "permission"), (200, "permission"), (299, "permission"), (100, "ID")),
        *((4, "rate"), (80007, "rate"), (130429, "rate")),
    ],
)
def test_error_of_meta_is_passed_on_with_its_remedy(code: int, remedy: str) -> None:
    error = {"error": {"message": f"Refused {SECRET}", "type": "OAuthException", "code": code, "fbtrace_id": "A"}}
    for status in (200, 400, 401, 403, 429):
        told = _read("meta", error, status).unknown
        assert told and f"Meta's error {code} (Refused ********)" in told and remedy in told
        # Where Kaleyra passes on what it was told by Meta, the user's own token is none of its concern.
        told = _read("kaleyra", error, status).unknown
        assert told and f"Meta's error {code}" in told and SECRET not in told


def _junk(rng: random.Random, depth: int = 0) -> Any:
    if depth < 4 and rng.random() < 0.7:
        contents = [_junk(rng, depth + 1) for dummy in range(rng.randrange(4))]
        names = [rng.choice([FIELD, STATUS_FIELD, "data", "error", "code", "x"]) for dummy in contents]
        return rng.choice([contents, dict(zip(names, contents))])
    return rng.choice([None, True, 0, -7, "", FIELD, "VALID", SECRET, "WA-200"])


def test_junk_never_names_a_key(read: Read) -> None:
    rng = random.Random(1)
    for dummy in range(300):
        content, status = _junk(rng), rng.choice([200, 200, 200, 401, 404, 500])
        held = read(content, status)
        assert held.fingerprint is None and held.status is None
        assert held.unknown or (status == 200 and isinstance(content, dict))
        assert SECRET not in (held.unknown or "")
        body = rng.randbytes(rng.randrange(200))
        assert read(body).unknown and read(body).fingerprint is None
