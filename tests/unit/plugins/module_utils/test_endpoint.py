# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The health check against endpoints that this project did not write: pywa in a process of its own, and such as do one thing wrong."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

if sys.version_info < (3, 10):
    pytest.skip("pywa, whose endpoints these are, is for Python 3.10 and newer", allow_module_level=True)

from ansible_collections.kaleyra.whatsapp.plugins.module_utils import _http
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._endpoint import FlowEndpoint, prove
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._errors import InvalidInput, MissingLibrary, VerificationFailed
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st
from support.authority import Authority
from support.endpoint.client import Endpoint
from support.endpoint.misbehaving import ACTIVE, TAG_BYTES, Asked, MisbehavingEndpoint, Reply, healthy
from support.simulator.client import Simulator

APP_SECRET = "Meta-App-Secret-5d1c0f"
K1, K2 = "rsa-2048", "other-rsa-2048"

Named = Callable[[str], Any]
Behave = Callable[[Asked], "Reply | None"]
Ask = Callable[..., "dict[str, Any]"]


@pytest.fixture(autouse=True)
def new_connections() -> Iterator[None]:
    """What a process would not have at its start is not there: connections, trust stores."""
    _http._adapter.cache_clear()
    yield
    _http._adapter.cache_clear()


@pytest.fixture
def ask(public_pem: Named) -> Ask:
    """Do the module's work with a URL, other options by name."""

    def ask_one(url: str, **given: Any) -> dict[str, Any]:
        options = {
            "url": url,
            "business_public_key": public_pem(K1),
            "business_public_key_path": None,
            "app_secret": None,
            "timeout": 20,
            "validate_certs": True,
            "ca_path": None,
        }
        assert given.keys() <= options.keys()
        result = prove({**options, **given}, check_mode=False)
        assert APP_SECRET not in json.dumps(result)
        return result

    return ask_one


@pytest.fixture
def not_proved(ask: Ask, fingerprint: Named) -> Callable[..., tuple[str, str, dict[str, Any]]]:
    """Ask, and return the cause, the message and the facts of what must be a failure."""

    def ask_one(url: str, **given: Any) -> tuple[str, str, dict[str, Any]]:
        with pytest.raises(VerificationFailed) as caught:
            ask(url, **given)
        message, facts = str(caught.value), dict(caught.value.details)
        assert APP_SECRET not in message + json.dumps(facts)
        # One line for people: where, what, what to do; no object names, nothing that an endpoint could garble a terminal with.
        assert message.startswith(f"The Flow endpoint {url.partition('?')[0]} ") and message.endswith(".")
        assert message.isprintable() and "object at 0x" not in message and ".." not in message and len(message) < 600
        assert (facts["changed"], facts["active"], facts["fingerprint"]) == (False, False, fingerprint(K1))
        assert facts["foreign_key"] is facts["wrong_signature"] is None
        return facts["cause"], message, facts

    return ask_one


@pytest.fixture
def odd(private_key: Named) -> Iterator[Callable[..., MisbehavingEndpoint]]:
    """Start an endpoint that holds the key and behaves as told."""
    with contextlib.ExitStack() as stack:
        yield lambda behave=healthy, **options: stack.enter_context(MisbehavingEndpoint(private_key(K1).read_text(), behave, **options))


def to_the_ping(reply: Callable[[Asked], Reply | None]) -> Behave:
    """Behave so when asked under the right key, and well under a foreign one."""
    return lambda asked: reply(asked) if asked.content else Reply(421)


# --- an endpoint that is as it should be ------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["pkcs8", "pkcs1", "pkcs8-encrypted", "pkcs1-encrypted"])
def test_pywas_endpoint_is_active_with_a_private_key_in_each_form(
    form: str, ask: Ask, private_key: Named, fingerprint: Named, openssl: Callable[..., bytes], tmp_path: Path
) -> None:
    path, passphrase = tmp_path / "private.pem", "Open-Sesame-1" if "encrypted" in form else None
    encrypt = ["-aes256", "-passout", f"pass:{passphrase}"] if passphrase else []
    kind = ["rsa", "-traditional"] if "pkcs1" in form else ["pkey"]
    path.write_bytes(openssl(*kind, "-in", private_key(K1), *encrypt))
    label = {"pkcs1": "RSA PRIVATE KEY", "pkcs8": "PRIVATE KEY", "pkcs8-encrypted": "ENCRYPTED PRIVATE KEY"}.get(form, "RSA PRIVATE KEY")
    assert f"BEGIN {label}" in path.read_text() and ("Proc-Type: 4,ENCRYPTED" in path.read_text()) == (form == "pkcs1-encrypted")
    with Endpoint(tmp_path / "keys", [path], passphrase=passphrase, app_secret=APP_SECRET) as endpoint:
        began = time.monotonic()
        result = ask(endpoint.url, app_secret=APP_SECRET)
        lasted = (time.monotonic() - began) * 1000
        assert endpoint.answered() == [200, 421, 432]
    assert 0 <= result.pop("latency_ms") <= lasted
    assert result == {
        "changed": False,
        "active": True,
        "fingerprint": fingerprint(K1),
        "http_status": 200,
        "foreign_key": {"http_status": 421, "refused": True},
        "wrong_signature": {"http_status": 432, "refused": True},
        "warnings": result["warnings"],
    }
    assert [w for w in result["warnings"] if "took" not in w] == []  # a busy machine may be slow


def test_pywas_endpoint_with_another_key_does_not_match(
    not_proved: Callable[..., Any], private_key: Named, tmp_path: Path
) -> None:
    with Endpoint(tmp_path / "keys", [private_key(K2)]) as endpoint:
        cause, message, facts = not_proved(endpoint.url)
        assert endpoint.answered() == [421]  # no counter-checks: they would say nothing
    assert (cause, facts["http_status"]) == ("key_mismatch", 421)
    assert "holds another private key" in message and "Deploy the private key of this public key" in message
    assert facts["latency_ms"] >= 0


def test_pywas_endpoint_with_both_keys_of_a_rotation_is_active_under_each(
    ask: Ask, private_key: Named, public_pem: Named, tmp_path: Path
) -> None:
    with Endpoint(tmp_path / "keys", [private_key(K2), private_key(K1)]) as endpoint:
        for key in (K1, K2):
            assert ask(endpoint.url, business_public_key=public_pem(key))["active"]


def test_without_an_app_secret_signatures_are_no_subject(ask: Ask, private_key: Named, tmp_path: Path) -> None:
    with Endpoint(tmp_path / "keys", [private_key(K1)]) as endpoint:
        result = ask(endpoint.url)
        assert endpoint.answered() == [200, 421]
    assert (result["active"], result["wrong_signature"]) == (True, None)


def test_the_key_can_be_a_file(ask: Ask, odd: Callable[..., MisbehavingEndpoint], public_pem: Named, fingerprint: Named, tmp_path: Path) -> None:
    path = tmp_path / "public.pem"
    path.write_text(public_pem(K1))
    result = ask(odd().url, business_public_key=None, business_public_key_path=str(path))
    assert (result["active"], result["fingerprint"]) == (True, fingerprint(K1))


# --- what is sent -----------------------------------------------------------------------------------------------------


def _decrypted(asked: Asked, private_key: Path) -> tuple[bytes, bytes, bytes]:
    """AES key, IV and content as Meta's description has it, by cryptography alone."""
    fields = {name: base64.b64decode(value, validate=True) for name, value in json.loads(asked.body).items()}
    assert fields.keys() == {"encrypted_aes_key", "encrypted_flow_data", "initial_vector"}
    key = serialization.load_pem_private_key(private_key.read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    aes_key = key.decrypt(fields["encrypted_aes_key"], padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None))
    iv = fields["initial_vector"]
    return aes_key, iv, AESGCM(aes_key).decrypt(iv, fields["encrypted_flow_data"], None)


def test_a_request_is_what_whatsapp_sends(ask: Ask, odd: Callable[..., MisbehavingEndpoint], private_key: Named) -> None:
    def answer(asked: Asked) -> Reply:
        if not asked.signed_with(APP_SECRET):
            return Reply(432)
        return healthy(asked)

    endpoint = odd(answer)
    ask(endpoint.url, app_secret=APP_SECRET)
    ask(endpoint.url, app_secret=APP_SECRET)
    pings, foreign, unsigned = endpoint.requests[0::3], endpoint.requests[1::3], endpoint.requests[2::3]
    assert [len(pings), len(foreign), len(unsigned)] == [2, 2, 2]
    for asked in (*pings, *unsigned):
        aes_key, iv, content = _decrypted(asked, private_key(K1))
        assert (len(aes_key), len(iv)) == (16, 16)
        assert content == b'{"version": "3.0", "action": "ping"}'
    for asked in (*pings, *foreign):
        assert asked.headers["X-Hub-Signature-256"] == "sha256=" + hmac.new(APP_SECRET.encode(), asked.body, hashlib.sha256).hexdigest()
    for asked in unsigned:
        assert asked.headers["X-Hub-Signature-256"].startswith("sha256=") and len(asked.headers["X-Hub-Signature-256"]) == 7 + 64
    for asked in foreign:
        assert asked.content is None
        lengths = {name: len(base64.b64decode(value)) for name, value in json.loads(asked.body).items()}
        assert lengths == {name: len(base64.b64decode(value)) for name, value in json.loads(pings[0].body).items()}
    # Nothing is used twice.
    assert len({asked.aes_key for asked in (*pings, *unsigned)}) == len({asked.iv for asked in (*pings, *unsigned)}) == 4
    for asked in endpoint.requests:
        headers = {name.lower(): value for name, value in asked.headers.items()}
        assert headers["content-type"] == "application/json"
        assert headers.keys() <= {
            *("content-type", "content-length", "host", "accept-encoding", "user-agent", "x-hub-signature-256", "connection", "accept")
        }


def test_without_an_app_secret_nothing_is_signed(ask: Ask, odd: Callable[..., MisbehavingEndpoint]) -> None:
    endpoint = odd()
    ask(endpoint.url)
    assert len(endpoint.requests) == 2
    assert all("X-Hub-Signature-256" not in asked.headers for asked in endpoint.requests)


def test_query_and_path_of_the_url_are_kept_in_the_request_and_the_query_out_of_messages(
    odd_server: Callable[..., Any], not_proved: Callable[..., Any]
) -> None:
    server = odd_server(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
    dummy, message, facts = not_proved(f"http://127.0.0.1:{server.port}/a/b?token=t0ken&x=1")
    assert server.requests[0].startswith(b"POST /a/b?token=t0ken&x=1 HTTP/1.1\r\n")
    assert "t0ken" not in message + json.dumps(facts)


# --- each cause, with its remedy --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "cause", "remedy"),
    [
        pytest.param(421, "key_mismatch", "reload the endpoint", id="421"),
        pytest.param(201, "http_status", "WhatsApp needs HTTP 200 here", id="201"),
        pytest.param(204, "http_status", "WhatsApp needs HTTP 200 here", id="204"),
        pytest.param(400, "http_status", "WhatsApp needs HTTP 200 here", id="400"),
        pytest.param(401, "http_status", "WhatsApp sends no credentials", id="401"),
        pytest.param(403, "http_status", "WhatsApp sends no credentials", id="403"),
        pytest.param(404, "http_status", "Check url", id="404"),
        pytest.param(405, "http_status", "asked with POST", id="405"),
        pytest.param(427, "http_status", "Answer it with the status active", id="427"),
        pytest.param(429, "http_status", "WhatsApp needs HTTP 200 here", id="429"),
        pytest.param(500, "http_status", "Look into its log", id="500"),
        pytest.param(501, "http_status", "Look into its log", id="501"),
        pytest.param(502, "http_status", "check that the endpoint is running", id="502"),
        pytest.param(503, "http_status", "check that the endpoint is running", id="503"),
        pytest.param(504, "http_status", "check that the endpoint is running", id="504"),
    ],
)
def test_each_status_has_its_remedy(
    status: int, cause: str, remedy: str, odd: Callable[..., MisbehavingEndpoint], not_proved: Callable[..., Any]
) -> None:
    endpoint = odd(lambda asked: Reply(status, b"" if status == 204 else b"whatever"))
    found, message, facts = not_proved(endpoint.url)
    assert (found, facts["http_status"]) == (cause, status)
    assert f"HTTP {status}" in message and remedy in message
    assert facts["latency_ms"] >= 0
    assert len(endpoint.requests) == 1  # nothing is repeated: `until` is for that


@pytest.mark.parametrize(
    ("app_secret", "remedy"),
    [pytest.param(None, "give app_secret", id="unsigned"), pytest.param("another", "Check that app_secret is that of the app", id="wrong")],
)
def test_a_refused_signature_tells_whether_one_was_sent(
    app_secret: str | None, remedy: str, not_proved: Callable[..., Any], private_key: Named, tmp_path: Path
) -> None:
    with Endpoint(tmp_path / "keys", [private_key(K1)], app_secret=APP_SECRET) as endpoint:
        cause, message, facts = not_proved(endpoint.url, app_secret=app_secret)
    assert (cause, facts["http_status"]) == ("signature_refused", 432)
    assert remedy in message


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_told_and_not_followed(status: int, odd: Callable[..., MisbehavingEndpoint], not_proved: Callable[..., Any]) -> None:
    right = odd()
    endpoint = odd(lambda asked: Reply(status, headers={"Location": right.url}))
    cause, message, facts = not_proved(endpoint.url)
    assert (cause, facts["http_status"]) == ("redirect", status)
    assert "Give the URL that it leads to" in message
    assert right.requests == []


def _cut(data: bytes) -> bytes:
    return data[:-TAG_BYTES]


@pytest.mark.parametrize(
    ("answer", "cause", "remedy"),
    [
        pytest.param(lambda a: b"", "not_base64", "it is empty", id="empty"),
        pytest.param(lambda a: b" \r\n", "not_base64", "it is empty", id="blank"),
        pytest.param(lambda a: b"OK!", "not_base64", "Send the encrypted answer as base64", id="junk"),
        pytest.param(lambda a: b"\xff\x00\xfe", "not_base64", "not base64", id="bytes"),
        pytest.param(lambda a: a.encrypted(json.dumps(ACTIVE).encode()), "not_base64", "not base64", id="not-encoded"),
        pytest.param(lambda a: b"<!DOCTYPE html><html>Not here</html>", "not_base64", "not base64", id="html"),
        pytest.param(lambda a: b"-_" + a.answer()[2:], "not_base64", "alphabet with + and /", id="url-safe"),
        pytest.param(lambda a: a.answer()[:40] + b"\n" + a.answer()[40:], "not_base64", "in one line", id="wrapped"),
        pytest.param(lambda a: a.answer().rstrip(b"=") + b"=" * 5, "not_base64", "not base64", id="padding"),
        pytest.param(lambda a: json.dumps(a.answer().decode()).encode(), "not_base64", "in quotes, as JSON", id="quoted"),
        pytest.param(lambda a: a.answer() * 2000, "not_base64", "more than a health check can have", id="too-large"),
        pytest.param(lambda a: json.dumps(ACTIVE).encode(), "clear_json", "Encrypt the JSON", id="clear"),
        pytest.param(lambda a: b"\n[1]", "clear_json", "Encrypt the JSON", id="clear-array"),
        pytest.param(lambda a: b"null", "clear_json", "Encrypt the JSON", id="clear-null"),
        pytest.param(
            lambda a: base64.b64encode(a.encrypted(json.dumps(ACTIVE).encode(), iv=a.iv)), "iv_not_inverted", "Invert every bit of the IV", id="iv"
        ),
        pytest.param(lambda a: base64.b64encode(_cut(a.encrypted(b'{"a": 1}'))), "wrong_tag", "behind the encrypted text", id="no-tag"),
        pytest.param(
            lambda a: base64.b64encode(_cut(a.encrypted(b'{"a": 1}')) + bytes(TAG_BYTES)), "wrong_tag", "16-byte tag", id="zeroed-tag"
        ),
        pytest.param(
            lambda a: base64.b64encode(a.encrypted(b'{"a": 1}')[-TAG_BYTES:] + _cut(a.encrypted(b'{"a": 1}'))),
            *("wrong_tag", "behind the encrypted text"),
            id="tag-in-front",
        ),
        pytest.param(lambda a: base64.b64encode(a.encrypted(b'{"a": 1}')[:-4]), "wrong_tag", "16-byte tag", id="short-tag"),
        pytest.param(
            lambda a: base64.b64encode(_cut(a.encrypted(b'{"a": 1}', iv=a.iv))), "wrong_tag", "and the IV's bits are not inverted", id="no-tag-and-iv"
        ),
        pytest.param(
            lambda a: base64.b64encode(a.encrypted(json.dumps(ACTIVE).encode(), aes_key=os.urandom(16))),
            *("not_decryptable", "Use the decrypted AES key"),
            id="another-aes-key",
        ),
        pytest.param(
            lambda a: base64.b64encode(a.encrypted(json.dumps(ACTIVE).encode(), iv=os.urandom(12))), "not_decryptable", "the inverted IV", id="own-iv"
        ),
        pytest.param(lambda a: base64.b64encode(b"short"), "not_decryptable", "AES-128-GCM", id="shorter-than-a-tag"),
        pytest.param(lambda a: base64.b64encode(a.encrypted(b"active")), "not_json", "no JSON object", id="text"),
        pytest.param(lambda a: base64.b64encode(a.encrypted(b"")), "not_json", "no JSON object", id="nothing"),
        pytest.param(lambda a: base64.b64encode(a.encrypted(b"\xff\xfe\xfd")), "not_json", "no JSON object", id="no-text"),
        pytest.param(lambda a: a.answer(["active"]), "not_json", "no JSON object", id="array"),
        pytest.param(lambda a: base64.b64encode(a.encrypted(b"[" * 20_000)), "not_json", "no JSON object", id="deep"),
        pytest.param(lambda a: base64.b64encode(a.encrypted(b'{"a": ' + b"9" * 20_000 + b"}")), "not_json", "no JSON object", id="long-number"),
        pytest.param(lambda a: a.answer({"data": {"status": "sleeping"}}), "not_active", "the status 'sleeping'", id="other-status"),
        pytest.param(lambda a: a.answer({"data": {"status": "Active"}}), "not_active", "the status 'Active'", id="case"),
        pytest.param(lambda a: a.answer({"data": {"status": True}}), "not_active", "no data.status", id="status-true"),
        pytest.param(lambda a: a.answer({"status": "active"}), "not_active", "no data.status", id="no-data"),
        pytest.param(lambda a: a.answer({"data": "active"}), "not_active", "no data.status", id="data-is-text"),
        pytest.param(lambda a: a.answer({}), "not_active", '{"data": {"status": "active"}}', id="empty-object"),
        pytest.param(lambda a: a.answer({"data": {"status": "\x1b[31m\n" + "x" * 5000}}), "not_active", "the status", id="rude-status"),
        pytest.param(
            lambda a: base64.b64encode(a.encrypted(b'{"data": {"status": "\\ud800"}}')), "not_active", "the status", id="lone-surrogate"
        ),
    ],
)
def test_each_wrong_answer_is_told_apart(
    answer: Callable[[Asked], bytes], cause: str, remedy: str, odd: Callable[..., MisbehavingEndpoint], not_proved: Callable[..., Any]
) -> None:
    endpoint = odd(to_the_ping(lambda asked: Reply(body=answer(asked))))
    found, message, facts = not_proved(endpoint.url)
    assert (found, facts["http_status"]) == (cause, 200), message
    assert remedy in message
    assert facts["latency_ms"] >= 0
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(lambda a: a.answer() + b"\n", id="newline-at-the-end"),
        pytest.param(lambda a: a.answer({"data": {"status": "active", "x": [1]}, "version": "3.0"}), id="more-than-needed"),
        pytest.param(lambda a: base64.b64encode(a.encrypted(json.dumps(ACTIVE).encode("utf-8"))), id="by-cryptography"),
        pytest.param(lambda a: base64.b64encode(a.encrypted(b' {"data":{"status":"active"}}\n')), id="other-blanks"),
    ],
)
def test_what_whatsapp_can_read_is_active(answer: Callable[[Asked], bytes], odd: Callable[..., MisbehavingEndpoint], ask: Ask) -> None:
    assert ask(odd(to_the_ping(lambda asked: Reply(body=answer(asked)))).url)["active"]


def test_a_port_where_nobody_listens(not_proved: Callable[..., Any]) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        cause, message, facts = not_proved(f"http://127.0.0.1:{bound.getsockname()[1]}/flows")
    assert (cause, facts["http_status"], facts["latency_ms"]) == ("connection", None, None)
    assert "gave no answer: Connection refused. Check url, and that the endpoint is running" in message


def test_a_connection_that_is_closed_without_an_answer(odd: Callable[..., MisbehavingEndpoint], not_proved: Callable[..., Any]) -> None:
    assert not_proved(odd(lambda asked: None).url)[0] == "connection"


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param({"do": "hang"}, id="nothing-comes"),
        pytest.param({"do": "trickle", "where": "headers", "interval": 0.1}, id="trickle-in-the-headers"),
        pytest.param({"do": "trickle", "where": "body", "interval": 0.1}, id="trickle-in-the-body"),
        pytest.param({"do": "answer", "status": 200, "delay": 60}, id="late"),
    ],
)
def test_slowness_is_a_timeout(fault: dict[str, Any], simulator: Simulator, not_proved: Callable[..., Any]) -> None:
    simulator.faults({"*": [fault]})
    cause, message, facts = not_proved(f"{simulator.url}/v2/X/whatsapp/+14155550123/flows_encryption", timeout=1)
    assert (cause, facts["http_status"], facts["latency_ms"]) == ("timeout", None, None)
    assert "allow more with timeout" in message
    assert simulator.count() <= 1  # none if the second was over before it had arrived


def test_a_host_that_takes_no_connections_is_a_timeout(not_proved: Callable[..., Any]) -> None:
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for dummy in range(4):  # the queue is full then, and the system drops what would be one more
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        assert not_proved(f"http://127.0.0.1:{listening.getsockname()[1]}/flows", timeout=1)[0] == "timeout"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"), "authority")


def test_an_endpoint_is_proved_over_https(authority: Authority, odd: Callable[..., MisbehavingEndpoint], ask: Ask) -> None:
    endpoint = odd(certificate=authority.issue("127.0.0.1"))
    assert ask(endpoint.url, ca_path=str(authority.path))["foreign_key"]["refused"]
    assert len(endpoint.requests) == 2


@pytest.mark.parametrize(
    ("name", "days", "trusted", "said"),
    [
        pytest.param("127.0.0.1", 30, False, "unable to get local issuer certificate", id="unknown-authority"),
        pytest.param("evil.example", 30, True, "IP address mismatch", id="wrong-host"),
        pytest.param("127.0.0.1", -1, True, "certificate has expired", id="expired"),
    ],
)
def test_a_wrong_certificate_is_a_matter_of_tls(
    name: str, days: int, trusted: bool, said: str, authority: Authority, odd: Callable[..., MisbehavingEndpoint],
    not_proved: Callable[..., Any], ask: Ask
) -> None:
    endpoint = odd(certificate=authority.issue(name, last=days))
    cause, message, facts = not_proved(endpoint.url, ca_path=str(authority.path) if trusted else None)
    assert (cause, facts["http_status"]) == ("tls", None)
    assert said in message and "WhatsApp needs a certificate of a public authority" in message
    assert endpoint.requests == []
    assert ask(endpoint.url, validate_certs=False)["active"]


def test_a_self_signed_certificate_is_a_matter_of_tls(
    odd: Callable[..., MisbehavingEndpoint], openssl: Callable[..., bytes], not_proved: Callable[..., Any], tmp_path: Path
) -> None:
    openssl(
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=127.0.0.1"),
        *("-keyout", tmp_path / "key", "-out", tmp_path / "certificate", "-days", "2", "-addext", "subjectAltName=IP:127.0.0.1"),
    )
    both = tmp_path / "both"
    both.write_bytes((tmp_path / "certificate").read_bytes() + (tmp_path / "key").read_bytes())
    cause, message, dummy = not_proved(odd(certificate=both).url)
    assert cause == "tls" and "certificate verify failed" in message


def test_a_port_that_speaks_no_tls_is_a_matter_of_tls(odd_server: Callable[..., Any], not_proved: Callable[..., Any]) -> None:
    server = odd_server(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    assert not_proved(f"https://127.0.0.1:{server.port}/flows")[0] == "tls"


# --- counter-checks and warnings --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "status", "said"),
    [
        pytest.param(Reply(200, b"whatever"), 200, "HTTP 200 to a request under a foreign key", id="answers-any-key"),
        pytest.param(Reply(500), 500, "HTTP 500 to a request under a foreign key", id="500"),
        pytest.param(None, None, "no answer: ", id="no-answer"),
    ],
)
def test_an_endpoint_that_does_not_refuse_a_foreign_key_is_a_warning(
    reply: Reply | None, status: int | None, said: str, odd: Callable[..., MisbehavingEndpoint], ask: Ask
) -> None:
    result = ask(odd(lambda asked: healthy(asked) if asked.content else reply).url)
    assert (result["active"], result["foreign_key"]["http_status"], result["foreign_key"]["refused"]) == (True, status, False)
    warning = next(w for w in result["warnings"] if "foreign key" in w)
    assert said in warning and "421" in warning and "rotating the key would lose messages" in warning
    assert warning.isprintable()


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        pytest.param(healthy, 200, id="accepts-it"),
        pytest.param(lambda a: Reply(403), 403, id="403"),
        pytest.param(lambda a: None, None, id="no-answer"),
    ],
)
def test_an_endpoint_that_does_not_check_the_signature_is_a_warning(
    reply: Behave, status: int | None, odd: Callable[..., MisbehavingEndpoint], ask: Ask
) -> None:
    result = ask(odd(lambda asked: healthy(asked) if asked.signed_with(APP_SECRET) else reply(asked)).url, app_secret=APP_SECRET)
    assert (result["active"], result["foreign_key"]) == (True, {"http_status": 421, "refused": True})
    assert (result["wrong_signature"]["http_status"], result["wrong_signature"]["refused"]) == (status, False)
    warning = next(w for w in result["warnings"] if "wrong signature" in w)
    assert "X-Hub-Signature-256" in warning and "432" in warning
    if status is None:
        assert "no answer" in warning


def test_slower_than_meta_asks_for_is_a_warning(odd: Callable[..., MisbehavingEndpoint], ask: Ask) -> None:
    result = ask(odd(to_the_ping(lambda asked: Reply(body=asked.answer(), delay=1.1))).url)
    assert result["active"] and result["latency_ms"] >= 1100
    assert [w for w in result["warnings"] if f"took {result['latency_ms']} ms" in w and "1000 ms" in w]


_SLOW_IMPORT = """
import json, sys, time

class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "requests":
            time.sleep(2)

sys.meta_path.insert(0, Slow())
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._endpoint import prove
began = time.monotonic()
result = prove(json.loads(sys.argv[1]), check_mode=False)
print(result["latency_ms"], (time.monotonic() - began) * 1000)
"""


def test_what_it_takes_to_get_ready_is_no_latency_of_the_endpoint(
    odd: Callable[..., MisbehavingEndpoint], public_pem: Named, run: Callable[..., str]
) -> None:
    options = {"url": odd().url, "business_public_key": public_pem(K1), "business_public_key_path": None, "app_secret": None}
    latency, whole = map(float, run(_SLOW_IMPORT, json.dumps({**options, "timeout": 20, "validate_certs": True, "ca_path": None})).split())
    assert 0 < latency <= whole - 2000


# --- what cannot be sent ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        pytest.param("ec", "of the kind EllipticCurve|of the kind EC", id="ec"),
        pytest.param("rsa-1024", "RSA with 1024 bits", id="1024-bits"),
        pytest.param("rsa-4096", "RSA with 4096 bits", id="4096-bits"),
        pytest.param("rsa-pss", "RSA-PSS", id="rsa-pss"),
    ],
)
def test_a_key_that_no_number_can_have_is_refused(
    kind: str, said: str, odd: Callable[..., MisbehavingEndpoint], ask: Ask, public_pem: Named, fingerprint: Named
) -> None:
    endpoint = odd()
    with pytest.raises(InvalidInput, match=said) as caught:
        ask(endpoint.url, business_public_key=public_pem(kind))
    assert (caught.value.details["active"], caught.value.details["fingerprint"]) == (False, fingerprint(kind))
    assert endpoint.requests == []


def test_a_private_key_is_refused_and_not_repeated(odd: Callable[..., MisbehavingEndpoint], ask: Ask, private_key: Named) -> None:
    endpoint = odd()
    with pytest.raises(InvalidInput, match="a PRIVATE key") as caught:
        ask(endpoint.url, business_public_key=private_key(K1).read_text())
    assert all(line not in str(caught.value) for line in private_key(K1).read_text().split("\n")[1:-2])
    assert endpoint.requests == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({"timeout": 0}, "timeout is 0, but must be from 1", id="timeout-0"),
        pytest.param({"timeout": 86401}, "timeout is 86401", id="timeout-of-days"),
        pytest.param({"ca_path": "/nowhere/ca.pem"}, "ca_path /nowhere/ca.pem cannot be used", id="ca_path"),
        pytest.param({"business_public_key": None, "business_public_key_path": "/nowhere/public.pem"}, "cannot be read", id="path"),
    ],
)
def test_an_option_that_cannot_be_used_sends_nothing(
    change: dict[str, Any], said: str, odd: Callable[..., MisbehavingEndpoint], authority: Authority, ask: Ask
) -> None:
    endpoint = odd(certificate=authority.issue("127.0.0.1"))
    with pytest.raises(InvalidInput, match=said):
        ask(endpoint.url, **change)
    assert endpoint.requests == []


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("http://192.0.2.1/flows", id="http"),
        pytest.param("http://127.0.0.1.example.com/flows", id="not-loopback"),
        pytest.param("https://user:Pass-1@example.com/flows", id="user"),
        pytest.param("https://example.com/flows#part", id="fragment"),
        pytest.param("ftp://example.com/flows", id="ftp"),
        pytest.param("example.com/flows", id="no-scheme"),
        pytest.param("https://", id="no-host"),
    ],
)
def test_a_url_that_whatsapp_would_not_send_to_is_refused(url: str, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FlowEndpoint, "post", lambda *dummy: pytest.fail("something was sent"))
    with pytest.raises(InvalidInput, match="^url ") as caught:
        ask(url)
    assert "Pass-1" not in str(caught.value)


@pytest.mark.parametrize("library", ["requests", "cryptography"])
def test_a_missing_library_is_named_with_its_python(library: str, public_pem: Named, run: Callable[..., str]) -> None:
    options = {"url": "http://127.0.0.1:9/", "business_public_key": public_pem(K1), "business_public_key_path": None, "app_secret": None}
    code = (
        "import json, sys\nsys.modules[sys.argv[2]] = None\n"
        "from ansible_collections.kaleyra.whatsapp.plugins.module_utils._endpoint import prove\n"
        "from ansible_collections.kaleyra.whatsapp.plugins.module_utils._errors import KaleyraError\n"
        "try:\n    prove(json.loads(sys.argv[1]), check_mode=False)\n"
        "except KaleyraError as exc:\n    print(type(exc).__name__, exc)\n"
    )
    said = run(code, json.dumps({**options, "timeout": 20, "validate_certs": True, "ca_path": None}), library)
    assert said.startswith(f"{MissingLibrary.__name__} The Python library {library} cannot be imported by {sys.executable} ")


def test_the_endpoint_s_code_imports_neither_library_before_it_asks(run: Callable[..., str]) -> None:
    code = (
        "import sys\nimport ansible_collections.kaleyra.whatsapp.plugins.module_utils._endpoint\n"
        "print([name for name in ('requests', 'cryptography', 'ansible') if name in sys.modules])"
    )
    assert run(code) == "[]\n"


# --- the app secret ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "cause"),
    [
        pytest.param(lambda a: Reply(500, APP_SECRET.encode(), reason=APP_SECRET, headers={"X-Echo": APP_SECRET}), "http_status", id="500"),
        pytest.param(lambda a: Reply(302, reason=APP_SECRET, headers={"Location": f"/{APP_SECRET}"}), "redirect", id="redirect"),
        pytest.param(lambda a: Reply(200, APP_SECRET.encode()), "not_base64", id="body"),
        pytest.param(lambda a: Reply(200, json.dumps({"error": APP_SECRET}).encode()), "clear_json", id="json"),
        pytest.param(lambda a: Reply(200, a.answer({"data": {"status": APP_SECRET}})), "not_active", id="status"),
        pytest.param(lambda a: Reply(200, a.answer({"data": {"status": "x" * 190 + APP_SECRET}})), "not_active", id="cut-status"),
        pytest.param(lambda a: Reply(200, base64.b64encode(a.encrypted(APP_SECRET.encode()))), "not_json", id="text"),
    ],
)
def test_the_app_secret_is_in_no_message_though_the_endpoint_repeats_it(
    reply: Behave, cause: str, odd: Callable[..., MisbehavingEndpoint], not_proved: Callable[..., Any]
) -> None:
    found, message, facts = not_proved(odd(to_the_ping(reply)).url, app_secret=APP_SECRET)
    assert found == cause
    assert APP_SECRET[:8] not in message + json.dumps(facts)  # nor a part of it


def test_the_app_secret_is_in_no_warning_and_no_stack_trace(
    odd_server: Callable[..., Any], odd: Callable[..., MisbehavingEndpoint], ask: Ask
) -> None:
    # The counter-checks meet a server that repeats it in what is no HTTP.
    def answer(asked: Asked) -> Reply | None:
        if asked.content and asked.signed_with(APP_SECRET):
            return Reply(body=asked.answer())
        return Reply(999, APP_SECRET.encode(), reason=APP_SECRET)

    result = ask(odd(answer).url, app_secret=APP_SECRET)  # looks for it, too
    assert len([w for w in result["warnings"] if "HTTP 999" in w]) == 2
    assert APP_SECRET not in repr(FlowEndpoint("https://example.com", APP_SECRET))


# --- whatever comes ---------------------------------------------------------------------------------------------------


@pytest.fixture
def kept(odd: Callable[..., MisbehavingEndpoint]) -> MisbehavingEndpoint:
    """One server for all examples of a test."""
    return odd()


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["data", "status", ""]) | st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=80)
@given(st.one_of(st.binary(max_size=200), st.binary(max_size=200).map(base64.b64encode), _json.map(lambda value: json.dumps(value).encode())))
def test_whatever_comes_with_http_200_is_not_proved_and_never_a_crash(
    kept: MisbehavingEndpoint, not_proved: Callable[..., Any], body: bytes
) -> None:
    kept.behave = lambda asked: Reply(body=body)
    cause, dummy, dummy = not_proved(kept.url)
    assert cause in ("not_base64", "clear_json", "not_decryptable")


@settings(max_examples=80)
@given(st.one_of(st.binary(max_size=100), _json.map(lambda value: json.dumps(value).encode())))
def test_whatever_is_encrypted_is_not_proved_and_never_a_crash(
    kept: MisbehavingEndpoint, not_proved: Callable[..., Any], said: bytes
) -> None:
    kept.behave = lambda asked: Reply(body=base64.b64encode(asked.encrypted(said)))
    cause, dummy, dummy = not_proved(kept.url)
    assert cause in ("not_json", "not_active")
