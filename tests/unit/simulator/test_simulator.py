# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What other tests rely on: the simulator is as strict as the vendors' pages.

That its faults are what they are called is seen where they are met: test_http.py, test_api.py and tests/crash/test_server_misbehaviour.py.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import pytest
import requests
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from support.simulator.client import Simulator, SimulatorError, waba_numbers

SID = "HXAP16XXXXXX97IN"
CLOSED_SID = "HXAP16XXXXXX98IN"
API_KEY = "secret-api-key-A1b2"
NUMBER, OTHER_NUMBER = "+919876543210", "+14155550123"
FORM = "application/x-www-form-urlencoded"
HEADERS = {"api-key": API_KEY, "Content-Type": FORM}
ACCOUNTS: dict[str, Any] = {SID: API_KEY, CLOSED_SID: {"api_key": API_KEY, "available": False}}
TOKEN = "EAAsimulated"
WABA = "1001"


def public_pem(key: Any) -> str:
    pem: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem.decode().strip()


def field(pem: str) -> bytes:
    return urlencode({"business_public_key": pem}).encode()


PEM, OTHER_PEM = (public_pem(rsa.generate_private_key(65537, 2048)) for dummy in range(2))
FINGERPRINT = hashlib.sha256(base64.b64decode("".join(PEM.splitlines()[1:-1]))).digest().hex(":")
SUCCESS = {"code": "WA-200", "message": "Request Processed Successfully", "data": {"success": True}, "error": {}}
UNAVAILABLE = "API is not available for given customer.Please contact support for more info"


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


def call(simulator: Simulator, method: str = "POST", path: str | None = None, *, headers: Any = None, body: bytes | None = None) -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False
        data = field(PEM) if body is None and method == "POST" else body
        request = requests.Request(method, "http://unused", headers=HEADERS if headers is None else headers, data=data).prepare()
        request.url = f"{simulator.url}{path or path_of()}"  # as it is, with nothing quoted or unquoted
        return session.send(request, timeout=10, allow_redirects=False)


def outcome(response: requests.Response) -> tuple[int, Any]:
    return response.status_code, response.json()["code"]


# --- Kaleyra's API ----------------------------------------------------------------------------------------------------


def test_success_is_as_documented(simulator: Simulator) -> None:
    response = call(simulator)
    assert (response.status_code, response.json()) == (200, SUCCESS)
    assert simulator.registered() == {SID: {NUMBER: FINGERPRINT}}
    assert call(simulator, body=field(OTHER_PEM)).json() == SUCCESS
    assert simulator.state()["registered"][SID][NUMBER]["count"] == 2


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
    response = call(simulator, path=path_of(sid=sid), headers=headers, body=b"junk")
    assert (response.status_code, response.json()) == (
        401,
        {"code": "RBC001", "message": "Incorrect SID or API key.", "data": [], "error": {"error": "Incorrect SID or API key."}},
    )


def test_unavailable_api_has_its_error_as_a_string(simulator: Simulator) -> None:
    response = call(simulator, path=path_of(sid=CLOSED_SID))
    assert (response.status_code, response.json()) == (401, {"code": "WA-401", "message": UNAVAILABLE, "data": {}, "error": UNAVAILABLE})


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"business_public_key=" + PEM.encode(),
        json.dumps({"business_public_key": PEM}).encode(),
        field(PEM) + b"&x=1",
        field(PEM) + b"%0A",
        field(PEM.replace("\n", "\r\n")),
        field(PEM).replace(b"+", b"%20"),
        b"business_public_key=" + quote(quote(PEM, safe=""), safe="").encode(),
        field(PEM + "\n" + OTHER_PEM),
        field(public_pem(rsa.generate_private_key(65537, 3072))),
        field(public_pem(ec.generate_private_key(ec.SECP256R1()))),
        b"x" * (2**20 + 1),
    ],
    ids=["empty", "unencoded", "JSON", "two-fields", "newline", "CRLF", "%20", "encoded-twice", "two-keys", "RSA-3072", "EC", "long"],
)
def test_body_must_be_exact(simulator: Simulator, body: bytes) -> None:
    assert outcome(call(simulator, body=body)) == (400, "WA-400")
    assert simulator.registered() == {}


@pytest.mark.parametrize("number", ["%2B919876543210", "919876543210", "+91", "+91-9876543210"])
def test_number_must_be_e164_with_plus(simulator: Simulator, number: str) -> None:
    assert outcome(call(simulator, path=path_of(number))) == (400, "WA-400")


def test_content_type_method_path_must_be_exact(simulator: Simulator) -> None:
    assert outcome(call(simulator, headers={**HEADERS, "Content-Type": f"{FORM}; charset=utf-8"})) == (400, "WA-400")
    assert call(simulator, "PUT").status_code == 405
    assert call(simulator, path=path_of() + "/").status_code == 404
    assert simulator.registered() == {}


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_what_curl_sends_is_accepted(simulator: Simulator) -> None:
    command = ["curl", "--noproxy", "*", "-sS", "-X", "POST", simulator.url + path_of(), "-H", f"api-key: {API_KEY}", "-H", f"Content-Type: {FORM}"]
    subprocess.run([*command, "--data-urlencode", f"business_public_key={PEM}"], check=True, capture_output=True, timeout=20)
    # curl before 7.82 wrote a space as %20.
    assert simulator.requests()[0]["body"].replace("%20", "+").encode() == field(PEM)


# --- what is read back ------------------------------------------------------------------------------------------------


def read(simulator: Simulator, object_id: str = "2000001", edge: str = "whatsapp_business_encryption", token: str = TOKEN) -> requests.Response:
    return call(simulator, "GET", f"/v23.0/{object_id}/{edge}", headers={"Authorization": f"Bearer {token}"})


def test_both_apis_tell_the_key_in_every_shape(simulator: Simulator) -> None:
    simulator.configure(access_token=TOKEN, wabas={WABA: waba_numbers([NUMBER])})
    assert call(simulator, "GET").status_code == 405  # Kaleyra's answer is not published
    told = {"business_public_key": PEM, "business_public_key_signature_status": "VALID"}
    for shape, content, empty in (("flat", told, {}), ("data", {"data": told}, {"data": {}}), ("list", {"data": [told]}, {"data": []})):
        simulator.configure(kaleyra_get=shape, meta_shape=shape)
        simulator.hold({NUMBER: None})
        assert read(simulator).json() == empty
        call(simulator)
        assert read(simulator).json() == content
        assert {**call(simulator, "GET").json(), **content} == call(simulator, "GET").json()
    simulator.hold({NUMBER: {"pem": OTHER_PEM, "status": "MISMATCH"}})
    assert read(simulator).json()["data"][0] == {"business_public_key": OTHER_PEM, "business_public_key_signature_status": "MISMATCH"}
    assert simulator.methods_by_url()["/v23.0/2000001/whatsapp_business_encryption"] == {"GET": 7}
    assert simulator.methods() == {"GET": 14, "POST": 3}


def test_meta_refuses_in_its_envelope(simulator: Simulator) -> None:
    simulator.configure(access_token=TOKEN, wabas={WABA: waba_numbers([NUMBER])})
    wrong_token, unknown_object = read(simulator, token="x"), read(simulator, "99")
    assert (wrong_token.status_code, wrong_token.json()["error"]["code"]) == (401, 190)
    assert (unknown_object.status_code, unknown_object.json()["error"]["code"]) == (400, 100)


# --- faults -----------------------------------------------------------------------------------------------------------


def answer_fault(status: int, **more: Any) -> dict[str, Any]:
    return {"do": "answer", "status": status, **more}


def test_faults_are_used_up_in_order(simulator: Simulator) -> None:
    stays = answer_fault(500, always=True)
    simulator.faults({NUMBER: [answer_fault(503), answer_fault(418, method="GET"), answer_fault(502)], "*": [stays]})
    assert [call(simulator).status_code for dummy in range(3)] == [503, 502, 500]
    assert [call(simulator, "GET").status_code, call(simulator, path=path_of(OTHER_NUMBER)).status_code] == [418, 500]
    simulator.faults({})
    assert call(simulator).status_code == 200


@pytest.mark.parametrize(
    ("faults", "text"),
    [({"+": []}, "neither"), ({"*": [{"do": "explode"}]}, "unknown do"), ({"*": [{"do": "close", "aply": True}]}, "does not know aply")],
)
def test_misspelled_faults_are_refused(simulator: Simulator, faults: Any, text: str) -> None:
    with pytest.raises(SimulatorError, match=text):
        simulator.faults(faults)


def test_answer_and_apply(simulator: Simulator) -> None:
    headers = {"Retry-After": 7, "content-type": "text/html"}
    simulator.faults({"*": [answer_fault(429, reason="Slow Down", headers=headers, body="<p>wait</p>", apply=True)]})
    response = call(simulator)
    assert (response.status_code, response.reason, response.text, response.headers["Retry-After"]) == (429, "Slow Down", "<p>wait</p>", "7")
    assert simulator.registered() == {SID: {NUMBER: FINGERPRINT}}


def test_log_does_not_tell_the_secret(simulator: Simulator) -> None:
    simulator.faults({"*": [{"do": "echo", "always": True}]})
    assert API_KEY in call(simulator).json()["message"]
    assert TOKEN in read(simulator).json()["message"]
    assert "fault echo" in simulator.stderr() and API_KEY not in simulator.stderr() and TOKEN not in simulator.stderr()


# --- the process ------------------------------------------------------------------------------------------------------


def test_counts_and_reset(simulator: Simulator) -> None:
    for dummy in range(3):
        call(simulator)
    assert (simulator.count(), simulator.state()["connection_count"]) == (3, 3)
    simulator.reset()
    assert simulator.state() == {"registered": {}, "requests": [], "request_count": 0, "connection_count": 0, "methods": {}, "throttling": {}}


def test_state_file_keeps_registrations(tmp_path: Path) -> None:
    with Simulator(ACCOUNTS, state_file=tmp_path / "state.json") as first:
        call(first)
    with Simulator(ACCOUNTS, state_file=tmp_path / "state.json") as second:
        second.configure(kaleyra_get="flat")
        assert second.registered() == {SID: {NUMBER: FINGERPRINT}}
        assert call(second, "GET").json()["business_public_key"] == PEM


def test_failure_to_start_is_reported() -> None:
    with pytest.raises(SimulatorError, match=r"ended with status 2: (?s:.*) --accounts: 'a/b' is no SID"):
        Simulator({"a/b": "key"})


def test_simulator_ends_with_its_parent() -> None:
    program = "import time; from support.simulator.client import Simulator; s = Simulator({'A': 'key'}); print(s.url, flush=True); time.sleep(60)"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment, text=True) as parent:
        assert parent.stdout is not None
        parts = urlsplit(parent.stdout.readline().strip())
        parent.kill()
    address = (str(parts.hostname), int(parts.port or 0))
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(address):
                return
        time.sleep(0.02)
    pytest.fail("the simulator outlives the process that started it")
