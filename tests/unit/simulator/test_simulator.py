# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of the simulator, over real connections to the real process."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import pytest
import requests
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from support.simulator import _rules
from support.simulator.client import Simulator, SimulatorError

SID = "HXAP16XXXXXX97IN"
API_KEY = "secret-api-key-A1b2"
CLOSED_SID = "HXAP16XXXXXX98IN"
NUMBER = "+919876543210"
FORM = "application/x-www-form-urlencoded"
ACCOUNTS: dict[str, Any] = {SID: API_KEY, CLOSED_SID: {"api_key": API_KEY, "available": False}}

on_linux = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="looks at the process in /proc")


def public_pem(key: Any, form: PublicFormat = PublicFormat.SubjectPublicKeyInfo) -> str:
    pem: bytes = key.public_key().public_bytes(Encoding.PEM, form)
    return pem.decode().strip()


def private_key() -> rsa.RSAPrivateKey:
    """A key whose PEM has every character that is encoded; one in some hundred lacks the slash or the plus."""
    while not {"/", "+"} <= set(public_pem(key := rsa.generate_private_key(65537, 2048))):
        pass
    return key


PRIVATE_KEY = private_key()
PEM = public_pem(PRIVATE_KEY)
OTHER_PEM = public_pem(rsa.generate_private_key(65537, 2048))
BODY = urlencode({"business_public_key": PEM}).encode()
OTHER_BODY = urlencode({"business_public_key": OTHER_PEM}).encode()


def fingerprint(pem: str) -> str:
    """Made here without the simulator's help: from the base64 between the PEM's lines."""
    der = base64.b64decode("".join(pem.splitlines()[1:-1]))
    return hashlib.sha256(der).digest().hex(":")


FINGERPRINT = fingerprint(PEM)
REGISTERED = {SID: {NUMBER: FINGERPRINT}}


@pytest.fixture(scope="module")
def process() -> Iterator[Simulator]:
    with Simulator(ACCOUNTS) as running:
        yield running


@pytest.fixture
def simulator(process: Simulator) -> Simulator:
    process.reset()
    return process


def api_path(sid: str = SID, number: str = NUMBER) -> str:
    return f"/v2/{sid}/whatsapp/{number}/flows_encryption"


def raw_request(
    path: str | None = None,
    *,
    method: str = "POST",
    body: bytes = BODY,
    headers: list[tuple[str, str]] | None = None,
    length: int | None = None,
) -> bytes:
    """A request, byte for byte; `headers` replaces the API key and the content type."""
    if headers is None:
        headers = [("api-key", API_KEY), ("Content-Type", FORM)]
    lines = [f"{method} {path or api_path()} HTTP/1.1", "Host: simulator"]
    lines += [f"{name}: {value}" for name, value in headers]
    lines += [f"Content-Length: {len(body) if length is None else length}", "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    assert parts.port is not None
    return socket.create_connection((parts.hostname, parts.port), timeout=10)


@contextmanager
def sent(simulator: Simulator, request: bytes | None = None) -> Iterator[socket.socket]:
    """A connection on which `request` (default: a right one) has been sent."""
    with connect(simulator.url) as connection:
        connection.sendall(request or raw_request())
        yield connection


def read_all(connection: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    return b"".join(iter(lambda: connection.recv(2**20), b""))


def read_some(connection: socket.socket, seconds: float) -> tuple[bytes, bool]:
    """All that comes within so many seconds, and whether the connection is still open then."""
    deadline = time.monotonic() + seconds
    data = b""
    while (left := deadline - time.monotonic()) > 0:
        connection.settimeout(left)
        try:
            more = connection.recv(65536)
        except socket.timeout:
            break
        if not more:
            return data, False
        data += more
    return data, True


def ask(simulator: Simulator, path: str | None = None, **options: Any) -> tuple[int, Any]:
    """Send one request and return status and body, the latter read as JSON where it is."""
    with sent(simulator, raw_request(path, **options)) as connection:
        data = b""
        while b"\r\n\r\n" not in data:
            data += connection.recv(65536)
        head, dummy, content = data.partition(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
        while len(content) < length:
            content += connection.recv(65536)
    try:
        return int(head.split()[1]), json.loads(content)
    except ValueError:
        return int(head.split()[1]), content.decode()


def post(simulator: Simulator, **options: Any) -> requests.Response:
    """The same through requests, as a usual client would."""
    with requests.Session() as session:
        session.trust_env = False
        options.setdefault("timeout", 10)
        options.setdefault("allow_redirects", False)
        options.setdefault("data", BODY)
        headers = {"api-key": API_KEY, "Content-Type": FORM}
        return session.post(f"{simulator.url}{api_path()}", headers=headers, **options)


def eventually(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.01)
    return False


# --- the documented answers -------------------------------------------------------------------------------------------

SUCCESS = {"code": "WA-200", "message": "Request Processed Successfully", "data": {"success": True}, "error": {}}
BAD_CREDENTIALS = {
    "code": "RBC001",
    "message": "Incorrect SID or API key.",
    "data": [],
    "error": {"error": "Incorrect SID or API key."},
}
UNAVAILABLE = {
    "code": "WA-401",
    "message": "API is not available for given customer.Please contact support for more info",
    "data": {},
    "error": "API is not available for given customer.Please contact support for more info",
}
BAD_PAYLOAD = {
    "code": "WA-400",
    "message": "Refer to correct payload format",
    "data": {},
    "error": {"payload": "Incorrect payload format"},
}
SERVER_ERROR = {
    "code": "WA-500",
    "message": "Please try again later",
    "data": {},
    "error": {"error": "Internal server error"},
}


def test_success(simulator: Simulator) -> None:
    response = post(simulator)
    assert (response.status_code, response.json()) == (200, SUCCESS)
    assert response.headers["Content-Type"] == "application/json"
    assert simulator.registered() == REGISTERED


def test_each_number_has_its_own_key_and_the_last_one_counts(simulator: Simulator) -> None:
    other = "+14155550123"
    for number, body in ((NUMBER, BODY), (other, BODY), (NUMBER, OTHER_BODY)):
        assert ask(simulator, api_path(number=number), body=body) == (200, SUCCESS)
    assert simulator.state()["registered"] == {
        SID: {
            NUMBER: {"fingerprint": fingerprint(OTHER_PEM), "pem": OTHER_PEM, "count": 2},
            other: {"fingerprint": FINGERPRINT, "pem": PEM, "count": 1},
        }
    }


@pytest.mark.parametrize(
    ("sid", "headers"),
    [
        ("HXAP16XXXXXX99IN", [("api-key", API_KEY)]),
        (SID.lower(), [("api-key", API_KEY)]),
        (SID, [("api-key", API_KEY + "x")]),
        (SID, [("api-key", API_KEY[:-1])]),
        (SID, [("api-key", "")]),
        (SID, [("api-key", "\xe9")]),
        (SID, []),
        (SID, [("Authorization", f"Bearer {API_KEY}")]),
        (SID, [("api-key", API_KEY), ("api-key", API_KEY)]),
        ("HXAP16XXXXXX99IN", [("api-key", "")]),
        (CLOSED_SID, [("api-key", "wrong")]),
    ],
)
def test_wrong_credentials(simulator: Simulator, sid: str, headers: list[tuple[str, str]]) -> None:
    # The payload is wrong as well: credentials are checked first.
    assert ask(simulator, api_path(sid), headers=headers, body=b"junk") == (401, BAD_CREDENTIALS)


def test_account_without_the_api(simulator: Simulator) -> None:
    assert ask(simulator, api_path(CLOSED_SID), body=b"junk") == (401, UNAVAILABLE)
    assert ask(simulator, api_path(CLOSED_SID)) == (401, UNAVAILABLE)
    assert simulator.registered() == {}


def test_server_error_on_order(simulator: Simulator) -> None:
    simulator.faults({"*": [{"do": "answer", "status": 500, "body": SERVER_ERROR}]})
    assert ask(simulator) == (500, SERVER_ERROR)
    assert simulator.requests()[0]["code"] == "WA-500"


def test_the_simulators_own_table_matches_the_vendors() -> None:
    answers = (
        (_rules.SUCCESS, 200, SUCCESS),
        (_rules.BAD_CREDENTIALS, 401, BAD_CREDENTIALS),
        (_rules.UNAVAILABLE, 401, UNAVAILABLE),
        (_rules.BAD_PAYLOAD, 400, BAD_PAYLOAD),
        (_rules.SERVER_ERROR, 500, SERVER_ERROR),
    )
    for answer, status, document in answers:
        assert (answer.status, answer.code, json.loads(answer.body)) == (status, document["code"], document)


# --- strictness -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "number",
    [
        "%2B919876543210",
        "919876543210",
        "+0919876543210",
        "+9198765432101234",
        "+91",
        "+91-9876543210",
        "+91987654321x",
    ],
)
def test_number_must_be_e164_with_a_literal_plus(simulator: Simulator, number: str) -> None:
    assert ask(simulator, api_path(number=number)) == (400, BAD_PAYLOAD)
    assert simulator.registered() == {}


@pytest.mark.parametrize("number", ["+2908000", "+919876543210", "+123456789012345"])
def test_numbers_of_every_length_are_taken(simulator: Simulator, number: str) -> None:
    assert ask(simulator, api_path(number=number)) == (200, SUCCESS)


@pytest.mark.parametrize(
    "content_types",
    [[], [f"{FORM}; charset=utf-8"], [FORM.upper()], ["application/json"], ["multipart/form-data"]],
)
def test_content_type_must_be_exact(simulator: Simulator, content_types: list[str]) -> None:
    headers = [("api-key", API_KEY), *(("Content-Type", value) for value in content_types)]
    assert ask(simulator, headers=headers) == (400, BAD_PAYLOAD)


def test_two_content_types_are_refused(simulator: Simulator) -> None:
    headers = [("api-key", API_KEY), ("Content-Type", FORM), ("Content-Type", FORM)]
    # The status only: newer versions of aiohttp refuse this as bad HTTP, before the simulator sees it.
    assert ask(simulator, headers=headers)[0] == 400


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
def test_method_must_be_post(simulator: Simulator, method: str) -> None:
    assert ask(simulator, method=method)[0] == 405
    assert simulator.registered() == {}


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v2",
        api_path() + "/",
        api_path() + "?x=1",
        api_path().replace("v2", "v1"),
        "/" + api_path(),
        "/_simulator",
    ],
)
def test_unknown_path(simulator: Simulator, path: str) -> None:
    assert ask(simulator, path) == (404, "404: Not Found")
    assert simulator.registered() == {}
    # It was a request nevertheless: a test can see that a redirect was followed.
    seen = simulator.requests()[0]
    assert (seen["path"], seen["sid"], seen["phone_number"], seen["status"]) == (path, None, None, 404)


def field(pem: str) -> bytes:
    return urlencode({"business_public_key": pem}).encode()


def body_with_other_columns() -> bytes:
    digits = "".join(PEM.splitlines()[1:-1])
    return field("\n".join(["-----BEGIN PUBLIC KEY-----", *textwrap.wrap(digits, 76), "-----END PUBLIC KEY-----"]))


WRONG_BODIES = {
    "empty": b"",
    "junk": b"junk",
    "not ascii": b"business_public_key=\xff\xfe",
    "no value": b"business_public_key=",
    "PEM not encoded": b"business_public_key=" + PEM.encode(),
    "JSON": json.dumps({"business_public_key": PEM}).encode(),
    "other field name": BODY.replace(b"business", b"busyness"),
    "second field": BODY + b"&x=1",
    "field before": b"x=1&" + BODY,
    "field twice": BODY + b"&" + BODY,
    "ends with ampersand": BODY + b"&",
    "newline at the end": BODY + b"%0A",
    "raw newline at the end": BODY + b"\n",
    "newline at the start": field("\n" + PEM),
    "CRLF": field(PEM.replace("\n", "\r\n")),
    "literal \\n": field(PEM.replace("\n", "\\n")),
    "space as %20": BODY.replace(b"+", b"%20"),
    "small letters in escapes": BODY.replace(b"%0A", b"%0a"),
    "slashes not encoded": BODY.replace(b"%2F", b"/"),
    "dashes encoded": BODY.replace(b"-", b"%2D"),
    "everything encoded twice": b"business_public_key=" + quote(quote(PEM, safe=""), safe="").encode(),
    "76 columns": body_with_other_columns(),
    "one line": field("".join(PEM.splitlines(keepends=True)[:1]) + PEM.replace("\n", "")[26:-24] + "\n" + PEM[-24:]),
    "text before": field("key:\n" + PEM),
    "two keys": field(PEM + "\n" + OTHER_PEM),
    "cut off": field(PEM[:-30]),
    "RSA 1024": field(public_pem(rsa.generate_private_key(65537, 1024))),
    "RSA 3072": field(public_pem(rsa.generate_private_key(65537, 3072))),
    "EC": field(public_pem(ec.generate_private_key(ec.SECP256R1()))),
    "PKCS#1": field(public_pem(PRIVATE_KEY, PublicFormat.PKCS1)),
    "private key": field(PRIVATE_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode().strip()),
    "too long to look at": BODY + b"x" * 5000,
    "longer than the server reads": b"x" * (2**20 + 1),
}


@pytest.mark.parametrize("name", WRONG_BODIES)
def test_body_must_be_exact(simulator: Simulator, name: str) -> None:
    body = WRONG_BODIES[name]
    assert body != BODY
    assert ask(simulator, body=body) == (400, BAD_PAYLOAD)
    assert simulator.registered() == {}
    assert simulator.requests()[0]["fingerprint"] is None


def test_compressed_body_is_refused(simulator: Simulator) -> None:
    headers = [("api-key", API_KEY), ("Content-Type", FORM), ("Content-Encoding", "gzip")]
    assert ask(simulator, headers=headers, body=gzip.compress(BODY)) == (400, BAD_PAYLOAD)


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_what_curl_sends_is_accepted(simulator: Simulator) -> None:
    command = ["curl", "--noproxy", "*", "-sS", "-X", "POST", simulator.url + api_path()]
    command += ["-H", f"api-key: {API_KEY}", "-H", f"Content-Type: {FORM}"]
    command += ["--data-urlencode", f"business_public_key={PEM}"]
    answer = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=20).stdout)
    sent_body = simulator.requests()[0]["body"]
    if "%20" in sent_body:
        # curl before 7.82 wrote a space as %20. The API's page prints no body, so the simulator takes one form only,
        # that of today's curl; apart from the spaces the old one must be the same.
        assert sent_body.replace("%20", "+").encode() == BODY
        assert answer == BAD_PAYLOAD
    else:
        assert sent_body.encode() == BODY
        assert answer == SUCCESS


# --- steering ---------------------------------------------------------------------------------------------------------


def test_state_shows_requests_as_they_were(simulator: Simulator) -> None:
    headers = [("API-Key", API_KEY), ("Content-Type", FORM), ("X-Two", "a"), ("x-two", "b")]
    ask(simulator, headers=headers)
    ask(simulator, api_path(number="%2B919876543210"), body=b"\xff=1")
    first, second = simulator.requests()
    assert first == {
        "sid": SID,
        "phone_number": NUMBER,
        "status": 200,
        "code": "WA-200",
        "fingerprint": FINGERPRINT,
        "headers": {
            "host": "simulator",
            "api-key": API_KEY,
            "content-type": FORM,
            "x-two": "a, b",
            "content-length": str(len(BODY)),
        },
        "body": BODY.decode(),
        "path": api_path(),
    }
    assert second["path"] == api_path(number="%2B919876543210")
    assert (second["phone_number"], second["body"], second["status"]) == ("%2B919876543210", "\xff=1", 400)


def test_counts(simulator: Simulator) -> None:
    with requests.Session() as session:
        session.trust_env = False
        for dummy in range(3):
            session.post(simulator.url + api_path(), data=BODY, headers={"api-key": API_KEY, "Content-Type": FORM})
    post(simulator)
    # A connection that only steers, or on which nothing is ever asked, does not count.
    with connect(simulator.url):
        state = simulator.state()
    assert (state["request_count"], state["connection_count"]) == (4, 2)
    assert simulator.count() == 4


def test_reset_forgets_everything(simulator: Simulator) -> None:
    post(simulator)
    simulator.faults({"*": [{"do": "close", "always": True}]})
    simulator.reset()
    assert simulator.state() == {"registered": {}, "requests": [], "request_count": 0, "connection_count": 0}
    assert post(simulator).status_code == 200


def test_state_file_outlives_the_process(tmp_path: Path) -> None:
    state_file = tmp_path / "state.json"
    with Simulator(ACCOUNTS, state_file=state_file) as first:
        post(first)
    with Simulator(ACCOUNTS, state_file=state_file) as second:
        assert second.registered() == REGISTERED
        assert second.count() == 0


def test_spoiled_state_file_is_refused(tmp_path: Path) -> None:
    state_file = tmp_path / "state.json"
    state_file.write_text('{"SID": {"+919876543210": {"pem": "junk", "count": 1}}}')
    with pytest.raises(SimulatorError, match="state-file"):
        Simulator(ACCOUNTS, state_file=state_file)


def test_unknown_steering_request(simulator: Simulator) -> None:
    assert ask(simulator, "/_simulator/nothing", method="GET")[0] == 404
    assert ask(simulator, "/_simulator/state", method="POST")[0] == 404
    assert simulator.count() == 0


def test_environment_proxies_are_bypassed(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert simulator.count() == 0


def answer_fault(status: int, **more: Any) -> dict[str, Any]:
    return {"do": "answer", "status": status, **more}


def test_faults_are_used_up_in_order(simulator: Simulator) -> None:
    other = "+14155550123"
    simulator.faults({NUMBER: [answer_fault(503), answer_fault(502)], "*": [answer_fault(500)]})
    assert ask(simulator)[0] == 503
    # The number's own list comes first, and does not touch the one for all.
    assert ask(simulator)[0] == 502
    assert ask(simulator, api_path(number=other))[0] == 500
    assert ask(simulator)[0] == 200
    assert ask(simulator, api_path(number=other))[0] == 200


def test_fault_that_stays(simulator: Simulator) -> None:
    simulator.faults({"*": [answer_fault(503), answer_fault(500, always=True), answer_fault(502)]})
    assert [ask(simulator)[0] for dummy in range(4)] == [503, 500, 500, 500]
    simulator.faults({})
    assert ask(simulator)[0] == 200


def test_fault_for_all_meets_unknown_paths_too(simulator: Simulator) -> None:
    simulator.faults({NUMBER: [answer_fault(503)], "*": [answer_fault(500)]})
    assert ask(simulator, "/elsewhere")[0] == 500


@pytest.mark.parametrize(
    ("faults", "text"),
    [
        ([], "must be a JSON object"),
        ({"919876543210": []}, "neither"),
        ({"*": {"do": "close"}}, "expected a list"),
        ({"*": ["close"]}, "must be a JSON object"),
        ({"*": [{}]}, "unknown do None"),
        ({"*": [{"do": []}]}, "unknown do []"),
        ({"*": [{"do": "explode"}]}, "unknown do 'explode', expected one of answer, reset"),
        ({"*": [{"do": "close", "aply": True}]}, "close does not know aply"),
        ({"*": [{"do": "close", "apply": "yes"}]}, "apply must be true or false"),
        ({"*": [{"do": "close", "delay": -1}]}, "delay must be a number of seconds"),
        ({"*": [{"do": "close", "delay": True}]}, "delay must be a number of seconds"),
        ({"*": [{"do": "close", "delay": float("nan")}]}, "delay must be a number of seconds"),
        ({"*": [{"do": "answer"}]}, "answer needs status"),
        ({"*": [{"do": "answer", "status": 100}]}, "status must be an HTTP status"),
        ({"*": [{"do": "answer", "status": 200, "reason": "a\r\nb"}]}, "reason must be one line"),
        ({"*": [{"do": "answer", "status": 200, "headers": {"a": "b\nc"}}]}, "headers must be one line"),
        ({"*": [{"do": "answer", "status": 200, "headers": {"a b": "c"}}]}, "which 'a b' is not"),
        ({"*": [{"do": "answer", "status": 200, "headers": {"Content-Length": "1"}}]}, "use raw"),
        ({"*": [{"do": "hang", "where": "tail"}]}, 'where must be "headers" or "body"'),
        ({"*": [{"do": "flood", "bytes": 1}]}, "bytes must be a number of bytes"),
        ({"*": [{"do": "raw"}]}, "raw needs bytes"),
        ({"*": [{"do": "raw", "bytes": "\u20ac"}]}, "bytes must be a string of characters up to U+00FF"),
        ({"*": [{"do": "reset", "unread": True, "apply": True}]}, "apply needs the request's body"),
    ],
)
def test_malformed_faults_are_refused(simulator: Simulator, faults: Any, text: str) -> None:
    simulator.faults({"*": [answer_fault(503)]})
    with pytest.raises(SimulatorError, match="PUT faults: 400") as error:
        simulator.faults(faults)
    assert text in str(error.value)
    # The earlier order still stands.
    assert ask(simulator)[0] == 503


def test_faults_that_are_not_json(simulator: Simulator) -> None:
    assert ask(simulator, "/_simulator/faults", method="PUT", body=b"{")[0] == 400


# --- faults -----------------------------------------------------------------------------------------------------------


def test_answer(simulator: Simulator) -> None:
    fault = answer_fault(
        429, reason="Slow Down", headers={"Retry-After": 7, "content-type": "text/html"}, body="<p>wait</p>"
    )
    simulator.faults({"*": [fault, answer_fault(200, body=[1]), answer_fault(502)]})
    response = post(simulator)
    assert (response.status_code, response.reason, response.text) == (429, "Slow Down", "<p>wait</p>")
    assert (response.headers["Retry-After"], response.headers["Content-Type"]) == ("7", "text/html")
    assert post(simulator).json() == [1]
    assert (post(simulator).text, simulator.registered()) == ("", {})


@pytest.mark.parametrize("body", [BODY, b"junk"])
def test_apply_registers_only_what_is_right(simulator: Simulator, body: bytes) -> None:
    simulator.faults({"*": [answer_fault(500, apply=True)]})
    assert ask(simulator, body=body)[0] == 500
    assert simulator.registered() == (REGISTERED if body == BODY else {})


def test_delay(simulator: Simulator) -> None:
    simulator.faults({"*": [answer_fault(200, delay=0.3)]})
    began = time.monotonic()
    ask(simulator)
    assert 0.3 <= time.monotonic() - began < 2


@pytest.mark.parametrize("apply", [False, True])
def test_reset(simulator: Simulator, apply: bool) -> None:
    simulator.faults({"*": [{"do": "reset", "apply": apply}]})
    with sent(simulator) as connection, pytest.raises(ConnectionResetError):
        connection.recv(1)
    assert simulator.registered() == (REGISTERED if apply else {})
    seen = simulator.requests()[0]
    assert (seen["status"], seen["code"], seen["body"]) == (None, None, BODY.decode())


def test_reset_before_the_body_is_read(simulator: Simulator) -> None:
    simulator.faults({"*": [{"do": "reset", "unread": True}]})
    # The body never comes: a server that waited for it would not reset.
    with sent(simulator, raw_request(body=b"", length=500)) as connection, pytest.raises(ConnectionResetError):
        connection.recv(1)
    assert simulator.requests()[0]["body"] == ""


def test_reset_as_requests_sees_it(simulator: Simulator) -> None:
    simulator.faults({"*": [{"do": "reset"}]})
    with pytest.raises(requests.ConnectionError, match="Connection reset by peer"):
        post(simulator)


def test_close(simulator: Simulator) -> None:
    simulator.faults({"*": [{"do": "close", "apply": True}]})
    with sent(simulator) as connection:
        assert read_all(connection) == b""
    assert simulator.registered() == REGISTERED


def test_hang_without_an_answer(simulator: Simulator) -> None:
    simulator.faults({"*": [{"do": "hang", "apply": True}]})
    with sent(simulator) as connection:
        assert read_some(connection, 0.3) == (b"", True)
        # What hangs is already to be seen.
        assert (simulator.registered(), simulator.requests()[0]["status"]) == (REGISTERED, None)


def test_hang_after_the_headers(simulator: Simulator) -> None:
    simulator.faults({"*": [{"do": "hang", "where": "body"}]})
    with sent(simulator) as connection:
        data, still_open = read_some(connection, 0.3)
        assert still_open
        assert data.startswith(b"HTTP/1.1 200 OK\r\n") and data.endswith(b"\r\n\r\n")
        assert f"Content-Length: {len(json.dumps(SUCCESS))}".encode() in data


@pytest.mark.parametrize("where", ["headers", "body"])
def test_hang_ends_when_told(simulator: Simulator, where: str) -> None:
    simulator.faults({"*": [{"do": "hang", "where": where, "seconds": 0.2}]})
    with sent(simulator) as connection:
        began = time.monotonic()
        assert bool(read_all(connection)) is (where == "body")
        assert 0.1 < time.monotonic() - began < 2


def test_trickle_from_the_status_line(simulator: Simulator) -> None:
    simulator.faults({"*": [{"do": "trickle", "interval": 0.1}]})
    with sent(simulator) as connection:
        data, still_open = read_some(connection, 0.55)
    assert still_open and b"HTTP" in b"HTTP/1.1"[: len(data)] and len(data) <= 7


def test_trickle_from_the_body(simulator: Simulator) -> None:
    simulator.faults({"*": [{"do": "trickle", "where": "body", "interval": 0.1}]})
    with sent(simulator) as connection:
        data, still_open = read_some(connection, 0.55)
    dummy, dummy, body = data.partition(b"\r\n\r\n")
    assert still_open and 3 <= len(body) <= 7 and json.dumps(SUCCESS).encode().startswith(body)


@pytest.mark.parametrize("where", ["headers", "body"])
def test_trickle_is_a_success_in_the_end(simulator: Simulator, where: str) -> None:
    simulator.faults({"*": [{"do": "trickle", "where": where, "interval": 0.001}]})
    response = post(simulator)
    assert (response.status_code, response.json()) == (200, SUCCESS)
    assert response.elapsed.total_seconds() < 5
    assert simulator.registered() == {}


def test_flood(simulator: Simulator) -> None:
    simulator.faults({"*": [{"do": "flood", "bytes": 5_000_000}]})
    response = post(simulator)
    assert (response.status_code, len(response.content)) == (200, 5_000_000)
    assert response.json()["code"] == "WA-200"
    assert "Content-Length" not in response.headers


def test_flood_as_a_redirect(simulator: Simulator) -> None:
    simulator.faults({"*": [{"do": "flood", "bytes": 256, "status": 302}]})
    response = post(simulator)
    assert (response.status_code, response.headers["Location"], len(response.content)) == (302, "/elsewhere", 256)
    assert simulator.requests()[0]["status"] == 302


@on_linux
def test_flood_piles_up_nowhere(simulator: Simulator) -> None:
    def resident_mib() -> float:
        return int(Path(f"/proc/{simulator.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    before = resident_mib()
    simulator.faults({"*": [{"do": "flood"}]})
    with sent(simulator) as connection:
        connection.recv(1)
        time.sleep(0.3)
        assert resident_mib() - before < 16
        # While one client reads nothing, others are served.
        assert ask(simulator)[0] == 200


def test_gzip_bomb(simulator: Simulator) -> None:
    size = 40 * 2**20 + 12345
    simulator.faults({"*": [{"do": "gzip_bomb", "bytes": size}]})
    with sent(simulator) as connection:
        head, dummy, wire = read_all(connection).partition(b"\r\n\r\n")
    assert b"Content-Encoding: gzip" in head
    assert len(wire) < size / 900
    # gzip.decompress also compares checksum and size.
    content = gzip.decompress(wire)
    assert len(content) == size
    assert json.loads(content)["data"] == {"success": True}


def test_gzip_bomb_as_requests_sees_it(simulator: Simulator) -> None:
    simulator.faults({"*": [{"do": "gzip_bomb", "bytes": 3_000_000}]})
    assert len(post(simulator).content) == 3_000_000


def test_echo(simulator: Simulator) -> None:
    simulator.faults({"*": [{"do": "echo"}, {"do": "echo", "status": 200}]})
    response = post(simulator)
    assert response.status_code == 400
    document = response.json()
    for part in (response.reason, response.headers["X-Echo"], *map(json.dumps, (document["code"], document["error"]))):
        assert API_KEY in part and BODY.decode() in part
    assert API_KEY in document["message"]
    assert post(simulator).status_code == 200


def test_echo_of_what_does_not_fit_into_a_line(simulator: Simulator) -> None:
    simulator.faults({"*": [{"do": "echo"}]})
    response = post(simulator, data=b"\r\n\xff" * 30_000)
    assert API_KEY in response.reason and API_KEY in response.headers["X-Echo"]
    assert len(response.json()["message"]) > 90_000


def test_raw(simulator: Simulator) -> None:
    data = "HTTP/1.0 200 \xff\r\nContent-Length: 99\r\n\r\n\x00{"
    simulator.faults({"*": [{"do": "raw", "bytes": data, "apply": True}]})
    with sent(simulator) as connection:
        assert read_all(connection) == data.encode("latin-1")
    assert simulator.registered() == REGISTERED
    assert simulator.requests()[0]["status"] is None


HANGING: list[dict[str, Any]] = [
    {"do": "hang"},
    {"do": "hang", "where": "body"},
    {"do": "trickle", "interval": 30},
    {"do": "flood", "bytes": 2**30},
    {"do": "gzip_bomb", "bytes": 2**34},
    answer_fault(200, delay=3600),
]


@on_linux
def test_fault_ends_with_its_client() -> None:
    with Simulator(ACCOUNTS) as running:

        def descriptors() -> int:
            return len(os.listdir(f"/proc/{running.pid}/fd"))

        before = descriptors()  # nobody has connected yet
        for number, fault in enumerate(HANGING, start=1):
            running.faults({"*": [fault]})
            with sent(running):
                assert eventually(lambda: running.count() == number)  # pylint: disable=cell-var-from-loop
                assert eventually(lambda: descriptors() == before + 1), fault
            assert eventually(lambda: descriptors() == before), fault
        assert running.stderr() == ""


# --- the process ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_it_at_once_whatever_hangs(number: signal.Signals) -> None:
    with Simulator(ACCOUNTS) as running, ExitStack() as connections:
        running.faults({"*": HANGING})
        for dummy in HANGING:
            connections.enter_context(sent(running))
        assert eventually(lambda: running.count() == len(HANGING))
        os.kill(running.pid, number)
        # The exit status is only known to the object that started the process.
        assert running._process.wait(timeout=2) == 0  # pylint: disable=protected-access
        assert running.stderr() == ""


def test_it_does_not_outlive_its_parent() -> None:
    program = textwrap.dedent("""\
        import time
        from support.simulator.client import Simulator
        simulator = Simulator({"A": "key"})
        print(simulator.url, flush=True)
        time.sleep(60)
        """)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment, text=True
    ) as parent:
        assert parent.stdout is not None
        url = parent.stdout.readline().strip()
        connect(url).close()
        parent.kill()

    def gone() -> bool:
        try:
            connect(url).close()
        except ConnectionError:
            return True
        return False

    assert eventually(gone)


def test_stop_can_be_called_twice_and_leaves_no_accounts_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    running = Simulator(ACCOUNTS)
    assert list(tmp_path.iterdir()) == []
    running.stop()
    running.stop()
    with pytest.raises(ConnectionRefusedError):
        running.count()


def test_latency(simulator: Simulator) -> None:
    del simulator
    with Simulator(ACCOUNTS, latency=0.3) as running:
        began = time.monotonic()
        assert ask(running)[0] == 200
        assert 0.3 <= time.monotonic() - began < 2
        began = time.monotonic()
        running.count()
        assert time.monotonic() - began < 0.25


def test_log_names_requests_and_no_secrets() -> None:
    with Simulator(ACCOUNTS, log=True) as running:
        running.faults({"*": [{"do": "echo"}]})
        ask(running)
        ask(running)
        running.state()
        lines = running.stderr().splitlines()
    assert lines == [f"POST {api_path()} 400 fault echo", f"POST {api_path()} 200 WA-200"]


@pytest.mark.parametrize(
    ("accounts", "text"),
    [
        ([], "must be a JSON object"),
        ({"a/b": "key"}, "'a/b' is no SID"),
        ({"A": ""}, "A: api_key must be a string"),
        ({"A": {"available": True}}, "A: api_key must be a string"),
        ({"A": {"api_key": "secret", "availble": False}}, "A: expected an API key"),
        ({"A": {"api_key": "secret", "available": 0}}, "A: available must be"),
    ],
)
def test_wrong_accounts(accounts: Any, text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(text)) as error:
        _rules.read_accounts(accounts)
    assert "secret" not in str(error.value)


def test_failure_to_start_is_reported() -> None:
    with pytest.raises(SimulatorError, match=r"ended with status 2: (?s:.*) --accounts: 'a/b' is no SID"):
        Simulator({"a/b": "key"})


def test_port_in_use_is_reported(simulator: Simulator) -> None:
    port = urlsplit(simulator.url).port
    assert port is not None
    with pytest.raises(SimulatorError, match=f"ended with status 1: simulator: cannot serve on 127.0.0.1 port {port}"):
        Simulator(ACCOUNTS, port=port)


def test_start_is_bounded() -> None:
    with pytest.raises(SimulatorError, match="not ready within 0.01 s"):
        Simulator(ACCOUNTS, start_timeout=0.01)


def test_command_line(tmp_path: Path) -> None:
    accounts, url_file = tmp_path / "accounts.json", tmp_path / "url"
    accounts.write_text(json.dumps(ACCOUNTS), encoding="utf-8")
    command = [sys.executable, "-m", "support.simulator", "--accounts", str(accounts), "--url-file", str(url_file)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    # Without --exit-on-eof the end of stdin means nothing.
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        line = running.stdout.readline()
        assert line.startswith("http://127.0.0.1:")
        assert url_file.read_text(encoding="utf-8") == line
        assert sorted(tmp_path.iterdir()) == [accounts, url_file]
        running.terminate()
        assert running.wait(timeout=5) == 0


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")
def test_https(tmp_path: Path) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=simulator"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    with Simulator(ACCOUNTS, certfile=certificate, keyfile=key) as running:
        assert running.url.startswith("https://127.0.0.1:")
        assert post(running, verify=str(certificate)).json() == SUCCESS
        with pytest.raises(requests.exceptions.SSLError):
            post(running)
        running.faults({"*": [{"do": "reset"}, {"do": "flood", "bytes": 3_000_000}, {"do": "raw", "bytes": "junk"}]})
        # Not "reset by peer": under TLS some versions of Python report a reset as the end of the connection.
        with pytest.raises(requests.ConnectionError, match="Connection aborted"):
            post(running, verify=str(certificate))
        assert len(post(running, verify=str(certificate)).content) == 3_000_000
        with pytest.raises(requests.ConnectionError, match="BadStatusLine"):
            post(running, verify=str(certificate))
        assert running.registered() == REGISTERED
        assert running.state()["connection_count"] == 4


def can_bind_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as listener:
            listener.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not can_bind_ipv6(), reason="::1 cannot be bound")
def test_ipv6() -> None:
    with Simulator(ACCOUNTS, host="::1") as running:
        assert running.url.startswith("http://[::1]:")
        assert post(running).json() == SUCCESS
        assert running.registered() == REGISTERED
