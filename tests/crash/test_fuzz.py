# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The targets of ``dev.fuzz_parsers`` with hypothesis, which also knows the formats of answers and records. ``make fuzz`` is guided by coverage.

What must hold is written once, in the targets: a value with its invariants, or the project's own error.
"""

from __future__ import annotations

import base64
import json
import os
from typing import Any

import pytest
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._public_key import parse_public_key
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.records import sealed

from dev import fuzz_parsers
from dev.fuzz_parsers import DER, FINGERPRINT, IDENTITY, SECRET, TARGETS

EXAMPLES = 50 * int(os.environ.get("STRESS_ROUNDS", "4"))
PROPERTY = settings(database=None, deadline=None, max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow])


def encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=10), st.sampled_from(["WA-200", "true", 1, SECRET, "success"])),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["code", "data", "success", "message"]), inner, max_size=4)),
    max_leaves=6,
)
nearly_success = st.fixed_dictionaries(
    {},
    optional={
        "code": st.one_of(st.sampled_from(["WA-200", "wa-200", "WA-200 ", ["WA-200"], 200]), anything),
        "data": st.one_of(st.sampled_from([{"success": v} for v in (True, "true", 1, [True], None)]), anything),
        "message": anything,
        "error": anything,
    },
)
answers = st.tuples(
    st.sampled_from([200, 200, 200, 201, 204, 302, 400, 401, 429, 500, 0, 999]),
    st.one_of(nearly_success, anything),
    st.sampled_from(["utf-8", "utf-16", "utf-32", "utf-8-sig"]),
)
record_fields = st.fixed_dictionaries(
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


def record(document: dict[str, Any], completed: bool) -> bytes:
    whole = json.loads(fuzz_parsers._record_file()) if completed else {}
    whole.pop("checksum", None)
    return sealed({**whole, **document})


FORMATS: dict[str, st.SearchStrategy[bytes]] = {
    "answer": answers.map(lambda part: part[0].to_bytes(2, "big") + json.dumps(part[1]).encode(part[2])),
    "record": st.builds(record, record_fields, st.booleans()),
}


@pytest.mark.parametrize("name", TARGETS)
@PROPERTY
@given(data=st.data())
def test_any_input_gives_a_value_or_our_error(name: str, data: st.DataObject) -> None:
    target, seeds = TARGETS[name]
    seed = data.draw(st.sampled_from(seeds))
    kind = data.draw(st.sampled_from(["seed", "bytes", "text", "damaged", *(["format"] * 4 if name in FORMATS else [])]))
    if kind == "seed":
        target(seed)
    elif kind == "bytes":
        target(data.draw(st.binary(max_size=400)))
    elif kind == "text":
        target(encoded(data.draw(st.text(max_size=200))))
    elif kind == "format":
        target(data.draw(FORMATS[name]))
    else:
        start, end = sorted((data.draw(st.integers(0, len(seed))), data.draw(st.integers(0, len(seed)))))
        target(seed[:start] + data.draw(st.binary(max_size=8)) + seed[end:])


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_are_taken_as_they_should(name: str) -> None:
    target, seeds = TARGETS[name]
    for seed in seeds:
        target(seed)


@PROPERTY
@given(
    blanks=st.lists(st.tuples(st.integers(0, 500), st.sampled_from(["\n", "\r\n", "\\n", "\\r\\n", " ", "\t", "\n\n"])), max_size=6),
    before=st.sampled_from(["", "\ufeff", "\n", "\r\n \t"]),
    after=st.sampled_from(["", "\n", "\r\n\r\n", "\\n", " "]),
)
def test_pem_means_the_same_however_its_lines_are_broken(blanks: list[tuple[int, str]], before: str, after: str) -> None:
    body = base64.b64encode(DER).decode()
    for at, blank in blanks:
        # A break inside of an earlier one would be something else: a lone backslash.
        body = body[:at] + blank + body[at:] if "\\" not in body[max(0, at - 3) : at + 3] else body
    key = parse_public_key(f"{before}-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----{after}")
    assert key.der == DER
    key.require_rsa_2048()


@pytest.mark.parametrize(
    "bytes_",
    [b"[" * 100_000, b'{"a":' * 50_000, b"9" * 5000, b'{"code":' + b"9" * 5000 + b"}", b"\xed\xa0\x80", b'"\\ud800"', b"\0" * 4097],
)
def test_json_that_breaks_readers_breaks_nothing(bytes_: bytes) -> None:
    fuzz_parsers.record(bytes_)
    for status in (200, 400):
        fuzz_parsers.answer(status.to_bytes(2, "big") + bytes_)
