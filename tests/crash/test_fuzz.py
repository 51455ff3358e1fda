# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The targets of ``fuzz_parsers`` under hypothesis: inputs that know the formats, and so come nearer to the edges.

What must hold is written once, in the targets: a value with its invariants, or the project's own error.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import re
import subprocess
import sys
from typing import Any

import pytest
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._errors import KaleyraError, Rejected
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._http import Answer
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._public_key import parse_public_key
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dev import fuzz_parsers
from dev.fuzz_parsers import API, DER, FINGERPRINT, IDENTITY, SECRET, TARGETS

EXAMPLES = 50 * int(os.environ.get("STRESS_ROUNDS", "4"))
PROPERTY = settings(database=None, deadline=None, max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow])


def encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


# --- all of them, with anything -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TARGETS)
def test_good_inputs_and_nearly_good_ones_are_taken_as_they_should(name: str) -> None:
    target, seeds = TARGETS[name]
    for seed in seeds:
        target(seed)


@pytest.mark.parametrize("name", TARGETS)
@PROPERTY
@given(data=st.data())
def test_any_input_gives_a_value_or_an_error_of_ours(name: str, data: st.DataObject) -> None:
    target, seeds = TARGETS[name]
    seed = data.draw(st.sampled_from(seeds))
    kind = data.draw(st.sampled_from(["bytes", "text", "spoiled"]))
    if kind == "bytes":
        target(data.draw(st.binary(max_size=400)))
    elif kind == "text":
        target(encoded(data.draw(st.text(max_size=200))))
    else:
        start, end = sorted((data.draw(st.integers(0, len(seed))), data.draw(st.integers(0, len(seed)))))
        target(seed[:start] + data.draw(st.binary(max_size=8)) + seed[end:])


# --- each by its format -------------------------------------------------------------------------------------------------

LABELS = ["PUBLIC KEY", "PRIVATE KEY", "RSA PUBLIC KEY", "CERTIFICATE", "ENCRYPTED PRIVATE KEY", "PUBLIC KEY ", "public key", ""]
BODY = base64.b64encode(DER).decode()
pem_parts = st.one_of(
    st.sampled_from(LABELS).map(lambda label: f"-----BEGIN {label}-----"),
    st.sampled_from(LABELS).map(lambda label: f"-----END {label}-----"),
    st.sampled_from(["\n", "\r\n", "\\n", "\\r\\n", "\r", " ", "\t", "\ufeff", "\u2028", "\x1c", "=", "-----", "Proc-Type: 4,ENCRYPTED\n", "PuTTY"]),
    st.integers(0, len(BODY)).map(lambda end: BODY[:end]),
    st.text(max_size=20),
)


@PROPERTY
@given(st.lists(pem_parts, max_size=8).map("".join))
def test_a_pem_of_any_parts(text: str) -> None:
    fuzz_parsers.pem(encoded(text))


@PROPERTY
@given(
    blanks=st.lists(st.tuples(st.integers(0, 500), st.sampled_from(["\n", "\r\n", "\\n", "\\r\\n", " ", "\t", "\n\n"])), max_size=6),
    before=st.sampled_from(["", "\ufeff", "\n", "\r\n \t"]),
    after=st.sampled_from(["", "\n", "\r\n\r\n", "\\n", " "]),
)
def test_a_pem_means_the_same_however_its_lines_are_broken(blanks: list[tuple[int, str]], before: str, after: str) -> None:
    body = BODY
    for at, blank in blanks:
        # A break inside of an earlier one would be something else: a lone backslash.
        body = body[:at] + blank + body[at:] if "\\" not in body[max(0, at - 3) : at + 3] else body
    key = parse_public_key(f"{before}-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----{after}")
    assert key.der == DER
    key.require_rsa_2048()


@PROPERTY
@given(st.integers(0, len(DER) - 1), st.integers(0, 7))
def test_a_der_with_one_flipped_bit(at: int, bit: int) -> None:
    fuzz_parsers.der(DER[:at] + bytes([DER[at] ^ 1 << bit]) + DER[at + 1 :])


@PROPERTY
@given(st.text(alphabet="0123456789+-. ()[]\u00a0\u2011\u0661\uff11\n\tx", max_size=30))
@example("+" + "9" * 15)
@example("+" + "9" * 16)
def test_a_phone_number_of_any_signs(text: str) -> None:
    fuzz_parsers.phone_number(encoded(text))


url_parts = st.sampled_from(
    [
        *("https", "http", "HTTPS", "ftp", "://", ":", "//", "/", "@", "?", "#", "%2e", "..", ".", "[", "]", "::1", "127.0.0.1", "0x7f.1"),
        *("localhost", "api.in.kaleyra.io", "API.KALEYRA.IO", "\u2100", "\u3002", "\uff0f", "443", "80", "65536", "-1"),
        *("\\", "\t", "\n", " ", "a", "~"),
    ]
)


@PROPERTY
@given(st.lists(url_parts, max_size=8).map("".join), st.sampled_from(["", "https://", "http://", "https://api.in.kaleyra.io", "http://localhost", "http://["]))
def test_an_api_url_of_any_parts(text: str, start: str) -> None:
    fuzz_parsers.api_url(encoded(start + text))


@PROPERTY
@given(st.text(alphabet="0123456789abcdefABCDEF: \n\u0660", min_size=60, max_size=100))
@example(FINGERPRINT)
def test_a_fingerprint_of_any_signs(text: str) -> None:
    fuzz_parsers.fingerprint(encoded(text))


date_parts = st.sampled_from(
    [
        *("Wed, ", "21 ", "31 ", "0 ", "Oct ", "Feb ", "2026 ", "9999 ", "0001 ", "99 ", "07:28:00 ", "24:00:00", "1:2:3:4 "),
        *("GMT", "-2359", "+9999", "-", ",", ":", "("),
    ]
)


@PROPERTY
@given(st.one_of(st.lists(date_parts, max_size=8).map("".join), st.integers().map(str), st.floats().map(str)))
def test_a_retry_after_of_any_parts(text: str) -> None:
    fuzz_parsers.retry_after(text.encode("latin-1", "replace"))


anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=10), st.sampled_from(["WA-200", "true", 1, SECRET, "success"])),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["code", "data", "success", "message"]), inner, max_size=4)),
    max_leaves=6,
)
nearly = st.fixed_dictionaries(
    {},
    optional={
        "code": st.one_of(st.sampled_from(["WA-200", "wa-200", "WA-200 ", ["WA-200"], 200]), anything),
        "data": st.one_of(st.sampled_from([{"success": v} for v in (True, "true", 1, [True], None)]), anything),
        "message": anything,
        "error": anything,
    },
)


@PROPERTY
@given(
    st.sampled_from([200, 200, 200, 201, 204, 302, 400, 401, 429, 500, 0, 999]),
    st.one_of(nearly, anything),
    st.sampled_from(["utf-8", "utf-16", "utf-32", "utf-8-sig"]),
)
def test_an_answer_is_a_success_only_with_the_whole_proof(status: int, document: Any, encoding: str) -> None:
    # The target compares with the promise, said in other words.
    fuzz_parsers.answer(status.to_bytes(2, "big") + json.dumps(document).encode(encoding))


@pytest.mark.parametrize("status", [200, 201, 202, 204, 206, 302, 400, 401, 500])
def test_only_one_answer_is_a_proof(status: int) -> None:
    body = json.dumps({"code": "WA-200", "data": {"success": True}}).encode()
    assert API._read(Answer(status, body))[1] is (status == 200)


@PROPERTY
@given(st.integers(100, 599), st.text(max_size=300), st.text(max_size=300))
def test_the_facts_of_any_answer_can_be_told_in_an_error(status: int, code: str, message: str) -> None:
    facts, dummy = API._read(Answer(status, json.dumps({"code": code, "message": message + SECRET + message}).encode()))
    error = Rejected("why", attempts=1, **facts)
    assert isinstance(error, KaleyraError) and str(error) == "why" and error.details["message"] == facts["message"]
    assert SECRET not in str(error.details)


fields = st.fixed_dictionaries(
    {},
    optional={
        "format": st.one_of(st.sampled_from([1, 1.0, True, "1", 2, 3]), anything),
        **{name: st.one_of(st.just(value), anything) for name, value in IDENTITY.items()},
        "fingerprint": st.one_of(st.just(FINGERPRINT), st.just(FINGERPRINT + "\n"), anything),
        "state": st.one_of(st.sampled_from(["confirmed", "unconfirmed", "Confirmed", ["confirmed"]]), anything),
        "since": st.one_of(
            st.datetimes(timezones=st.one_of(st.none(), st.timezones())).map(lambda moment: moment.isoformat()),
            st.sampled_from(["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2026-W01-1T00:00Z"]),
            anything,
        ),
    },
)


@PROPERTY
@given(fields, st.booleans())
def test_a_record_counts_only_if_its_json_says_so(document: dict[str, Any], completed: bool) -> None:
    whole = json.loads(fuzz_parsers._record_file()) if completed else {}
    whole.pop("checksum", None)
    fuzz_parsers.record(fuzz_parsers.sealed({**whole, **document}))


@pytest.mark.parametrize(
    "bytes_",
    [b"[" * 100_000, b'{"a":' * 50_000, b"9" * 5000, b'{"code":' + b"9" * 5000 + b"}", b"\xed\xa0\x80", b'"\\ud800"', b"\0" * 4097],
)
def test_json_that_breaks_readers_is_none(bytes_: bytes) -> None:
    fuzz_parsers.record(bytes_)
    for status in (200, 400):
        fuzz_parsers.answer(status.to_bytes(2, "big") + bytes_)


# --- the other way to look ----------------------------------------------------------------------------------------------


def test_coverage_guided_fuzzing_finds_nothing_in_a_short_time() -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris is not installed here; .ci/run needs it for python -m dev.fuzz_parsers")
    done = subprocess.run(
        [sys.executable, "-m", "dev.fuzz_parsers", "--seconds", str(len(TARGETS))], capture_output=True, text=True, timeout=300, check=False
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(re.search(rf"^\| {name} \| [1-9]\d* \| [1-9]\d* \|$", done.stdout, re.MULTILINE) for name in TARGETS)
