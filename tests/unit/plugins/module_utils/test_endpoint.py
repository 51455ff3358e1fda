# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The health check of a Flow endpoint: what is sent, what each answer means, and what to do about it."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import os
import random
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

if sys.version_info < (3, 10):
    pytest.skip("pywa, which decrypts for the endpoints, needs Python 3.10", allow_module_level=True)

from ansible_collections.kaleyra.whatsapp.plugins.module_utils import _endpoint, _http
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._endpoint import FlowEndpoint, verify_endpoint
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._errors import InvalidInput, VerificationFailed
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._flow_message import InvalidEndpointResponse, make_foreign_rsa_key, make_ping
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._http import Answer, ConnectionFailed, Timeout, TransportError, UntrustedCertificate
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._libraries import load_requests
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from support.authority import Authority
from support.endpoint.misbehaving import ACTIVE, TAG_BYTES, Asked, MisbehavingEndpoint, Reply, healthy

APP_SECRET = "Meta-App-Secret-5d1c0f"
URL = "http://127.0.0.1:9/a/b?token=t0ken&x=1"

Named = Callable[[str], Any]
Verify = Callable[..., "dict[str, Any]"]
Fail = Callable[..., "tuple[str, str, dict[str, Any]]"]
Misbehave = Callable[..., MisbehavingEndpoint]


@pytest.fixture(autouse=True)
def new_connections() -> Iterator[None]:
    _http._adapter.cache_clear()
    yield
    _http._adapter.cache_clear()


@pytest.fixture
def verify(public_pem: Named) -> Verify:
    """Verify a URL, with other options by name."""

    def verify_url(url: str, **given: Any) -> dict[str, Any]:
        options = {"url": url, "business_public_key": public_pem("rsa-2048"), "timeout": 20, "validate_certs": True}
        result = verify_endpoint({**dict.fromkeys(("business_public_key_path", "app_secret", "ca_path")), **options, **given}, check_mode=False)
        assert APP_SECRET not in json.dumps(result)
        return result

    return verify_url


@pytest.fixture
def fail(verify: Verify, fingerprint: Named) -> Fail:
    """Verify what must fail, and return the cause, the message and the result."""

    def fail_url(url: str, **given: Any) -> tuple[str, str, dict[str, Any]]:
        with pytest.raises(VerificationFailed) as caught:
            verify(url, **given)
        message, result = str(caught.value), dict(caught.value.details)
        assert APP_SECRET[:8] not in message + json.dumps(result) and "t0ken" not in message + json.dumps(result)
        # One printable line: where, what, what to do.
        assert message.startswith(f"The Flow endpoint {url.partition('?')[0]} ") and message.endswith(".")
        assert message.isprintable() and "object at 0x" not in message and ".." not in message and len(message) < 600
        assert (result["changed"], result["active"], result["fingerprint"]) == (False, False, fingerprint("rsa-2048"))
        assert result["foreign_key"] is result["wrong_signature"] is None
        return result["cause"], message, result

    return fail_url


@pytest.fixture
def misbehave(private_key: Named) -> Iterator[Misbehave]:
    """Start an endpoint that holds the key and behaves as told."""
    with contextlib.ExitStack() as stack:
        private = private_key("rsa-2048").read_text()
        yield lambda behave=healthy, **options: stack.enter_context(MisbehavingEndpoint(private, behave, **options))


def _decrypt(asked: Asked, private_key: Path) -> tuple[bytes, bytes, bytes]:
    """AES key, IV and content as Meta's description has it, by cryptography alone."""
    fields = {name: base64.b64decode(value, validate=True) for name, value in json.loads(asked.body).items()}
    assert fields.keys() == {"encrypted_aes_key", "encrypted_flow_data", "initial_vector"}
    key = serialization.load_pem_private_key(private_key.read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    aes_key = key.decrypt(fields["encrypted_aes_key"], padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None))
    iv = fields["initial_vector"]
    return aes_key, iv, AESGCM(aes_key).decrypt(iv, fields["encrypted_flow_data"], None)


def test_request_is_what_whatsapp_sends(verify: Verify, misbehave: Misbehave, private_key: Named, fingerprint: Named) -> None:
    endpoint = misbehave(lambda asked: healthy(asked) if asked.signed_with(APP_SECRET) else Reply(432))
    for dummy in range(2):
        result = verify(endpoint.url, app_secret=APP_SECRET)
    assert {name: value for name, value in result.items() if name not in ("latency_ms", "warnings")} == {
        "changed": False,
        "active": True,
        "fingerprint": fingerprint("rsa-2048"),
        "http_status": 200,
        "foreign_key": {"http_status": 421, "refused": True},
        "wrong_signature": {"http_status": 432, "refused": True},
    }
    assert APP_SECRET not in repr(FlowEndpoint(endpoint.url, APP_SECRET))
    pings, foreign, unsigned = endpoint.requests[0::3], endpoint.requests[1::3], endpoint.requests[2::3]
    assert [len(pings), len(foreign), len(unsigned)] == [2, 2, 2]
    for asked in (*pings, *unsigned):
        aes_key, iv, content = _decrypt(asked, private_key("rsa-2048"))
        assert (len(aes_key), len(iv)) == (16, 16)
        assert content == b'{"version": "3.0", "action": "ping"}'
    for asked in (*pings, *foreign):
        assert asked.headers["X-Hub-Signature-256"] == "sha256=" + hmac.new(APP_SECRET.encode(), asked.body, hashlib.sha256).hexdigest()
    for asked in unsigned:
        assert asked.headers["X-Hub-Signature-256"].startswith("sha256=") and len(asked.headers["X-Hub-Signature-256"]) == 7 + 64
    lengths = [{name: len(base64.b64decode(value)) for name, value in json.loads(asked.body).items()} for asked in (*foreign, *pings)]
    assert all(asked.content is None for asked in foreign) and lengths == [lengths[0]] * 4
    # Nothing is used twice.
    assert len({asked.aes_key for asked in (*pings, *unsigned)}) == len({asked.iv for asked in (*pings, *unsigned)}) == 4
    for asked in endpoint.requests:
        headers = {name.lower(): value for name, value in asked.headers.items()}
        assert headers["content-type"] == "application/json"
        assert headers.keys() <= {
            *("content-type", "content-length", "host", "accept-encoding", "user-agent", "x-hub-signature-256", "connection", "accept")
        }


def test_slow_answer_is_a_warning_slow_import_is_not(verify: Verify, misbehave: Misbehave, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = types.SimpleNamespace(now=0.0)

    def load_slowly() -> Any:
        clock.now += 5
        return load_requests()

    def answer_slowly(asked: Asked) -> Reply:
        clock.now += 1.1
        return healthy(asked)

    monkeypatch.setattr(_http, "time", types.SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(_http, "load_requests", load_slowly)
    endpoint = misbehave(answer_slowly)
    result = verify(endpoint.url)
    assert (result["active"], result["latency_ms"], len(result["warnings"])) == (True, 1100, 1)
    assert "took 1100 ms" in result["warnings"][0] and "1000 ms" in result["warnings"][0]
    # Without the app secret, nothing is signed.
    assert result["wrong_signature"] is None and len(endpoint.requests) == 2
    assert all("X-Hub-Signature-256" not in asked.headers for asked in endpoint.requests)


@pytest.mark.parametrize(
    ("status", "app_secret", "cause", "remedy"),
    [
        (421, None, "key_mismatch", "holds another private key. Deploy the private key that belongs to this public key"),
        (432, None, "signature_refused", "set app_secret"),
        (432, "another", "signature_refused", "use the app secret of the Meta app"),
        (307, None, "redirect", "Set url to the redirect's target"),
        (204, None, "http_status", "WhatsApp requires HTTP 200"),
        (401, None, "http_status", "WhatsApp sends no credentials"),
        (404, None, "http_status", "Check url"),
        (405, None, "http_status", "take POST requests"),
        (427, None, "http_status", "answer health checks with the status active"),
        (429, None, "http_status", "WhatsApp requires HTTP 200"),
        (500, None, "http_status", "Check its log"),
        (501, None, "http_status", "Check its log"),
        (503, None, "http_status", "check that the endpoint runs"),
    ],
)
def test_status_has_its_remedy(
    status: int, app_secret: str | None, cause: str, remedy: str, fail: Fail, monkeypatch: pytest.MonkeyPatch
) -> None:
    urls = []

    def answer(url: str, *dummy: object, **named: object) -> Answer:
        urls.append(url)
        return Answer(status, b"whatever")

    monkeypatch.setattr(_endpoint, "post", answer)
    found, message, result = fail(URL, app_secret=app_secret)
    assert (found, result["http_status"]) == (cause, status) and result["latency_ms"] >= 0
    assert f"HTTP {status}" in message and remedy in message
    assert urls == [URL]  # nothing is repeated: `until` is for that; and counter-checks would say nothing


@pytest.mark.parametrize(
    ("error", "cause", "remedy"),
    [
        (Timeout("no complete answer within 1 seconds"), "timeout", "set a longer timeout"),
        (ConnectionFailed("Connection refused"), "connection", "Check url, and that the endpoint runs"),
        (UntrustedCertificate("self-signed certificate"), "tls", "WhatsApp requires a certificate from a public authority"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_no_answer_has_its_remedy(error: TransportError, cause: str, remedy: str, fail: Fail, monkeypatch: pytest.MonkeyPatch) -> None:
    def give_no_answer(*dummy: object, **named: object) -> Answer:
        raise error

    monkeypatch.setattr(_endpoint, "post", give_no_answer)
    found, message, result = fail(URL)
    assert (found, result["http_status"], result["latency_ms"]) == (cause, None, None)
    assert f"gave no answer: {error}. " in message and remedy in message


def test_private_authority_is_trusted_by_ca_path(misbehave: Misbehave, verify: Verify, fail: Fail, tmp_path: Path) -> None:
    authority = Authority(tmp_path, "authority")
    endpoint = misbehave(certificate=authority.issue("127.0.0.1"))
    assert fail(endpoint.url)[0] == "tls" and endpoint.requests == []
    assert verify(endpoint.url, ca_path=str(authority.path))["active"]
    assert verify(endpoint.url, validate_certs=False)["active"]


Respond = Callable[[Asked], bytes]


def _sealed(said: bytes, *, iv: Respond | None = None, aes_key: bytes | None = None) -> Respond:
    """A response that holds this text, encrypted as it should be unless said otherwise."""
    return lambda asked: base64.b64encode(asked.encrypted(said, iv=iv and iv(asked), aes_key=aes_key))


def _without_tag(asked: Asked, **given: Any) -> bytes:
    return asked.encrypted(b'{"a": 1}', **given)[:-TAG_BYTES]


_ACTIVE = json.dumps(ACTIVE).encode()
_RSA_KEY = make_foreign_rsa_key()


@pytest.mark.parametrize(
    ("response", "cause", "remedy"),
    [
        pytest.param(lambda a: b"", "not_base64", "it is empty", id="empty"),
        pytest.param(lambda a: b"OK!", "not_base64", "Send the encrypted response as base64", id="junk"),
        pytest.param(lambda a: a.encrypted(_ACTIVE), "not_base64", "not base64", id="not-encoded"),
        pytest.param(lambda a: b"{" + a.encrypted(b"{}"), "not_base64", "not base64", id="bytes-after-a-brace"),
        pytest.param(lambda a: b"<!DOCTYPE html><html>Not here</html>", "not_base64", "not base64", id="html"),
        pytest.param(lambda a: b"-_" + a.answer()[2:], "not_base64", "alphabet with + and /", id="url-safe"),
        pytest.param(lambda a: a.answer()[:40] + b"\n" + a.answer()[40:], "not_base64", "on one line", id="wrapped"),
        pytest.param(lambda a: json.dumps(a.answer().decode()).encode(), "not_base64", "in quotes, as a JSON string", id="quoted"),
        pytest.param(lambda a: b"[" * 20_000, "not_base64", "not base64", id="deep-clear"),
        pytest.param(lambda a: _ACTIVE, "clear_json", "Encrypt the JSON", id="clear"),
        pytest.param(lambda a: b"\n[1]", "clear_json", "Encrypt the JSON", id="clear-array"),
        pytest.param(lambda a: b"null", "clear_json", "Encrypt the JSON", id="clear-null"),
        pytest.param(_sealed(_ACTIVE, iv=lambda a: a.iv), "iv_not_inverted", "Invert every bit of the IV", id="iv"),
        pytest.param(lambda a: base64.b64encode(_without_tag(a)), "wrong_tag", "to the encrypted text", id="no-tag"),
        pytest.param(lambda a: base64.b64encode(_without_tag(a) + bytes(TAG_BYTES)), "wrong_tag", "16-byte tag", id="zeroed-tag"),
        pytest.param(lambda a: base64.b64encode(a.encrypted(b"{}")[-TAG_BYTES:] + _without_tag(a)), "wrong_tag", "to the encrypted", id="tag-first"),
        pytest.param(lambda a: base64.b64encode(_without_tag(a, iv=a.iv)), "wrong_tag", "and invert every bit of the IV", id="no-tag-and-iv"),
        pytest.param(_sealed(_ACTIVE, aes_key=os.urandom(16)), "not_decryptable", "Use the decrypted AES key", id="another-aes-key"),
        pytest.param(_sealed(_ACTIVE, iv=lambda a: os.urandom(12)), "not_decryptable", "the inverted IV", id="own-iv"),
        pytest.param(lambda a: base64.b64encode(b"short"), "not_decryptable", "AES-128-GCM", id="shorter-than-a-tag"),
        pytest.param(_sealed(b"active"), "not_json", "not a JSON object", id="text"),
        pytest.param(lambda a: a.answer(["active"]), "not_json", "not a JSON object", id="array"),
        pytest.param(_sealed(b"[" * 20_000), "not_json", "not a JSON object", id="deep"),
        pytest.param(_sealed(b'{"a": ' + b"9" * 20_000 + b"}"), "not_json", "not a JSON object", id="long-number"),
    ],
)
def test_unreadable_response_has_its_remedy(response: Respond, cause: str, remedy: str) -> None:
    message = make_ping(_RSA_KEY)
    with pytest.raises(InvalidEndpointResponse) as caught:
        message.read(response(Asked({}, message.body, {}, message._aes_key, message._iv)))
    assert caught.value.cause == cause and remedy in str(caught.value)


def test_random_response_is_refused() -> None:
    message, rng = make_ping(_RSA_KEY), random.Random(1)
    for dummy in range(200):
        content = rng.randbytes(rng.randrange(200))
        for response in (content, base64.b64encode(content), json.dumps([content.hex()]).encode()):
            with pytest.raises(InvalidEndpointResponse) as caught:
                message.read(response)
            assert caught.value.cause in ("not_base64", "clear_json", "not_decryptable")


@pytest.mark.parametrize(
    ("response", "cause", "remedy"),
    [
        pytest.param(lambda a: a.answer() * 2000, "not_base64", "more than 65536 bytes", id="too-large"),
        pytest.param(_sealed(APP_SECRET.encode()), "not_json", "a response that WhatsApp cannot read: its decrypted content", id="secret-as-text"),
        pytest.param(lambda a: a.answer({"data": {"status": "sleeping"}}), "not_active", "the status 'sleeping'", id="other-status"),
        pytest.param(lambda a: a.answer({"status": "active"}), "not_active", "no data.status", id="no-data"),
        pytest.param(lambda a: a.answer({"data": "active"}), "not_active", "no data.status", id="data-is-text"),
        pytest.param(lambda a: a.answer({}), "not_active", '{"data": {"status": "active"}}', id="empty-object"),
        pytest.param(lambda a: a.answer({"data": {"status": "\x1b[31m\n" + "x" * 5000}}), "not_active", "the status", id="long-status"),
        pytest.param(_sealed(b'{"data": {"status": "\\ud800"}}'), "not_active", "the status", id="lone-surrogate"),
        pytest.param(lambda a: a.answer({"data": {"status": "x" * 190 + APP_SECRET}}), "not_active", "the status", id="secret-cut"),
        pytest.param(lambda a: a.answer() + b"\n", "", "", id="active-and-a-newline"),
        pytest.param(lambda a: a.answer({"data": {"status": "active", "x": [1]}, "version": "3.0"}), "", "", id="active-and-more"),
        pytest.param(_sealed(b' {"data":{"status":"active"}}\n'), "", "", id="active-with-other-blanks"),
    ],
)
def test_only_the_status_active_is_active(response: Respond, cause: str, remedy: str, misbehave: Misbehave, verify: Verify, fail: Fail) -> None:
    endpoint = misbehave(lambda asked: Reply(body=response(asked)) if asked.content else Reply(421))
    if not cause:
        assert verify(endpoint.url)["active"]
        return
    found, message, result = fail(endpoint.url, app_secret=APP_SECRET)
    assert (found, result["http_status"]) == (cause, 200) and remedy in message
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize(
    ("reply", "status", "said"),
    [
        pytest.param(Reply(200, APP_SECRET.encode()), 200, "HTTP 200 to a request with ", id="answers-anything"),
        pytest.param(Reply(999, APP_SECRET.encode(), reason=APP_SECRET), 999, "HTTP 999 to a request with ", id="another-status"),
        pytest.param(None, None, "no answer: ", id="no-answer"),
    ],
)
def test_counter_check_not_refused_is_a_warning(reply: Reply | None, status: int | None, said: str, misbehave: Misbehave, verify: Verify) -> None:
    endpoint = misbehave(lambda asked: Reply(body=asked.answer()) if asked.content and asked.signed_with(APP_SECRET) else reply)
    result = verify(endpoint.url, app_secret=APP_SECRET)
    assert result["active"]
    for name in ("foreign_key", "wrong_signature"):
        assert (result[name]["http_status"], result[name]["refused"]) == (status, False)
    foreign, signature = result["warnings"][-2:]  # after one about a slow machine
    assert said in foreign and "foreign key" in foreign and "421" in foreign and "rotating the key would lose messages" in foreign
    assert said in signature and "wrong signature" in signature and "X-Hub-Signature-256" in signature and "432" in signature
    assert foreign.isprintable() and signature.isprintable()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"timeout": 0}, "timeout"),
        ({"timeout": 86401}, "timeout"),
        ({"ca_path": "/nowhere/ca.pem"}, "ca_path"),
        ({"business_public_key": None, "business_public_key_path": "/nowhere/public.pem"}, "business_public_key_path"),
        ({"business_public_key": "rsa-3072"}, "RSA with 3072 bits"),
        ({"url": "http://192.0.2.1/flows"}, "^url "),
        ({"url": "https://user:Pass-1@example.com/flows"}, "^url "),
    ],
    ids=str,
)
def test_unusable_option_sends_nothing(change: dict[str, Any], said: str, verify: Verify, public_pem: Named) -> None:
    if change.get("business_public_key"):
        change = {"business_public_key": public_pem(change["business_public_key"])}
    with pytest.raises(InvalidInput, match=said) as caught:
        verify(**{"url": "https://127.0.0.1:9/", **change})  # nothing answers there
    assert "Pass-1" not in str(caught.value) and caught.value.details.get("active", False) is False
