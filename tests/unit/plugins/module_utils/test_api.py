# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Calls of the API: what confirms success, what is tried again and after which pause, and what each failure means for the number."""

from __future__ import annotations

import email.utils
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._account import make_account
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._api import FlowsEncryptionApi
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._errors import ApiError, OutcomeUnknown, Rejected
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._http import MAX_BODY, Answer
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._rate_limit import RateLimiter
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._retry import pause_before_retry
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._steps import run_steps
from support.simulator.client import Simulator

NUMBER = "+919876543210"
SID, CLOSED_SID, API_KEY = "HXAP16TESTING97IN", "HXAP16CLOSED097IN", "A0b1C2d3E4+/f5G6=h7"
SUCCESS = {"code": "WA-200", "message": "Request Processed Successfully", "data": {"success": True}, "error": {}}

Fault = dict[str, Any]
Call = Callable[..., "dict[str, Any]"]


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were asked for, without waiting."""
    asked: list[float] = []
    monkeypatch.setattr(RateLimiter, "wait", lambda self, seconds=0.0: asked.append(seconds))
    return asked


@pytest.fixture
def call(simulator: Simulator, public_pem: Callable[[str], str]) -> Call:
    """Register a key, after ordering what the simulator is to answer, attempt by attempt."""

    def make(*faults: Fault, sid: str = SID, api_key: str = API_KEY, pem: str = "", path: str = "", retries: int = 0) -> dict[str, Any]:
        simulator.faults({NUMBER: faults})
        api = FlowsEncryptionApi(make_account(None, simulator.url + path, sid, api_key), 20, retries)
        return run_steps(api.set_public_key(NUMBER, pem or public_pem("rsa-2048").rstrip("\n")), api.rate_limiter)

    return make


def _answer(status: int, body: Any = "", **headers: str) -> Fault:
    return {"do": "answer", "status": status, "body": body, "headers": {name.replace("_", "-"): text for name, text in headers.items()}}


def _raw(text: str) -> Fault:
    return {"do": "raw", "bytes": text}


RESET, CLOSE, APPLIED_AND_RESET = {"do": "reset"}, {"do": "close"}, {"do": "reset", "apply": True}


def test_success_returns_its_facts(call: Call, simulator: Simulator, fingerprint: Callable[[str], str]) -> None:
    assert call() == {"attempts": 1, "http_status": 200, "code": "WA-200", "message": "Request Processed Successfully"}
    assert simulator.registered() == {SID: {NUMBER: fingerprint("rsa-2048")}}
    headers = simulator.requests()[0]["headers"]
    assert (headers["api-key"], headers["content-type"]) == (API_KEY, "application/x-www-form-urlencoded")


@pytest.mark.parametrize(
    "body",
    [
        *({"code": "WA-200", "data": {"success": True}}, {"code": "WA200", "data": {"success": True}}, {**SUCCESS, "error": None, "new": [1, 2]}),
        *({**SUCCESS, "message": {"en": "fine"}}, json.dumps(SUCCESS, indent=8) + "\r\n\r\n"),
    ],
    ids=str,
)
def test_success_may_have_other_fields(body: Any, call: Call) -> None:
    assert call(_answer(200, body))["attempts"] == 1


_TEXT = json.dumps(SUCCESS)
_OTHER_BODIES: list[Any] = ["", "OK", "<html>WA-200</html>", "null", "true", '"WA-200"', [SUCCESS], {}, {"code": "WA-200"}, {"data": SUCCESS}]


@pytest.mark.parametrize(
    "answer",
    [
        *(_answer(200, body) for body in _OTHER_BODIES),
        *(_answer(200, {**SUCCESS, "code": code}) for code in (None, "WA-201", "wa-200", " WA-200", 200, ["WA-200"], "WA-500")),
        *(_answer(200, {**SUCCESS, "data": data}) for data in (None, True, {}, [{"success": True}], "success", {"Success": True})),
        *(_answer(200, {**SUCCESS, "data": {"success": success}}) for success in (False, "true", 1)),
        *(_answer(200, body) for body in ('{"code": "WA-200"}', {"data": SUCCESS})),
        *(_answer(200, body) for body in (_TEXT[:-1], _TEXT + "}", _TEXT * 2, f")]}}'\n{_TEXT}", str(SUCCESS), "[" * 60_000, "9" * 60_000)),
        *(_answer(200, body) for body in ({**SUCCESS, "message": "x" * MAX_BODY}, _TEXT + " " * MAX_BODY + "<html>")),
        *(_raw('HTTP/1.1 200 OK\r\n\r\n{"code": "WA-200\xff"}'), {"do": "flood"}, {"do": "gzip_bomb"}),
        *(_answer(status, SUCCESS) for status in (201, 202, 204, 206)),
    ],
    ids=lambda answer: f"{answer.get('status', answer['do'])}-{str(answer.get('body'))[:60]}",
)
def test_unconfirmed_answer_is_unknown(answer: Fault, call: Call, simulator: Simulator) -> None:
    with pytest.raises(OutcomeUnknown) as caught:
        call(answer, retries=3)
    status = answer.get("status", 200)
    assert {name: caught.value.details[name] for name in ("outcome", "attempts", "http_status")} == {
        "outcome": "unknown", "attempts": 1, "http_status": status
    }
    message = str(caught.value)
    assert f"HTTP {status}" in message and ("did not confirm success" in message or status != 200)
    assert message.endswith("It may or may not have been applied. Run it again, which is harmless.")
    assert simulator.count() == 1


_UNAVAILABLE = "API is not available for given customer.Please contact support for more info"


@pytest.mark.parametrize(
    ("options", "status", "code", "message", "remedy"),
    [
        pytest.param({"api_key": "wrong"}, 401, "RBC001", "Incorrect SID or API key.", "Check sid and api_key", id="api-key"),
        pytest.param({"sid": "HXNOBODY"}, 401, "RBC001", "Incorrect SID or API key.", "Check sid and api_key", id="sid"),
        pytest.param({"sid": CLOSED_SID}, 401, "WA-401", _UNAVAILABLE, "Ask Kaleyra's support", id="closed-account"),
        pytest.param({"pem": "junk"}, 400, "WA-400", "Refer to correct payload format", "WABA is onboarded", id="payload"),
        pytest.param({"path": "/elsewhere"}, 404, None, None, "Check pod or api_url", id="not-found"),
    ],
)
def test_documented_refusal_is_final_and_has_its_remedy(
    options: dict[str, str], status: int, code: str | None, message: str | None, remedy: str, call: Call, simulator: Simulator
) -> None:
    with pytest.raises(Rejected) as caught:
        call(**options, retries=3)
    assert caught.value.details == {"outcome": "rejected", "attempts": 1, "http_status": status, "code": code, "message": message}
    text = str(caught.value)
    assert text.startswith(f"The key of {NUMBER} was not registered: ") and f"HTTP {status}" in text
    assert remedy in text and (message or "") in text
    assert text.endswith("The number keeps the key it had.")
    assert simulator.count() == 1 and simulator.registered() == {}


@pytest.mark.parametrize(
    ("status", "outcome", "remedy"),
    [
        *((status, Rejected, "") for status in (400, 405, 409, 413, 415, 422, 451)),
        (401, Rejected, "Check sid and api_key."),
        (403, Rejected, "this IP address may use the API"),
        (404, Rejected, "Check pod or api_url"),
        (407, Rejected, "user and password of the proxy"),
        (408, OutcomeUnknown, ""),  # only the server gave up
        *((status, OutcomeUnknown, "") for status in (501, 505, 599)),
        *((status, OutcomeUnknown, "which is not followed. Check pod or api_url.") for status in (301, 302, 303, 307, 308)),
    ],
)
def test_permanent_failure_is_not_retried(
    status: int, outcome: type[ApiError], remedy: str, call: Call, simulator: Simulator, pauses: list[float]
) -> None:
    with pytest.raises(outcome) as caught:
        call(_answer(status, SUCCESS if status == 400 else "<html>", Location="https://evil.example/"), retries=3)
    assert caught.value.details["attempts"] == simulator.count() == 1 and pauses == []
    assert remedy in str(caught.value) and "evil" not in str(caught.value) and "  " not in str(caught.value)


@pytest.mark.parametrize(
    "body", [*({"code": value, "message": value} for value in (None, 7, True, ["x"], {"x": 1})), {"code": "WA-400"}, {"code": "WA400"}], ids=str
)
def test_code_counts_if_it_is_text(body: dict[str, Any], call: Call) -> None:
    with pytest.raises(Rejected) as caught:
        call(_answer(400, body))
    code = body["code"] if isinstance(body["code"], str) else None
    assert (caught.value.details["code"], caught.value.details["message"]) == (code, None)
    assert ("its WABA is onboarded" in str(caught.value)) is (code is not None)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        *((_answer(status), "again after 5, 10 and 15 minutes, and then contacting its support") for status in (429, 500, 502, 503, 504)),
        (RESET, "gave no answer: Connection reset by peer. Check pod or api_url, the network and the proxy settings in the environment."),
        (CLOSE, "gave no answer: "),
        (_raw("nonsense"), "gave no answer: "),
        (_raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}"), "gave no answer: the answer was truncated."),
    ],
    ids=lambda value: str(value)[:40],
)
def test_temporary_failure_is_retried(fault: Fault, said: str, call: Call, simulator: Simulator, pauses: list[float]) -> None:
    sent = 0
    for retries in (0, 3):
        pauses.clear()
        with pytest.raises(ApiError) as caught:
            call({**fault, "always": True}, retries=retries)
        sent += retries + 1
        assert (simulator.count(), caught.value.details["attempts"], len(pauses)) == (sent, retries + 1, retries)
        assert said in str(caught.value) and ("(4 attempts)" in str(caught.value)) is (retries == 3)
        assert caught.value.details.get("http_status") == fault.get("status")


@pytest.mark.parametrize(("faults", "attempts"), [([_answer(500)] * 2, 3), ([RESET, _answer(429), CLOSE], 4), ([APPLIED_AND_RESET], 2)], ids=str)
def test_success_after_failures_is_a_success(
    faults: list[Fault], attempts: int, call: Call, simulator: Simulator, fingerprint: Callable[[str], str]
) -> None:
    assert call(*faults, retries=3)["attempts"] == attempts
    assert simulator.registered() == {SID: {NUMBER: fingerprint("rsa-2048")}}


@pytest.mark.parametrize(
    ("faults", "outcome"),
    [
        pytest.param([_answer(429)] * 4, Rejected, id="throttled-to-the-end"),
        pytest.param([_answer(429), _answer(401)], Rejected, id="throttled-then-refused"),
        pytest.param([_answer(500), _answer(401)], OutcomeUnknown, id="500-then-refused"),
        pytest.param([_answer(429), RESET, _answer(401)], OutcomeUnknown, id="reset-among-throttling"),
        pytest.param([_answer(429), _answer(503), _answer(429), _answer(429)], OutcomeUnknown, id="503-among-throttling"),
        pytest.param([CLOSE, _answer(400)], OutcomeUnknown, id="closed-then-refused"),
        pytest.param([APPLIED_AND_RESET, _answer(400)], OutcomeUnknown, id="applied-then-refused"),
        pytest.param([_answer(429), _answer(200, {})], OutcomeUnknown, id="throttled-then-unconfirmed"),
        pytest.param([_answer(429), _answer(302)], OutcomeUnknown, id="throttled-then-redirect"),
        pytest.param([_answer(504)] * 4, OutcomeUnknown, id="504-to-the-end"),
    ],
)
def test_rejected_means_that_no_attempt_was_applied(faults: list[Fault], outcome: type[ApiError], call: Call, simulator: Simulator) -> None:
    with pytest.raises(outcome) as caught:
        call(*faults, retries=3)
    assert caught.value.details["attempts"] == len(faults) == simulator.count()
    assert caught.value.details["outcome"] == outcome.outcome
    assert ("keeps the key it had" in str(caught.value)) == (outcome is Rejected)
    assert ("may or may not have been applied" in str(caught.value)) == (outcome is OutcomeUnknown)
    assert ("fewer forks" in str(caught.value)) == (caught.value.details.get("http_status") == 429)


def test_all_attempts_and_pauses_have_a_longest_time() -> None:
    account = make_account("in", None, SID, API_KEY)
    assert FlowsEncryptionApi(account, 30, 3).longest() == 7 * 30  # 4 attempts, 3 pauses
    assert FlowsEncryptionApi(account, 5, 0).longest() == 5


def test_server_asks_for_the_pause_or_it_grows(call: Call, pauses: list[float]) -> None:
    call(_answer(503, "", Retry_After="3"), retries=1)
    assert pauses == [3]
    pauses.clear()
    with pytest.raises(OutcomeUnknown):
        call({**_answer(500), "always": True}, retries=7)
    for number, pause in enumerate(pauses):
        assert min(20, 2**number / 2) <= pause <= min(20, 2**number)
    assert pauses[-1] == 20  # the timeout
    assert len({pause_before_retry(1, Answer(429, b""), 20) for dummy in range(5)}) == 5  # processes come back apart
    assert all(0.5 <= pause_before_retry(attempt, None, 30) <= 30 for attempt in (1, 2, 10, 100, 10_000))


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("retry_after", "pause"),
    [
        *(("0", 0), ("3", 3), ("007", 7), ("20", 20), ("86400", 20), ("9" * 500, 20)),
        *(("Wed, 21 Oct 2015 07:28:00 GMT", 0), ("Fri, 31 Dec 9999 23:59:59 GMT", 20)),
        *((text, None) for text in ("", "soon", "-5", "1.5", "1e3", "inf", "nan", "5, 7", "\u00b2", "0x10")),
        *((text, None) for text in ("Wed, 21 Oct", "Wed, 99 Oct 2015 07:28:00 GMT", "Fri, 31 Dec 99999 23:59:59 GMT")),
    ],
    ids=lambda value: str(value)[:40],
)
def test_retry_after_is_followed_within_reason(retry_after: str, pause: float | None, status: int) -> None:
    asked = pause_before_retry(1, Answer(status, b"", retry_after), 20)
    if pause is None or (not pause and status == 429):  # to come back at once is what got it refused
        assert 0.5 <= asked <= 1
    else:
        assert asked == pause


def test_retry_after_can_be_a_date(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_800_000_000.0
    monkeypatch.setattr(time, "time", lambda: now)
    assert pause_before_retry(1, Answer(429, b"", email.utils.formatdate(now + 10, usegmt=True)), 20) == 10


def _assert_no_secret_in(text: str) -> None:
    # Nor a part of it that would help anybody.
    for begin in range(len(API_KEY) - 5):
        assert API_KEY[begin : begin + 6] not in text


@pytest.mark.parametrize(
    "fault",
    [
        *(pytest.param({"do": "echo", "status": status}, id=f"echo-{status}") for status in (200, 302, 400, 401, 408, 429, 500)),
        pytest.param({**_answer(400), "reason": API_KEY}, id="reason"),
        pytest.param(_answer(302, "", Location=f"https://evil.example/{API_KEY}"), id="location"),
        pytest.param(_answer(429, "", Retry_After=API_KEY), id="retry-after"),
        pytest.param(_answer(400, {"code": API_KEY, "message": API_KEY * 9}), id="code-and-message"),
        pytest.param(_answer(400, json.dumps({"message": API_KEY}).replace("A0b1", "\\u00410b1")), id="escaped"),
        pytest.param(_answer(400, {"message": {"key": API_KEY}, "code": [API_KEY], "error": API_KEY, API_KEY: 1}), id="elsewhere"),
        *(
            pytest.param(_answer(400, {"code": "x" * before + API_KEY, "message": "y" * before + API_KEY + "z"}), id=f"cut-after-{before}")
            for before in range(200 - len(API_KEY) - 1, 202)
        ),
        pytest.param(_raw(f"{API_KEY}\r\n\r\n"), id="instead-of-http"),
        pytest.param(_raw(f"HTTP/1.1 {API_KEY} OK\r\n\r\n"), id="instead-of-the-status"),
        pytest.param(_raw(f"HTTP/1.1 200 OK\r\nContent-Length: 1, {API_KEY}\r\n\r\n"), id="in-the-length"),
        pytest.param(_raw(f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{API_KEY}\r\n"), id="instead-of-a-chunk"),
        pytest.param(_raw(f"HTTP/1.1 200 OK\r\nContent-Encoding: {API_KEY}\r\n\r\nx"), id="in-the-encoding"),
    ],
)
def test_echoed_api_key_is_not_shown(fault: Fault, call: Call, simulator: Simulator) -> None:
    with pytest.raises(ApiError) as caught:
        call(fault)
    assert simulator.count() == 1
    _assert_no_secret_in(f"{caught.value} {caught.value!r} {caught.value.details}")


def test_echoed_api_key_in_a_success_is_not_shown(call: Call) -> None:
    assert call(_answer(200, {**SUCCESS, "message": f"Key set with {API_KEY}"}))["message"] == "Key set with ********"


_LONG = "a\x1b[31m\r\nb\x00\u202e\u2028c" + "d" * 10_000


@pytest.mark.parametrize("fault", [_answer(400, {"code": _LONG, "message": _LONG}), _raw(f"\x1b[31m{'x' * 60_000}\r\n\r\n")], ids=["json", "raw"])
def test_text_of_a_server_is_short_and_printable(fault: Fault, call: Call) -> None:
    with pytest.raises(ApiError) as caught:
        call(fault)
    details = caught.value.details
    assert str(caught.value).isprintable() and len(str(caught.value)) < 1000
    assert all(details[name].isprintable() and len(details[name]) == 200 for name in ("code", "message") if name in details)
