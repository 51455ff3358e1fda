# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: it can change in any release.

"""A Flow endpoint, asked as WhatsApp asks it: the proof that it holds the private key."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import typing as t

from ._errors import KaleyraError, VerificationFailed, require_range
from ._flow_message import FlowMessage, Unreadable, make_foreign_rsa_key, make_ping, rsa_key_of
from ._http import MAX_BODY, MAX_TIMEOUT, Answer, Timeout, Tls, TlsFailed, TransportError, post, shown
from ._public_key import public_key_of
from ._url import split_url

# Meta, "Flow Health and Monitoring": an endpoint should answer in less than a second, else Flows may be throttled or blocked.
_SLOW_MS = 1000

_MISMATCH = 421
_SIGNATURE = 432

_KEY_REMEDY = (
    "It holds another private key. Deploy the private key of this public key (with its passphrase, in a format that it reads), reload the "
    "endpoint, and run this again."
)
_REMEDIES = {
    401: "WhatsApp sends no credentials: take authentication and bot protection away from this URL.",
    403: "WhatsApp sends no credentials: take authentication and bot protection away from this URL.",
    404: "Check url: no Flow endpoint is there.",
    405: "Check url: the Flow endpoint is asked with POST.",
    427: "That status is for a Flow token that is no longer valid; a health check has none. Answer it with the status active.",
    **dict.fromkeys((502, 503, 504), "What stands before the endpoint did not reach it: check that the endpoint is running, and see both logs."),
    500: "Look into its log. If it failed to decrypt, it should answer 421, on which WhatsApp fetches the public key anew.",
}
_WITHOUT_ANSWER = {
    "timeout": "Look into its log and at its load, or allow more with timeout.",
    "tls": "WhatsApp needs a certificate of a public authority. If this one's authority is private for a test, give it with ca_path.",
    "connection": "Check url, and that the endpoint is running and can be reached from here.",
}


@dataclasses.dataclass(frozen=True)
class FlowEndpoint:
    """Where WhatsApp sends the messages of a Flow.

    :param app_secret: that WhatsApp signs its requests with; without it they go unsigned
    :param timeout: seconds for one request as a whole
    """

    url: str
    app_secret: str | None = dataclasses.field(default=None, repr=False)
    timeout: int = 10
    tls: Tls = Tls()

    def post(self, body: bytes, app_secret: str | None) -> Answer:
        """Send one encrypted request.

        :raises TransportError: nothing came back in time
        """
        headers = {"Content-Type": "application/json"}
        if app_secret is not None:
            headers["X-Hub-Signature-256"] = "sha256=" + hmac.new(app_secret.encode(), body, hashlib.sha256).hexdigest()
        return post(self.url, headers, body, timeout=self.timeout, tls=self.tls)

    def ping(self, rsa_key: t.Any, result: dict[str, t.Any]) -> None:
        """Ask for its health, and add what came of it to the result.

        :raises VerificationFailed: it did not answer as an endpoint that holds the private key
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
        """What comes back for a request that must be refused: ``http_status`` (None without an answer) and whether it was ``refused``."""
        try:
            status = self.post(make_ping(rsa_key).body, app_secret).status
        except TransportError as exc:
            return {"http_status": None, "refused": False, "msg": f"no answer: {exc}"}
        return {"http_status": status, "refused": status == expected}

    def _read(self, message: FlowMessage, answer: Answer) -> None:
        if len(answer.body) > MAX_BODY:
            raise self._failed("not_base64", "answered with more than a health check can have. Send the encrypted answer alone.")
        try:
            said = message.read(answer.body)
        except Unreadable as exc:
            raise self._failed(exc.cause, f"gave an answer that WhatsApp cannot read: {exc}.") from None
        data = said.get("data")
        status = data.get("status") if isinstance(data, dict) else None
        if status != "active":
            told = f"the status {shown(status, self.app_secret)!r}" if isinstance(status, str) else "no data.status"
            raise self._failed(
                "not_active",
                f'decrypts and encrypts well, but answered the health check with {told}. Let it answer {{"data": {{"status": "active"}}}} '
                'to the action "ping".',
            )

    def _refused(self, status: int) -> VerificationFailed:
        if status == _MISMATCH:
            return self._failed("key_mismatch", f"answered HTTP 421. {_KEY_REMEDY}")
        if status == _SIGNATURE:
            to_do = (
                "Check that app_secret is that of the app which the Flow's endpoint belongs to, here and there."
                if self.app_secret
                else "It checks X-Hub-Signature-256: give app_secret, so that the request is signed as WhatsApp signs it."
            )
            return self._failed("signature_refused", f"answered HTTP 432: it refused the signature. {to_do}")
        if 300 <= status < 400:
            return self._failed("redirect", f"answered with a redirect (HTTP {status}), which is not followed. Give the URL that it leads to.")
        to_do = _REMEDIES.get(status) or (_REMEDIES[500] if status > 500 else "WhatsApp needs HTTP 200 here.")
        return self._failed("http_status", f"answered HTTP {status}. {to_do}")

    def _failed(self, cause: str, what: str) -> VerificationFailed:
        # Without its query, where a token may stand.
        return VerificationFailed(f"The Flow endpoint {shown(self.url.partition('?')[0])} {what}", cause=cause)


def prove(params: t.Mapping[str, t.Any], *, check_mode: bool) -> dict[str, t.Any]:
    """Prove that the endpoint holds the private key, and return the task's result, ``warnings`` included.

    :param params: the module's options, None for what was not given
    :param check_mode: makes no difference, as nothing is changed
    :raises KaleyraError: with the result's facts in ``details``
    """
    require_range("timeout", params["timeout"], 1, MAX_TIMEOUT)
    split_url("url", params["url"], example="https://example.com/flows", unencrypted="is none that WhatsApp sends to")
    key = public_key_of(params)
    tls = Tls(params["validate_certs"], params["ca_path"])
    endpoint = FlowEndpoint(params["url"], params["app_secret"], params["timeout"], tls)
    result: dict[str, t.Any] = {
        "changed": False,
        "active": False,
        "fingerprint": key.fingerprint,
        "latency_ms": None,
        "http_status": None,
        "foreign_key": None,
        "wrong_signature": None,
    }
    warnings = []
    try:
        rsa_key = rsa_key_of(key)
        endpoint.ping(rsa_key, result)
        if result["latency_ms"] >= _SLOW_MS:
            warnings.append(
                f"The Flow endpoint took {result['latency_ms']} ms. Meta asks for less than {_SLOW_MS} ms, and throttles or blocks the Flows "
                "of slow endpoints."
            )
        result["foreign_key"] = endpoint.counter_check(make_foreign_rsa_key(), endpoint.app_secret, _MISMATCH)
        if not result["foreign_key"]["refused"]:
            warnings.append(
                f"The Flow endpoint does not refuse what it cannot decrypt: {_said(result['foreign_key'])} to a request under a foreign key, in "
                f"place of HTTP {_MISMATCH}. WhatsApp fetches a new public key only on {_MISMATCH}, so rotating the key would lose messages."
            )
        if endpoint.app_secret:
            result["wrong_signature"] = endpoint.counter_check(rsa_key, f"not {endpoint.app_secret}", _SIGNATURE)
            if not result["wrong_signature"]["refused"]:
                warnings.append(
                    f"The Flow endpoint does not check who asks: {_said(result['wrong_signature'])} to a request with a wrong signature, in place of "
                    f"HTTP {_SIGNATURE}. Have it check X-Hub-Signature-256 with the app secret."
                )
    except KaleyraError as exc:
        exc.details = {**result, **exc.details}
        raise
    return {**result, "warnings": warnings}


def _said(counter_check: dict[str, t.Any]) -> str:
    status = counter_check["http_status"]
    return f"HTTP {status}" if status else t.cast(str, counter_check["msg"])
