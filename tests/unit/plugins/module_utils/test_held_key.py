# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._held_key import (
    FIELD,
    STATUS_FIELD,
    HeldKey,
    read_kaleyra_answer,
    read_meta_answer,
)
from hypothesis import given
from hypothesis import strategies as st

SECRET = "EAAsecret-token"
READERS = {"meta": read_meta_answer, "kaleyra": read_kaleyra_answer}
OK = {"code": "WA-200", "message": "Request Processed Successfully", "error": {}}

Read = Callable[..., HeldKey]


@pytest.fixture(params=READERS)
def read(request: pytest.FixtureRequest) -> Read:
    """Both vendors' answers, as what Meta prints may be passed on by Kaleyra."""
    reader = READERS[request.param]
    return lambda content, status=200: reader(status, content if isinstance(content, bytes) else json.dumps(content).encode(), SECRET)


@pytest.mark.parametrize("wrap", [lambda told: told, lambda told: {"data": told}, lambda told: {"data": [told]}, lambda told: {**OK, "data": told}])
@pytest.mark.parametrize(
    ("status", "expected"),
    [("VALID", "valid"), ("MISMATCH", "mismatch"), ("mismatch", "mismatch"), ("PENDING", None), (None, None), ([], None)],
)
def test_key_is_read_in_every_known_place(
    read: Read, wrap: Callable[[Any], Any], status: Any, expected: str | None, public_pem: Callable[[str], str], fingerprint: Callable[[str], str]
) -> None:
    told = {FIELD: public_pem("rsa-2048"), STATUS_FIELD: status}
    if wrap(told).get("code"):
        assert read_kaleyra_answer(200, json.dumps(wrap(told)).encode(), SECRET) == HeldKey(fingerprint("rsa-2048"), expected)
    elif isinstance(wrap(told), dict):
        assert read(wrap(told)) == HeldKey(fingerprint("rsa-2048"), expected)


@pytest.mark.parametrize("change", [lambda pem: pem.replace("\n", "\r\n"), lambda pem: pem.replace("\n", "\\n"), lambda pem: f"\n{pem}\n"])
def test_key_is_the_same_however_its_lines_are_told(
    read: Read, change: Callable[[str], str], public_pem: Callable[[str], str], fingerprint: Callable[[str], str]
) -> None:
    assert read({FIELD: change(public_pem("rsa-2048"))}).fingerprint == fingerprint("rsa-2048")


@pytest.mark.parametrize("content", [{FIELD: None}, {FIELD: ""}, {"data": {FIELD: ""}}, {"data": [{FIELD: "", STATUS_FIELD: ""}]}])
def test_no_key_where_the_field_is_empty(read: Read, content: Any) -> None:
    assert read(content) == HeldKey()


@pytest.mark.parametrize("content", [{}, {"data": []}, {"data": [{}]}])
def test_nothing_at_all_means_no_key_for_meta_alone(content: Any) -> None:
    assert read_meta_answer(200, json.dumps(content).encode(), SECRET) == HeldKey()
    assert read_kaleyra_answer(200, json.dumps(content).encode(), SECRET).unknown
    assert read_kaleyra_answer(200, json.dumps({**OK, **content}).encode(), SECRET).unknown


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
def test_anything_else_cannot_be_told(read: Read, make: Callable[[str], Any], public_pem: Callable[[str], str]) -> None:
    held = read(make(public_pem("rsa-2048")))
    assert held.unknown and held.fingerprint is None
    assert "BEGIN" not in held.unknown and not held.carries(held.fingerprint or "")


@pytest.mark.parametrize("kind", ["rsa-3072", "ec", "rsa-pss"])
def test_key_of_another_kind_cannot_be_told(read: Read, kind: str, public_pem: Callable[[str], str]) -> None:
    assert read({FIELD: public_pem(kind)}).unknown


@pytest.mark.parametrize("status", [201, 204, 302, 400, 404, 405, 500])
def test_only_http_200_tells_a_key(read: Read, status: int, public_pem: Callable[[str], str]) -> None:
    held = read({FIELD: public_pem("rsa-2048")}, status)
    assert held.unknown and f"HTTP {status}" in held.unknown


@pytest.mark.parametrize("more", [{"code": "WA-400"}, {"code": 200}, {"error": "x"}, {"error": {"payload": "x"}}])
def test_kaleyra_that_refuses_tells_no_key(more: dict[str, Any], public_pem: Callable[[str], str]) -> None:
    assert read_kaleyra_answer(200, json.dumps({**OK, FIELD: public_pem("rsa-2048"), **more}).encode(), SECRET).unknown


def test_kaleyra_prints_its_code_with_or_without_the_hyphen(public_pem: Callable[[str], str], fingerprint: Callable[[str], str]) -> None:
    content = {**OK, "code": "WA200", "data": {FIELD: public_pem("rsa-2048")}}
    assert read_kaleyra_answer(200, json.dumps(content).encode(), SECRET).fingerprint == fingerprint("rsa-2048")


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        *((190, "meta_access_token"), (10, "permission"), (200, "permission"), (299, "permission"), (100, "ID")),
        *((4, "rate"), (80007, "rate"), (130429, "rate")),
    ],
)
@pytest.mark.parametrize("status", [200, 400, 401, 403, 429])
def test_error_of_meta_is_passed_on_with_what_to_do(code: int, remedy: str, status: int) -> None:
    body = json.dumps({"error": {"message": f"Refused {SECRET}", "type": "OAuthException", "code": code, "fbtrace_id": "A"}}).encode()
    told = read_meta_answer(status, body, SECRET).unknown
    assert told and f"Meta's error {code} (Refused ********)" in told and remedy in told
    # Where Kaleyra passes on what it was told by Meta, the user's own token is none of its concern.
    told = read_kaleyra_answer(status, body, SECRET).unknown
    assert told and f"Meta's error {code}" in told and SECRET not in told


_NAMES = st.sampled_from([FIELD, STATUS_FIELD, "data", "error", "code", "x"])
_JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.sampled_from([FIELD, "VALID", SECRET]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=4),
    max_leaves=12,
)


@given(_JUNK, st.sampled_from([200, 200, 200, 401, 404, 500]), st.sampled_from(sorted(READERS)))
def test_junk_never_names_a_key(content: Any, status: int, source: str) -> None:
    held = READERS[source](status, json.dumps(content).encode(), SECRET)
    assert held.fingerprint is None and held.status is None
    assert held.unknown or (status == 200 and isinstance(content, dict))
    assert SECRET not in (held.unknown or "")


@given(st.binary(max_size=200), st.sampled_from(sorted(READERS)))
def test_bytes_never_name_a_key(body: bytes, source: str) -> None:
    held = READERS[source](200, body, SECRET)
    assert held.unknown or body.strip() == b"{}"
