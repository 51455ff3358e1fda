# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The part of Kaleyra's WhatsApp Flow API v2 that this collection uses."""

from __future__ import annotations

import dataclasses
import functools
import time
import typing as t
from urllib.parse import urlencode

from ._account import Account
from ._errors import OutcomeUnknown, Rejected
from ._http import Answer, Tls, TransportError, UntrustedCertificate, WrongCertificate, post, prepare, shown
from ._json import parse_object
from ._rate_limit import RateLimiter
from ._retry import RETRIED_STATUSES, asked_pause, longest, pause_before_retry
from ._steps import Pause, Steps

_WHAT_TO_DO = {
    "RBC001": "Check sid and api_key, and that the account belongs to this API host (pod or api_url).",
    "WA401": "Ask Kaleyra's support to enable the API for this account: it needs an active WhatsApp plan, and the number's WABA on API v2.",
    "WA400": "Check that the number is registered and its WABA is onboarded on Kaleyra's WhatsApp API v2.",
    401: "Check sid and api_key.",
    403: "Check sid and api_key, and that this IP address may use the API.",
    404: "Check pod or api_url.",
    407: "Check the user and password of the proxy in the environment.",
    429: "The rate of the account is limited: run it again later, or at a lower rate (max_requests_per_second for a list, fewer forks for hosts).",
}
_WHEN_IT_LASTS = "Kaleyra advises trying again after 5, 10 and 15 minutes, and then contacting its support."
_HARMLESS = "It may or may not have been applied. Run it again, which is harmless."


@dataclasses.dataclass(frozen=True)
class FlowsEncryptionApi:
    """Registers business public keys.

    :param timeout: seconds for one attempt as a whole
    :param retries: further attempts after a failure that may be temporary
    :param rate_limiter: is notified of what the account refuses
    """

    account: Account
    timeout: int = 30
    retries: int = 3
    tls: Tls = Tls()
    rate_limiter: RateLimiter = dataclasses.field(default_factory=RateLimiter)

    def prepare(self) -> None:
        """Load what the first call needs, before many calls are made at once.

        :raises InvalidInput: ``tls.ca_path`` cannot be used
        :raises MissingLibrary: requests cannot be imported
        """
        prepare(self.account.base_url, self.tls)

    def set_public_key(self, phone_number: str, pem: str) -> Steps[dict[str, t.Any]]:
        """Register the key, an attempt a step, and return ``attempts`` (requests sent), ``http_status``, ``code`` and ``message`` of the answer.

        :raises Rejected: every attempt was refused, the number keeps the key it had
        :raises OutcomeUnknown: at least one attempt may have been applied
        :raises InvalidInput: ``tls.ca_path`` cannot be used
        :raises MissingLibrary: requests cannot be imported
        :source: Kaleyra, "Set Encryption Public Key" (WhatsApp Flow API v2)
        """
        maybe_applied = False
        attempt = 0
        facts: dict[str, t.Any] = {}
        happened = f"the account's limit has refused every request for {self.longest()} seconds, so that this number's was not sent."
        to_do = _WHAT_TO_DO[429]
        while not self.rate_limiter.is_blocked:
            attempt += 1
            answer: Answer | None = None
            facts = {}
            started = time.monotonic()
            try:
                answer = self._post(phone_number, pem)
            except TransportError as exc:
                happened, to_do = f"{self.account.api} gave no answer: {exc}.", _remedy_without_answer(exc)
            else:
                facts, success = self._read(answer)
                if answer.status < 500 and answer.status != 429:
                    self.rate_limiter.accepted()
                if success:
                    return {"attempts": attempt, **facts}
                happened, to_do = self._describe(answer, facts), _remedy(answer, facts)
            maybe_applied = maybe_applied or answer is None or not _is_refusal(answer)
            pause = pause_before_retry(attempt, answer, self.timeout)
            if answer and answer.status == 429:
                self.rate_limiter.refused(asked_pause(answer, self.timeout), started)
            if attempt > self.retries or not (answer is None or answer.status in RETRIED_STATUSES):
                break
            yield Pause(pause)
        tries = f" ({attempt} attempts)" if attempt > 1 else ""
        consequence = _HARMLESS if maybe_applied else "The number keeps the key it had."
        raise (OutcomeUnknown if maybe_applied else Rejected)(
            " ".join(filter(None, [f"The key of {phone_number} was not registered{tries}: {happened}", to_do, consequence])),
            attempts=attempt,
            **facts,
        )

    def longest(self) -> int:
        """Seconds within which :meth:`set_public_key` always ends, if no other number waits for its turn."""
        return longest(self.timeout, self.retries)

    def _post(self, phone_number: str, pem: str) -> Answer:
        headers = {
            "api-key": self.account.api_key,
            "Content-Type": "application/x-www-form-urlencoded",  # the only type that the API allows
            "Accept": "application/json",
        }
        return post(self.account.url(phone_number), headers, _form(pem), timeout=self.timeout, tls=self.tls)

    def _read(self, answer: Answer) -> tuple[dict[str, t.Any], bool]:
        """Return the answer's public facts, and whether it confirms success."""
        content = parse_object(answer.body) or {}
        data = content.get("data")
        success = (
            answer.status == 200
            and content.get("code") in ("WA-200", "WA200")  # Kaleyra's documentation has both spellings
            and isinstance(data, dict)
            and data.get("success") is True
        )
        return {
            "http_status": answer.status,
            "code": self._shown(content.get("code")),
            "message": self._shown(content.get("message")),
        }, success

    def _shown(self, value: t.Any) -> str | None:
        return shown(value, self.account.api_key) if isinstance(value, str) else None

    def _describe(self, answer: Answer, facts: dict[str, t.Any]) -> str:
        if answer.status == 200:
            what = f"{self.account.api} answered HTTP 200, but did not confirm success"
        elif 300 <= answer.status < 400:
            what = f"{self.account.api} answered with a redirect (HTTP {answer.status}), which is not followed"
        else:
            what = f"{self.account.api} answered HTTP {answer.status}"
        text = ", ".join(filter(None, [facts["code"], facts["message"]]))
        return f"{what} ({text})." if text else f"{what}."


@functools.lru_cache(maxsize=4)
def _form(pem: str) -> bytes:
    return urlencode({"business_public_key": pem}).encode()


def _is_refusal(answer: Answer) -> bool:
    """Whether the API certainly did not apply the request. 408 only means that the server gave up."""
    return 400 <= answer.status < 500 and answer.status != 408


def _remedy(answer: Answer, facts: dict[str, t.Any]) -> str:
    if 300 <= answer.status < 400:
        return "Check pod or api_url."
    code = (facts["code"] or "").replace("WA-", "WA", 1)
    advice = _WHEN_IT_LASTS if answer.status in RETRIED_STATUSES else None
    return " ".join(filter(None, [_WHAT_TO_DO.get(code) or _WHAT_TO_DO.get(answer.status), advice]))


def _remedy_without_answer(error: TransportError) -> str:
    if isinstance(error, WrongCertificate):
        return "Check pod or api_url, and the clock of this machine."
    if isinstance(error, UntrustedCertificate):
        return "If the certificate authority is private, set ca_path."
    return "Check pod or api_url, the network and the proxy settings in the environment."
