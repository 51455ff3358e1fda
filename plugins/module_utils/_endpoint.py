# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The health check of a Flow endpoint, as WhatsApp does it, to verify that the endpoint holds a private key."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import typing as t

from ._errors import KaleyraError, VerificationFailed, require_range
from ._flow_message import FlowMessage, InvalidEndpointResponse, make_foreign_rsa_key, make_ping, rsa_key_of
from ._http import MAX_BODY, MAX_TIMEOUT, Answer, Timeout, Tls, TlsFailed, TransportError, post, shown
from ._public_key import public_key_of
from ._url import split_url

# Source: Meta, "Flow Health and Monitoring". Slower endpoints have their Flows throttled or blocked.
_SLOW_MS = 1000

_KEY_MISMATCH = 421
_WRONG_SIGNATURE = 432

_KEY_REMEDY = (
    "It holds another private key. Deploy the private key that belongs to this public key (with its passphrase, in a format that the endpoint "
    "can read), reload the endpoint, and run this again."
)
_REMEDIES = {
    401: "WhatsApp sends no credentials: remove authentication and bot protection from this URL.",
    403: "WhatsApp sends no credentials: remove authentication and bot protection from this URL.",
    404: "Check url: there is no Flow endpoint.",
    405: "Check url: Flow endpoints take POST requests.",
    427: "This status means an invalid Flow token, but a health check has none. Make the endpoint answer health checks with the status active.",
    **dict.fromkeys((502, 503, 504), "The proxy in front of the endpoint did not reach it: check that the endpoint runs, and the logs of both."),
    500: "Check its log. If it could not decrypt the request, it should answer 421, so that WhatsApp fetches the public key again.",
}
_WITHOUT_ANSWER = {
    "timeout": "Check its log and its load, or set a longer timeout.",
    "tls": "WhatsApp requires a certificate from a public authority. For a test with a private authority, set ca_path.",
    "connection": "Check url, and that the endpoint runs and can be reached from this host.",
}


@dataclasses.dataclass(frozen=True)
class FlowEndpoint:
    """Where WhatsApp sends the messages of a Flow.

    :param app_secret: signs the requests, as WhatsApp does; without it they are unsigned
    :param timeout: seconds for each request as a whole
    """

    url: str
    app_secret: str | None = dataclasses.field(default=None, repr=False)
    timeout: int = 10
    tls: Tls = Tls()

    def post(self, body: bytes, app_secret: str | None) -> Answer:
        """Send one encrypted request.

        :raises TransportError: there was no answer
        """
        headers = {"Content-Type": "application/json"}
        if app_secret is not None:
            headers["X-Hub-Signature-256"] = "sha256=" + hmac.new(app_secret.encode(), body, hashlib.sha256).hexdigest()
        return post(self.url, headers, body, timeout=self.timeout, tls=self.tls)

    def ping(self, rsa_key: t.Any, result: dict[str, t.Any]) -> None:
        """Send a health check, and add its outcome to the result.

        :raises VerificationFailed: the answer is not that of an active endpoint that holds the private key
        """
        message = make_ping(rsa_key)
        try:
            answer = self.post(message.body, self.app_secret)
        except TransportError as exc:
            cause = "timeout" if isinstance(exc, Timeout) else "tls" if isinstance(exc, TlsFailed) else "connection"
            raise self._failed(cause, f"gave no answer: {exc}. {_WITHOUT_ANSWER[cause]}") from exc
        result.update(http_status=answer.status, latency_ms=round(answer.seconds * 1000))
        if answer.status != 200:
            raise self._refused(answer.status)
        self._read(message, answer)
        result["active"] = True

    def counter_check(self, rsa_key: t.Any, app_secret: str | None, expected: int) -> dict[str, t.Any]:
        """Send a request that must be refused, and return ``http_status`` (None without an answer) and whether it was ``refused``."""
        try:
            status = self.post(make_ping(rsa_key).body, app_secret).status
        except TransportError as exc:
            return {"http_status": None, "refused": False, "msg": f"no answer: {exc}"}
        return {"http_status": status, "refused": status == expected}

    def _read(self, message: FlowMessage, answer: Answer) -> None:
        if len(answer.body) > MAX_BODY:
            raise self._failed("not_base64", f"answered with more than {MAX_BODY} bytes. Make it send only the encrypted response.")
        try:
            content = message.read(answer.body)
        except InvalidEndpointResponse as exc:
            raise self._failed(exc.cause, f"sent a response that WhatsApp cannot read: {exc}.") from None
        data = content.get("data")
        status = data.get("status") if isinstance(data, dict) else None
        if status != "active":
            found = f"the status {shown(status, self.app_secret)!r}" if isinstance(status, str) else "no data.status"
            raise self._failed(
                "not_active",
                f'decrypts and encrypts correctly, but answered the health check with {found}. Make it answer {{"data": {{"status": "active"}}}} '
                'to the action "ping".',
            )

    def _refused(self, status: int) -> VerificationFailed:
        if status == _KEY_MISMATCH:
            return self._failed("key_mismatch", f"answered HTTP 421. {_KEY_REMEDY}")
        if status == _WRONG_SIGNATURE:
            to_do = (
                "Check that app_secret and the endpoint use the app secret of the Meta app that the endpoint belongs to."
                if self.app_secret
                else "It checks X-Hub-Signature-256: set app_secret, so that the request is signed as WhatsApp does it."
            )
            return self._failed("signature_refused", f"answered HTTP 432, so it refused the signature. {to_do}")
        if 300 <= status < 400:
            return self._failed("redirect", f"answered with a redirect (HTTP {status}), which is not followed. Set url to the redirect's target.")
        to_do = _REMEDIES.get(status) or (_REMEDIES[500] if status > 500 else "WhatsApp requires HTTP 200.")
        return self._failed("http_status", f"answered HTTP {status}. {to_do}")

    def _failed(self, cause: str, what: str) -> VerificationFailed:
        # The query may contain a token.
        return VerificationFailed(f"The Flow endpoint {shown(self.url.partition('?')[0])} {what}", cause=cause)


def verify_endpoint(params: t.Mapping[str, t.Any], *, check_mode: bool) -> dict[str, t.Any]:
    """Verify that the endpoint holds the private key, and return the task's result, ``warnings`` included.

    :param params: the module's options, None for those that are not set
    :param check_mode: makes no difference, because nothing is changed
    :raises KaleyraError: with the fields of the result in ``details``
    """
    require_range("timeout", params["timeout"], 1, MAX_TIMEOUT)
    split_url("url", params["url"], example="https://example.com/flows", unencrypted="cannot be used by WhatsApp")
    key = public_key_of(params)
    endpoint = FlowEndpoint(params["url"], params["app_secret"], params["timeout"], Tls(params["validate_certs"], params["ca_path"]))
    result: dict[str, t.Any] = {
        "changed": False,
        "active": False,
        "fingerprint": key.fingerprint,
        "latency_ms": None,
        "http_status": None,
        "foreign_key": None,
        "wrong_signature": None,
    }
    try:
        rsa_key = rsa_key_of(key)
        endpoint.ping(rsa_key, result)
        result["foreign_key"] = endpoint.counter_check(make_foreign_rsa_key(), endpoint.app_secret, _KEY_MISMATCH)
        if endpoint.app_secret:
            result["wrong_signature"] = endpoint.counter_check(rsa_key, f"not {endpoint.app_secret}", _WRONG_SIGNATURE)
    except KaleyraError as exc:
        exc.details = {**result, **exc.details}
        raise
    return {**result, "warnings": _warnings(result)}


def _warnings(result: dict[str, t.Any]) -> list[str]:
    """Return what an endpoint that holds the key should do better."""
    warnings = []
    if result["latency_ms"] >= _SLOW_MS:
        warnings.append(
            f"The Flow endpoint took {result['latency_ms']} ms. Meta requires less than {_SLOW_MS} ms, and throttles or blocks the Flows of "
            "slower endpoints."
        )
    if not result["foreign_key"]["refused"]:
        warnings.append(
            f"The Flow endpoint does not refuse what it cannot decrypt: {_answer(result['foreign_key'])} to a request with a foreign key, instead of "
            f"HTTP {_KEY_MISMATCH}. WhatsApp fetches a new public key only after a {_KEY_MISMATCH}, so rotating the key would lose messages."
        )
    if result["wrong_signature"] and not result["wrong_signature"]["refused"]:
        warnings.append(
            f"The Flow endpoint does not check signatures: {_answer(result['wrong_signature'])} to a request with a wrong signature, instead of "
            f"HTTP {_WRONG_SIGNATURE}. Make it check X-Hub-Signature-256 with the app secret."
        )
    return warnings


def _answer(counter_check: dict[str, t.Any]) -> str:
    status = counter_check["http_status"]
    return f"HTTP {status}" if status else t.cast(str, counter_check["msg"])
