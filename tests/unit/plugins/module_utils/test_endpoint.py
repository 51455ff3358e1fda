# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The health check against pywa's endpoint in a process of its own, and against endpoints that do one thing wrong."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

if sys.version_info < (3, 10):
    pytest.skip("pywa, whose endpoints these are, needs Python 3.10", allow_module_level=True)

from ansible_collections.kaleyra.whatsapp.plugins.module_utils import _http
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._endpoint import FlowEndpoint, verify_endpoint
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._errors import InvalidInput, MissingLibrary, VerificationFailed
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._flow_message import InvalidEndpointResponse, make_foreign_rsa_key, make_ping
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st
from support.authority import Authority
from support.endpoint.client import Endpoint
from support.endpoint.misbehaving import ACTIVE, TAG_BYTES, Asked, MisbehavingEndpoint, Reply, healthy
from support.simulator.client import Simulator

APP_SECRET = "Meta-App-Secret-5d1c0f"
K1, K2 = "rsa-2048", "other-rsa-2048"

Named = Callable[[str], Any]
Behave = Callable[[Asked], "Reply | None"]
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
        result = verify_endpoint({**options, **given}, check_mode=False)
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
        assert APP_SECRET[:8] not in message + json.dumps(result)
        # One printable line: where, what, what to do.
        assert message.startswith(f"The Flow endpoint {url.partition('?')[0]} ") and message.endswith(".")
        assert message.isprintable() and "object at 0x" not in message and ".." not in message and len(message) < 600
        assert (result["changed"], result["active"], result["fingerprint"]) == (False, False, fingerprint(K1))
        assert result["foreign_key"] is result["wrong_signature"] is None
        return result["cause"], message, result

    return fail_url


@pytest.fixture
def misbehave(private_key: Named) -> Iterator[Misbehave]:
    """Start an endpoint that holds the key and behaves as told."""
    with contextlib.ExitStack() as stack:
        yield lambda behave=healthy, **options: stack.enter_context(MisbehavingEndpoint(private_key(K1).read_text(), behave, **options))


def to_the_ping(reply: Callable[[Asked], Reply | None]) -> Behave:
    """Reply so under the right key, and refuse a foreign one."""
    return lambda asked: reply(asked) if asked.content else Reply(421)


# --- an endpoint as it should be --------------------------------------------------------------------------------------


def test_pywa_endpoint_is_active(verify: Verify, private_key: Named, fingerprint: Named, tmp_path: Path) -> None:
    with Endpoint(tmp_path / "keys", [private_key(K1)], app_secret=APP_SECRET) as endpoint:
        result = verify(endpoint.url, app_secret=APP_SECRET)
        assert endpoint.answered() == [200, 421, 432]
    assert result.pop("latency_ms") >= 0
    assert [warning for warning in result.pop("warnings") if "took" not in warning] == []  # a busy machine may be slow
    assert result == {
        "changed": False,
        "active": True,
        "fingerprint": fingerprint(K1),
        "http_status": 200,
        "foreign_key": {"http_status": 421, "refused": True},
        "wrong_signature": {"http_status": 432, "refused": True},
    }


def test_pywa_endpoint_with_another_key_is_a_mismatch(fail: Fail, private_key: Named, tmp_path: Path) -> None:
    with Endpoint(tmp_path / "keys", [private_key(K2)]) as endpoint:
        cause, message, result = fail(endpoint.url)
        assert endpoint.answered() == [421]  # no counter-checks: they would say nothing
    assert (cause, result["http_status"]) == ("key_mismatch", 421)
    assert "holds another private key" in message and "Deploy the private key that belongs to this public key" in message
    assert result["latency_ms"] >= 0


# --- what is sent -----------------------------------------------------------------------------------------------------


def _decrypt(asked: Asked, private_key: Path) -> tuple[bytes, bytes, bytes]:
    """AES key, IV and content as Meta's description has it, by cryptography alone."""
    fields = {name: base64.b64decode(value, validate=True) for name, value in json.loads(asked.body).items()}
    assert fields.keys() == {"encrypted_aes_key", "encrypted_flow_data", "initial_vector"}
    key = serialization.load_pem_private_key(private_key.read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    aes_key = key.decrypt(fields["encrypted_aes_key"], padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None))
    iv = fields["initial_vector"]
    return aes_key, iv, AESGCM(aes_key).decrypt(iv, fields["encrypted_flow_data"], None)


def test_request_is_what_whatsapp_sends(verify: Verify, misbehave: Misbehave, private_key: Named) -> None:
    endpoint = misbehave(lambda asked: healthy(asked) if asked.signed_with(APP_SECRET) else Reply(432))
    for dummy in range(2):
        verify(endpoint.url, app_secret=APP_SECRET)
    pings, foreign, unsigned = endpoint.requests[0::3], endpoint.requests[1::3], endpoint.requests[2::3]
    assert [len(pings), len(foreign), len(unsigned)] == [2, 2, 2]
    for asked in (*pings, *unsigned):
        aes_key, iv, content = _decrypt(asked, private_key(K1))
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


def test_without_app_secret_nothing_is_signed(verify: Verify, misbehave: Misbehave) -> None:
    endpoint = misbehave()
    assert verify(endpoint.url)["wrong_signature"] is None
    assert len(endpoint.requests) == 2
    assert all("X-Hub-Signature-256" not in asked.headers for asked in endpoint.requests)


def test_query_of_the_url_is_sent_and_not_shown(misbehaving_server: Callable[..., Any], fail: Fail) -> None:
    server = misbehaving_server(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
    dummy, message, result = fail(f"http://127.0.0.1:{server.port}/a/b?token=t0ken&x=1")
    assert server.requests[0].startswith(b"POST /a/b?token=t0ken&x=1 HTTP/1.1\r\n")
    assert "t0ken" not in message + json.dumps(result)


# --- each cause, with its remedy --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "cause", "remedy"),
    [
        (421, "key_mismatch", "reload the endpoint"),
        (204, "http_status", "WhatsApp requires HTTP 200"),
        (401, "http_status", "WhatsApp sends no credentials"),
        (404, "http_status", "Check url"),
        (405, "http_status", "take POST requests"),
        (427, "http_status", "answer health checks with the status active"),
        (429, "http_status", "WhatsApp requires HTTP 200"),
        (500, "http_status", "Check its log"),
        (501, "http_status", "Check its log"),
        (503, "http_status", "check that the endpoint runs"),
    ],
)
def test_status_has_its_remedy(status: int, cause: str, remedy: str, misbehave: Misbehave, fail: Fail) -> None:
    endpoint = misbehave(lambda asked: Reply(status, b"" if status == 204 else b"whatever"))
    found, message, result = fail(endpoint.url)
    assert (found, result["http_status"]) == (cause, status)
    assert f"HTTP {status}" in message and remedy in message
    assert len(endpoint.requests) == 1  # nothing is repeated: `until` is for that


@pytest.mark.parametrize(
    ("app_secret", "remedy"),
    [pytest.param(None, "set app_secret", id="unsigned"), pytest.param("another", "use the app secret of the Meta app", id="wrong")],
)
def test_refused_signature(app_secret: str | None, remedy: str, misbehave: Misbehave, fail: Fail) -> None:
    endpoint = misbehave(lambda asked: healthy(asked) if asked.signed_with(APP_SECRET) else Reply(432))
    cause, message, result = fail(endpoint.url, app_secret=app_secret)
    assert (cause, result["http_status"]) == ("signature_refused", 432)
    assert remedy in message


def test_redirect_is_not_followed(misbehave: Misbehave, fail: Fail) -> None:
    right = misbehave()
    endpoint = misbehave(lambda asked: Reply(307, headers={"Location": right.url}))
    cause, message, result = fail(endpoint.url)
    assert (cause, result["http_status"]) == ("redirect", 307)
    assert "Set url to the redirect's target" in message
    assert right.requests == []


def _sealed(said: bytes, *, iv: Callable[[Asked], bytes] | None = None, aes_key: bytes | None = None) -> Callable[[Asked], bytes]:
    """A response that holds this text, encrypted as it should be unless said otherwise."""
    return lambda asked: base64.b64encode(asked.encrypted(said, iv=iv and iv(asked), aes_key=aes_key))


def _without_tag(asked: Asked, **given: Any) -> bytes:
    return asked.encrypted(b'{"a": 1}', **given)[:-TAG_BYTES]


_ACTIVE = json.dumps(ACTIVE).encode()


@pytest.mark.parametrize(
    ("response", "cause", "remedy"),
    [
        pytest.param(lambda a: b"", "not_base64", "it is empty", id="empty"),
        pytest.param(lambda a: b"OK!", "not_base64", "Send the encrypted response as base64", id="junk"),
        pytest.param(lambda a: a.encrypted(_ACTIVE), "not_base64", "not base64", id="not-encoded"),
        *(
            pytest.param(lambda a, first=first: first + a.encrypted(b"{}"), "not_base64", "not base64", id=f"bytes-after-{first.decode()}")
            for first in (b"{", b"[", b'"')
        ),
        pytest.param(lambda a: b"<!DOCTYPE html><html>Not here</html>", "not_base64", "not base64", id="html"),
        pytest.param(lambda a: b"-_" + a.answer()[2:], "not_base64", "alphabet with + and /", id="url-safe"),
        pytest.param(lambda a: a.answer()[:40] + b"\n" + a.answer()[40:], "not_base64", "on one line", id="wrapped"),
        pytest.param(lambda a: json.dumps(a.answer().decode()).encode(), "not_base64", "in quotes, as a JSON string", id="quoted"),
        pytest.param(lambda a: a.answer() * 2000, "not_base64", "more than 65536 bytes", id="too-large"),
        pytest.param(lambda a: _ACTIVE, "clear_json", "Encrypt the JSON", id="clear"),
        pytest.param(lambda a: b"\n[1]", "clear_json", "Encrypt the JSON", id="clear-array"),
        pytest.param(lambda a: b"[" * 20_000, "not_base64", "not base64", id="deep-clear"),
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
        pytest.param(lambda a: a.answer({"data": {"status": "sleeping"}}), "not_active", "the status 'sleeping'", id="other-status"),
        pytest.param(lambda a: a.answer({"status": "active"}), "not_active", "no data.status", id="no-data"),
        pytest.param(lambda a: a.answer({"data": "active"}), "not_active", "no data.status", id="data-is-text"),
        pytest.param(lambda a: a.answer({}), "not_active", '{"data": {"status": "active"}}', id="empty-object"),
        pytest.param(lambda a: a.answer({"data": {"status": "\x1b[31m\n" + "x" * 5000}}), "not_active", "the status", id="rude-status"),
        pytest.param(_sealed(b'{"data": {"status": "\\ud800"}}'), "not_active", "the status", id="lone-surrogate"),
    ],
)
def test_wrong_response(response: Callable[[Asked], bytes], cause: str, remedy: str, misbehave: Misbehave, fail: Fail) -> None:
    endpoint = misbehave(to_the_ping(lambda asked: Reply(body=response(asked))))
    found, message, result = fail(endpoint.url)
    assert (found, result["http_status"]) == (cause, 200), message
    assert remedy in message
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize(
    "response",
    [
        pytest.param(lambda a: a.answer() + b"\n", id="newline-at-the-end"),
        pytest.param(lambda a: a.answer({"data": {"status": "active", "x": [1]}, "version": "3.0"}), id="more-than-needed"),
        pytest.param(_sealed(b' {"data":{"status":"active"}}\n'), id="other-blanks"),
    ],
)
def test_response_that_whatsapp_can_read_is_active(response: Callable[[Asked], bytes], misbehave: Misbehave, verify: Verify) -> None:
    assert verify(misbehave(to_the_ping(lambda asked: Reply(body=response(asked)))).url)["active"]


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["data", "status", ""]) | st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.one_of(st.binary(max_size=200), st.binary(max_size=200).map(base64.b64encode), _json.map(lambda value: json.dumps(value).encode())))
def test_any_response_is_refused_without_a_crash(response: bytes) -> None:
    with pytest.raises(InvalidEndpointResponse) as caught:
        make_ping(_FOREIGN_KEY).read(response)
    assert caught.value.cause in ("not_base64", "clear_json", "not_decryptable")


_FOREIGN_KEY = make_foreign_rsa_key()


# --- no answer --------------------------------------------------------------------------------------------------------


def test_refused_connection(fail: Fail) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        cause, message, result = fail(f"http://127.0.0.1:{bound.getsockname()[1]}/flows")
    assert (cause, result["http_status"], result["latency_ms"]) == ("connection", None, None)
    assert "gave no answer: Connection refused. Check url, and that the endpoint runs" in message


def test_connection_closed_without_an_answer(misbehave: Misbehave, fail: Fail) -> None:
    assert fail(misbehave(lambda asked: None).url)[0] == "connection"


def test_slow_endpoint_is_a_timeout(simulator: Simulator, fail: Fail) -> None:
    simulator.faults({"*": [{"do": "trickle", "where": "body", "interval": 0.1}]})
    cause, message, result = fail(f"{simulator.url}/v2/X/whatsapp/+14155550123/flows_encryption", timeout=1)
    assert (cause, result["http_status"], result["latency_ms"]) == ("timeout", None, None)
    assert "set a longer timeout" in message


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"), "authority")


def test_https_with_a_private_authority(authority: Authority, misbehave: Misbehave, verify: Verify, fail: Fail) -> None:
    endpoint = misbehave(certificate=authority.issue("127.0.0.1"))
    cause, message, result = fail(endpoint.url)
    assert (cause, result["http_status"]) == ("tls", None)
    assert "unable to get local issuer certificate" in message and "WhatsApp requires a certificate from a public authority" in message
    assert endpoint.requests == []
    assert verify(endpoint.url, ca_path=str(authority.path))["active"]
    assert verify(endpoint.url, validate_certs=False)["active"]


# --- counter-checks and warnings --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "status", "said"),
    [
        pytest.param(Reply(200, b"whatever"), 200, "HTTP 200 to a request with a foreign key", id="answers-any-key"),
        pytest.param(None, None, "no answer: ", id="no-answer"),
    ],
)
def test_foreign_key_not_refused_is_a_warning(reply: Reply | None, status: int | None, said: str, misbehave: Misbehave, verify: Verify) -> None:
    result = verify(misbehave(lambda asked: healthy(asked) if asked.content else reply).url)
    assert (result["active"], result["foreign_key"]["http_status"], result["foreign_key"]["refused"]) == (True, status, False)
    warning = next(w for w in result["warnings"] if "foreign key" in w)
    assert said in warning and "421" in warning and "rotating the key would lose messages" in warning
    assert warning.isprintable()


@pytest.mark.parametrize(
    ("reply", "status"), [pytest.param(healthy, 200, id="accepts-it"), pytest.param(lambda a: Reply(403), 403, id="403")]
)
def test_wrong_signature_not_refused_is_a_warning(reply: Behave, status: int, misbehave: Misbehave, verify: Verify) -> None:
    result = verify(misbehave(lambda asked: healthy(asked) if asked.signed_with(APP_SECRET) else reply(asked)).url, app_secret=APP_SECRET)
    assert (result["active"], result["foreign_key"]) == (True, {"http_status": 421, "refused": True})
    assert result["wrong_signature"] == {"http_status": status, "refused": False}
    warning = next(w for w in result["warnings"] if "wrong signature" in w)
    assert "X-Hub-Signature-256" in warning and "432" in warning


def test_slow_answer_is_a_warning(misbehave: Misbehave, verify: Verify) -> None:
    result = verify(misbehave(to_the_ping(lambda asked: Reply(body=asked.answer(), delay=1.1))).url)
    assert result["active"] and result["latency_ms"] >= 1100
    assert [w for w in result["warnings"] if f"took {result['latency_ms']} ms" in w and "1000 ms" in w]


_SLOW_IMPORT = """
import json, sys, time

class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "requests":
            time.sleep(2)

sys.meta_path.insert(0, Slow())
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._endpoint import verify_endpoint
began = time.monotonic()
result = verify_endpoint(json.loads(sys.argv[1]), check_mode=False)
print(result["latency_ms"], (time.monotonic() - began) * 1000)
"""


def test_latency_does_not_include_imports(misbehave: Misbehave, public_pem: Named, run: Callable[..., str]) -> None:
    options = {"url": misbehave().url, "business_public_key": public_pem(K1), "business_public_key_path": None, "app_secret": None}
    latency, whole = map(float, run(_SLOW_IMPORT, json.dumps({**options, "timeout": 20, "validate_certs": True, "ca_path": None})).split())
    assert 0 < latency <= whole - 2000


# --- what cannot be sent ----------------------------------------------------------------------------------------------


def test_unusable_key_is_refused(misbehave: Misbehave, verify: Verify, public_pem: Named, fingerprint: Named) -> None:
    endpoint = misbehave()
    with pytest.raises(InvalidInput, match="4096") as caught:
        verify(endpoint.url, business_public_key=public_pem("rsa-4096"))
    assert (caught.value.details["active"], caught.value.details["fingerprint"]) == (False, fingerprint("rsa-4096"))
    assert endpoint.requests == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({"timeout": 0}, "timeout", id="timeout-0"),
        pytest.param({"timeout": 86401}, "timeout", id="timeout-of-days"),
        pytest.param({"ca_path": "/nowhere/ca.pem"}, "ca_path", id="ca_path"),
        pytest.param({"business_public_key": None, "business_public_key_path": "/nowhere/public.pem"}, "business_public_key_path", id="path"),
        pytest.param({"url": "http://192.0.2.1/flows"}, "^url ", id="http"),
        pytest.param({"url": "https://user:Pass-1@example.com/flows"}, "^url ", id="user"),
    ],
)
def test_unusable_option_sends_nothing(change: dict[str, Any], said: str, authority: Authority, misbehave: Misbehave, verify: Verify) -> None:
    endpoint = misbehave(certificate=authority.issue("127.0.0.1"))
    with pytest.raises(InvalidInput, match=said) as caught:
        verify(**{"url": endpoint.url, **change})
    assert "Pass-1" not in str(caught.value)
    assert endpoint.requests == []


@pytest.mark.parametrize("library", ["requests", "cryptography"])
def test_missing_library_is_named(library: str, public_pem: Named, run: Callable[..., str]) -> None:
    options = {"url": "http://127.0.0.1:9/", "business_public_key": public_pem(K1), "business_public_key_path": None, "app_secret": None}
    code = (
        "import json, sys\nsys.modules[sys.argv[2]] = None\n"
        "from ansible_collections.kaleyra.whatsapp.plugins.module_utils._endpoint import verify_endpoint\n"
        "from ansible_collections.kaleyra.whatsapp.plugins.module_utils._errors import KaleyraError\n"
        "try:\n    verify_endpoint(json.loads(sys.argv[1]), check_mode=False)\n"
        "except KaleyraError as exc:\n    print(type(exc).__name__, exc)\n"
    )
    said = run(code, json.dumps({**options, "timeout": 20, "validate_certs": True, "ca_path": None}), library)
    assert said.startswith(MissingLibrary.__name__) and library in said and sys.executable in said


def test_import_loads_neither_library(run: Callable[..., str]) -> None:
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
        pytest.param(lambda a: Reply(200, a.answer({"data": {"status": "x" * 190 + APP_SECRET}})), "not_active", id="cut-status"),
        pytest.param(lambda a: Reply(200, _sealed(APP_SECRET.encode())(a)), "not_json", id="text"),
    ],
)
def test_echoed_app_secret_is_not_shown(reply: Behave, cause: str, misbehave: Misbehave, fail: Fail) -> None:
    assert fail(misbehave(to_the_ping(reply)).url, app_secret=APP_SECRET)[0] == cause  # looks for it


def test_app_secret_is_in_no_warning_and_no_repr(misbehave: Misbehave, verify: Verify) -> None:
    def answer(asked: Asked) -> Reply | None:
        if asked.content and asked.signed_with(APP_SECRET):
            return Reply(body=asked.answer())
        return Reply(999, APP_SECRET.encode(), reason=APP_SECRET)

    result = verify(misbehave(answer).url, app_secret=APP_SECRET)  # looks for it
    assert len([w for w in result["warnings"] if "HTTP 999" in w]) == 2
    assert APP_SECRET not in repr(FlowEndpoint("https://example.com", APP_SECRET))
