# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The simulator is as strict as the vendors' pages, which other tests rely on. What they meet anyway has no test of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

import pytest
import requests
from support.keys import KeyPair
from support.simulator.client import Simulator, SimulatorError

SID, API_KEY = "HXAP16XXXXXX97IN", "secret-api-key-A1b2"
CLOSED_SID = "HXAP16XXXXXX98IN"
NUMBER = "+919876543210"
FORM = "application/x-www-form-urlencoded"
HEADERS = {"api-key": API_KEY, "Content-Type": FORM}
ACCOUNTS: dict[str, Any] = {SID: API_KEY, CLOSED_SID: {"api_key": API_KEY, "available": False}}
UNAVAILABLE = "API is not available for given customer.Please contact support for more info"


def field(pem: str) -> bytes:
    return urlencode({"business_public_key": pem}).encode()


@pytest.fixture(scope="module")
def process() -> Iterator[Simulator]:
    with Simulator(ACCOUNTS, log=True) as running:
        yield running


@pytest.fixture
def simulator(process: Simulator) -> Simulator:
    process.reset()
    return process


def path_of(number: str = NUMBER, sid: str = SID) -> str:
    return f"/v2/{sid}/whatsapp/{number}/flows_encryption"


def call(simulator: Simulator, body: bytes, method: str = "POST", path: str = path_of(), headers: Any = None) -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False
        request = requests.Request(method, "http://unused", headers=HEADERS if headers is None else headers, data=body).prepare()
        request.url = f"{simulator.url}{path}"  # as it is, with nothing quoted or unquoted
        return session.send(request, timeout=10, allow_redirects=False)


def answer(response: requests.Response) -> tuple[int, Any]:
    return response.status_code, response.json()


def test_success_is_as_documented(simulator: Simulator, key: KeyPair) -> None:
    success = {"code": "WA-200", "message": "Request Processed Successfully", "data": {"success": True}, "error": {}}
    assert answer(call(simulator, field(key.public.strip()))) == (200, success)
    assert simulator.registered() == {SID: {NUMBER: key.fingerprint}}


@pytest.mark.parametrize(
    ("sid", "headers"),
    [
        ("HXAP16XXXXXX99IN", HEADERS),
        (SID, {**HEADERS, "api-key": API_KEY + "x"}),
        (SID, {"Content-Type": FORM}),
        (CLOSED_SID, {**HEADERS, "api-key": "wrong"}),
    ],
)
def test_credentials_are_checked_before_the_payload(simulator: Simulator, sid: str, headers: dict[str, str]) -> None:
    said = "Incorrect SID or API key."
    refusal = {"code": "RBC001", "message": said, "data": [], "error": {"error": said}}
    assert answer(call(simulator, b"junk", path=path_of(sid=sid), headers=headers)) == (401, refusal)
    unavailable = {"code": "WA-401", "message": UNAVAILABLE, "data": {}, "error": UNAVAILABLE}
    assert answer(call(simulator, b"junk", path=path_of(sid=CLOSED_SID))) == (401, unavailable)


def test_request_must_be_exact(simulator: Simulator, key: KeyPair, other_key: KeyPair) -> None:
    pem = key.public.strip()
    bodies = [
        *(b"", b"business_public_key=" + pem.encode(), json.dumps({"business_public_key": pem}).encode(), b"x" * (2**20 + 1)),
        *(field(pem) + b"&x=1", field(pem) + b"%0A", field(pem.replace("\n", "\r\n")), field(pem).replace(b"+", b"%20")),
        *(b"business_public_key=" + quote(quote(pem, safe=""), safe="").encode(), field(pem + "\n" + other_key.public.strip())),
        *(field(KeyPair.make(*kind).public.strip()) for kind in (("RSA", "rsa_keygen_bits:1024"), ("EC", "ec_paramgen_curve:P-256"))),
    ]
    answers = [call(simulator, body) for body in bodies]
    answers += [call(simulator, field(pem), path=path_of(number)) for number in ("%2B919876543210", "919876543210", "+91", "+91-9876543210")]
    answers += [call(simulator, field(pem), headers={**HEADERS, "Content-Type": f"{FORM}; charset=utf-8"})]
    assert [(response.status_code, response.json()["code"]) for response in answers] == [(400, "WA-400")] * len(answers)
    assert call(simulator, field(pem), "PUT").status_code == 405
    assert call(simulator, field(pem), path=path_of() + "/").status_code == 404
    assert simulator.registered() == {}


@pytest.mark.parametrize(
    ("faults", "text"),
    [({"+": []}, "neither"), ({"*": [{"do": "explode"}]}, "unknown do"), ({"*": [{"do": "close", "aply": True}]}, "does not know aply")],
)
def test_misspelled_fault_is_refused(simulator: Simulator, faults: Any, text: str) -> None:
    with pytest.raises(SimulatorError, match=text):
        simulator.faults(faults)


def test_log_has_no_secret(simulator: Simulator) -> None:
    simulator.faults({"*": [{"do": "echo"}]})
    assert API_KEY in call(simulator, b"").json()["message"]
    assert "fault echo" in simulator.stderr() and API_KEY not in simulator.stderr()
