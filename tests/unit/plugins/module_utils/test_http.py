# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One HTTP request: what is sent, within which time it ends, and which servers are trusted."""

from __future__ import annotations

import concurrent.futures
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import requests
from ansible_collections.kaleyra.whatsapp.plugins.module_utils import _http
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._errors import InvalidInput
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._http import (
    Answer,
    ConnectionFailed,
    Timeout,
    Tls,
    TransportError,
    get,
    post,
)
from support.authority import Authority
from support.keys import openssl
from support.servers import MisbehavingServer
from support.simulator.client import Simulator

NUMBER, OTHER = "+919876543210", "+14155550123"
SID, API_KEY = "HXAP16TESTING97IN", "A0b1C2d3E4+/f5G6=h7"
HEADERS = {"api-key": API_KEY, "Content-Type": "application/x-www-form-urlencoded"}
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
UNTRUSTED = "certificate verify failed: unable to get local issuer certificate"

Serve = Callable[..., MisbehavingServer]


@pytest.fixture(autouse=True)
def new_connections() -> Iterator[None]:
    """As at the start of a process, without connections and trust stores."""
    _http._adapter.cache_clear()
    yield
    _http._adapter.cache_clear()


def _post(base_url: str, number: str = NUMBER, *, timeout: float = 20, tls: Tls = Tls(), pem: str = "x") -> Answer:
    url = f"{base_url}/v2/{SID}/whatsapp/{number}/flows_encryption"
    return post(url, HEADERS, urlencode({"business_public_key": pem}).encode(), timeout=timeout, tls=tls)


def _no_answer(base_url: str, kind: type[TransportError] = TransportError, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        _post(base_url, **options)
    message = str(caught.value)
    # A cause for people: no object names, no pools, no URL with the account's SID in it.
    assert "object at 0x" not in message and "Pool" not in message and SID not in message
    return message


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not here")
def test_body_is_what_curl_sends(misbehaving_server: Serve) -> None:
    # Every character that a PEM can contain, and more.
    text = "".join(map(chr, range(0x20, 0x7F))) + "\n-----BEGIN PUBLIC KEY-----\nAb+/9==\n"
    server = misbehaving_server(OK)
    url = f"http://127.0.0.1:{server.port}"
    _post(url, pem=text)
    subprocess.run(["curl", "-sS", "--noproxy", "*", "--data-urlencode", f"business_public_key={text}", url], check=True, capture_output=True)
    mine, curls = (request.partition(b"\r\n\r\n")[2] for request in server.requests)
    # "~" needs no encoding (RFC 3986, 2.3), and stands in no PEM; some releases of curl encode it.
    assert mine == curls.replace(b"%7E", b"~").replace(b"%20", b"+")


def test_head_tells_nothing_of_the_machine(misbehaving_server: Serve) -> None:
    server = misbehaving_server(OK)
    _post(f"http://127.0.0.1:{server.port}")
    lines = server.requests[0].partition(b"\r\n\r\n")[0].decode().split("\r\n")
    # The plus stands literally in the path.
    assert lines[0] == f"POST /v2/{SID}/whatsapp/{NUMBER}/flows_encryption HTTP/1.1"
    headers = dict(line.split(": ", 1) for line in lines[1:])
    assert {**headers, **HEADERS, "Host": f"127.0.0.1:{server.port}"} == headers
    assert {name.lower() for name in headers} <= {
        *("api-key", "content-type", "host", "content-length", "accept", "accept-encoding", "connection", "user-agent")
    }


def test_get_sends_no_body(misbehaving_server: Serve) -> None:
    server = misbehaving_server(OK)
    assert get(f"http://127.0.0.1:{server.port}/x?y=z", HEADERS, timeout=20, tls=Tls()) == Answer(200, b"{}")
    head, dummy, body = server.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"GET /x?y=z HTTP/1.1\r\n") and b"content-length" not in head.lower() and body == b""


def test_connection_is_kept_and_cookies_are_not(simulator: Simulator) -> None:
    simulator.faults({"*": [{"do": "answer", "status": 200, "headers": {"Set-Cookie": "session=1; Path=/"}, "body": {}}]})
    _post(simulator.url)
    _post(simulator.url)
    assert [request["headers"].get("cookie") for request in simulator.requests()] == [None, None]
    assert simulator.state()["connection_count"] == 1


@pytest.mark.parametrize("status", [200, 204, 400, 401, 429, 500, 503])
def test_answer_is_returned_whatever_its_status(status: int, simulator: Simulator) -> None:
    simulator.faults({"*": [{"do": "answer", "status": status, "headers": {"Retry-After": "7"}, "body": "text"}]})
    assert _post(simulator.url) == Answer(status, b"" if status == 204 else b"text", "7")


def test_compressed_body_is_left_as_it_is(misbehaving_server: Serve) -> None:
    server = misbehaving_server(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope")
    assert _post(f"http://127.0.0.1:{server.port}").body == b"nope"


@pytest.mark.parametrize(
    "fault",
    [
        # Each byte comes well within the timeout; together they would take for ever.
        {"do": "trickle", "where": "headers", "interval": 0.05},
        {"do": "trickle", "where": "body", "interval": 0.05},
        {"do": "hang"},
        {"do": "hang", "where": "body"},
        {"do": "answer", "status": 200, "delay": 60},
    ],
    ids=str,
)
def test_timeout_limits_the_whole_attempt(fault: dict[str, Any], simulator: Simulator) -> None:
    simulator.faults({NUMBER: [fault]})
    began = time.monotonic()
    message = _no_answer(simulator.url, Timeout, timeout=0.2)
    assert 0.15 < time.monotonic() - began < 5
    assert "0.2 seconds" in message or "timed out" in message
    # The next call is not held up by the one that was given up, and gets an answer of its own.
    assert _post(simulator.url, OTHER).status == 400


@pytest.mark.parametrize("where", ["headers", "body", "handshake"])
def test_call_given_up_leaves_no_thread_and_no_descriptor(where: str, simulator: Simulator) -> None:
    simulator.faults({"*": [{"do": "trickle", "where": where, "interval": 0.05, "always": True}]} if where != "handshake" else {})
    with socket.create_server(("127.0.0.1", 0), backlog=128) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}" if where == "handshake" else simulator.url
        threads, descriptors = threading.active_count(), len(os.listdir("/dev/fd"))

        def give_up(dummy: int) -> None:
            with pytest.raises(Timeout):
                _post(url, timeout=0.1)

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(give_up, range(24)))
        until = time.monotonic() + 10
        while threading.active_count() > threads and time.monotonic() < until:
            time.sleep(0.01)
        assert threading.active_count() <= threads
        assert len(os.listdir("/dev/fd")) <= descriptors + 8


_INTERRUPTED_OFTEN = """
import random, signal, sys
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._http import Tls, post

class Interrupted(BaseException):
    pass

def interrupt(*_):
    global struck
    struck = True
    raise Interrupted

def send(number):
    return post(f"{sys.argv[1]}/v2/X/whatsapp/{number}/flows_encryption", {}, b"", timeout=20, tls=Tls()).status

right = {"+919876543210": 200, "+14155550123": 401}
for number in right:
    send(number)
signal.signal(signal.SIGALRM, interrupt)
interrupted = whole = 0
while interrupted < 200 or whole < 20:
    struck, status, number = False, None, random.choice(list(right))
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 4e-4) if random.random() < 0.8 else 1)
        try:
            status = send(number)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except BaseException as exc:
        # Python's own threading may make another error of it.
        assert struck, f"after {interrupted} interruptions: {exc!r}"
    if struck:
        interrupted += 1
    else:
        whole += 1
        assert status == right[number], f"after {interrupted} interruptions: {status} for {number}"
print("fine")
"""


def test_call_can_be_interrupted_at_any_time(simulator: Simulator, run: Callable[..., str]) -> None:
    answers = {NUMBER: 200, OTHER: 401}
    simulator.faults({number: [{"do": "answer", "status": status, "body": {}, "always": True}] for number, status in answers.items()})
    assert run(_INTERRUPTED_OFTEN, simulator.url) == "fine\n"


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ({"do": "reset"}, "Connection reset by peer"),
        ({"do": "reset", "unread": True}, ""),  # or "Broken pipe", if the body had not left yet
        ({"do": "close"}, "closed connection"),
        *(
            ({"do": "raw", "bytes": text}, cause)
            for text, cause in (
                ("SSH-2.0-OpenSSH_9.6\r\n", ""),
                ("HTTP/1.1 99999 OK\r\n\r\n{}", ""),
                ("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "an interim answer (HTTP 103)"),
                ("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}", "truncated"),
                ("HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\n{}", ""),
                ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}", ""),
                ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{}", ""),
                ("HTTP/1.1 200 OK\r\n" + "A: b\r\n" * 200 + "\r\n{}", ""),
                ("HTTP/1.1 200 OK\r\nA: " + "b" * 70_000 + "\r\n\r\n{}", ""),
            )
        ),
    ],
    ids=lambda value: str(value)[:80],
)
def test_incomplete_or_invalid_answer_is_none(fault: dict[str, Any], cause: str, simulator: Simulator) -> None:
    simulator.faults({"*": [fault]})
    message = _no_answer(simulator.url)
    assert cause in message and 3 < len(message) < 300
    assert simulator.count() == 1  # repeating is for the caller, who counts


def test_refused_connection_is_named_by_the_system() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert _no_answer(f"http://127.0.0.1:{bound.getsockname()[1]}", ConnectionFailed) == "Connection refused"


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("https://api..kaleyra.io", ""),
        (f"https://{'a' * 64}.kaleyra.io", ""),
        ("https://api.in.kaleyra.io", "ftp://127.0.0.1:1"),
        ("https://api.in.kaleyra.io", "http://"),
        ("https://api.in.kaleyra.io", "http://somebody:secret@pro..xy:1"),
    ],
)
def test_unusable_host_or_proxy_is_no_invalid_answer(url: str, proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    message = _no_answer(url)
    assert "is not valid HTTP" not in message and "secret" not in message


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> tuple[Authority, Authority]:
    folder = tmp_path_factory.mktemp("tls")
    return Authority(folder, "authority"), Authority(folder, "other-authority")


@pytest.fixture
def authority(authorities: tuple[Authority, Authority]) -> Authority:
    return authorities[0]


@pytest.fixture
def https(authority: Authority, misbehaving_server: Serve) -> str:
    """A server whose certificate is valid for whoever trusts the authority."""
    return f"https://127.0.0.1:{misbehaving_server(OK, authority.issue('127.0.0.1')).port}"


def test_ca_path_can_be_a_folder(authority: Authority, https: str, tmp_path: Path) -> None:
    shutil.copy(authority.path, tmp_path / f"{openssl('x509', '-in', authority.path, '-noout', '-hash').strip()}.0")
    assert _post(https, tls=Tls(ca_path=str(tmp_path))).status == 200


def test_validation_can_be_switched_off(authority: Authority, misbehaving_server: Serve, recwarn: pytest.WarningsRecorder) -> None:
    server = misbehaving_server(OK, authority.issue("evil.example", last=-1))
    assert _post(f"https://127.0.0.1:{server.port}", tls=Tls(validate=False)).status == 200
    assert not [str(warning.message) for warning in recwarn if "Unverified" in str(warning.message)]
    # For that one call alone.
    assert "certificate verify failed" in _no_answer(f"https://127.0.0.1:{server.port}")


def test_bundle_of_requests_is_not_trusted(authorities: tuple[Authority, Authority], https: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # As if ours was one of the public authorities in it.
    monkeypatch.setattr(requests.adapters, "DEFAULT_CA_BUNDLE_PATH", str(authorities[0].path))
    assert _no_answer(https) == _no_answer(https, tls=Tls(ca_path=str(authorities[1].path))) == UNTRUSTED


@pytest.mark.parametrize("validate", [True, False])
@pytest.mark.parametrize("content", [None, b"", b"no certificate", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_unusable_ca_path_is_invalid_input(content: bytes | None, validate: bool, tmp_path: Path, misbehaving_server: Serve) -> None:
    if content is not None:
        (tmp_path / "ca.pem").write_bytes(content)
    server = misbehaving_server(OK)
    with pytest.raises(InvalidInput, match=r"^ca_path .*ca\.pem cannot be used: .*Set it to a PEM file"):
        _post(f"https://127.0.0.1:{server.port}", tls=Tls(validate, str(tmp_path / "ca.pem")))
    assert server.requests == []


def test_tls_proxy_is_verified_the_same_way(authority: Authority, misbehaving_server: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = misbehaving_server(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n", authority.issue("127.0.0.1"))
    monkeypatch.setenv("HTTPS_PROXY", f"https://somebody:secret@127.0.0.1:{proxy.port}")
    assert UNTRUSTED in _no_answer("https://api.in.kaleyra.io")
    assert all(request == b"" for request in proxy.requests)
    message = _no_answer("https://api.in.kaleyra.io", tls=Tls(ca_path=str(authority.path)))
    assert message.startswith("proxy: ") and "407" in message
    assert proxy.requests[-1].startswith(b"CONNECT api.in.kaleyra.io:443 HTTP/1.")
