# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

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
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._http import MAX_BODY
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._rate_limit import RateLimiter
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._retry import pause_before_retry
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._steps import run_steps
from support.simulator.client import Simulator

NUMBER = "+919876543210"
SID, CLOSED_SID, API_KEY = "HXAP16TESTING97IN", "HXAP16CLOSED097IN", "A0b1C2d3E4+/f5G6=h7"
SUCCESS = {"code": "WA-200", "message": "Request Processed Successfully", "data": {"success": True}, "error": {}}

Fault = dict[str, Any]


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses asked for, which nobody waits for here. They are what is under test, not the sleeping."""
    asked: list[float] = []
    monkeypatch.setattr(RateLimiter, "wait", lambda self, seconds=0.0: asked.append(seconds))
    return asked


Call = Callable[..., dict[str, Any]]


@pytest.fixture
def call(simulator: Simulator, public_pem: Callable[[str], str]) -> Call:
    """Register a key, after ordering what the simulator is to answer, attempt by attempt."""

    def make(
        *faults: Fault, sid: str = SID, api_key: str = API_KEY, pem: str = "", path: str = "", retries: int = 0, timeout: int = 20
    ) -> dict[str, Any]:
        simulator.faults({NUMBER: faults})
        account = make_account(None, simulator.url + path, sid, api_key)
        api = FlowsEncryptionApi(account, timeout, retries)
        return run_steps(api.set_public_key(NUMBER, pem or public_pem("rsa-2048").rstrip("\n")), api.rate_limiter)

    return make


def _answer(status: int, body: Any = "", **headers: str) -> Fault:
    return {"do": "answer", "status": status, "body": body, "headers": {name.replace("_", "-"): text for name, text in headers.items()}}


# --- success ----------------------------------------------------------------------------------------------------------


def test_success_is_returned_with_its_facts(call: Call, simulator: Simulator, fingerprint: Callable[[str], str]) -> None:
    assert call() == {"attempts": 1, "http_status": 200, "code": "WA-200", "message": "Request Processed Successfully"}
    assert simulator.registered() == {SID: {NUMBER: fingerprint("rsa-2048")}}
    headers = simulator.requests()[0]["headers"]
    assert headers["api-key"] == API_KEY
    assert headers["content-type"] == "application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"code": "WA-200", "data": {"success": True}}, id="without-what-is-not-needed"),
        pytest.param({"code": "WA200", "data": {"success": True}}, id="code-without-hyphen"),
        pytest.param({**SUCCESS, "error": None, "new": [1, 2]}, id="with-more-than-is-known"),
        pytest.param({**SUCCESS, "message": {"en": "fine"}}, id="message-of-another-type"),
        pytest.param(json.dumps(SUCCESS, indent=8) + "\r\n\r\n", id="indented"),
    ],
)
def test_reading_tolerates_unknown_fields(body: Any, call: Call) -> None:
    assert call(_answer(200, body))["attempts"] == 1


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(_answer(200, ""), id="empty"),
        pytest.param(_answer(200, "OK"), id="text"),
        pytest.param(_answer(200, "<html>WA-200</html>"), id="html"),
        pytest.param(_answer(200, "null"), id="null"),
        pytest.param(_answer(200, "true"), id="true"),
        pytest.param(_answer(200, '"WA-200"'), id="string"),
        pytest.param(_answer(200, [SUCCESS]), id="list"),
        pytest.param(_answer(200, {}), id="empty-object"),
        pytest.param(_answer(200, {**SUCCESS, "code": None}), id="no-code"),
        pytest.param(_answer(200, {**SUCCESS, "code": "WA-201"}), id="other-code"),
        pytest.param(_answer(200, {**SUCCESS, "code": "wa-200"}), id="code-in-small-letters"),
        pytest.param(_answer(200, {**SUCCESS, "code": " WA-200"}), id="code-with-blank"),
        pytest.param(_answer(200, {**SUCCESS, "code": 200}), id="code-as-number"),
        pytest.param(_answer(200, {**SUCCESS, "code": ["WA-200"]}), id="code-in-list"),
        pytest.param(_answer(200, {**SUCCESS, "code": "WA-500"}), id="code-of-an-error"),
        pytest.param(_answer(200, {"code": "WA-200"}), id="no-data"),
        pytest.param(_answer(200, {**SUCCESS, "data": None}), id="data-null"),
        pytest.param(_answer(200, {**SUCCESS, "data": True}), id="data-true"),
        pytest.param(_answer(200, {**SUCCESS, "data": {}}), id="data-empty"),
        pytest.param(_answer(200, {**SUCCESS, "data": [{"success": True}]}), id="data-list"),
        pytest.param(_answer(200, {**SUCCESS, "data": "success"}), id="data-text"),
        pytest.param(_answer(200, {**SUCCESS, "data": {"success": False}}), id="success-false"),
        pytest.param(_answer(200, {**SUCCESS, "data": {"success": "true"}}), id="success-as-text"),
        pytest.param(_answer(200, {**SUCCESS, "data": {"success": 1}}), id="success-as-number"),
        pytest.param(_answer(200, {**SUCCESS, "data": {"Success": True}}), id="success-in-capitals"),
        pytest.param(_answer(200, {"data": SUCCESS}), id="one-level-too-deep"),
        pytest.param(_answer(200, json.dumps(SUCCESS)[:-1]), id="cut-off"),
        pytest.param(_answer(200, json.dumps(SUCCESS) + "}"), id="something-behind"),
        pytest.param(_answer(200, json.dumps(SUCCESS) * 2), id="twice"),
        pytest.param(_answer(200, ")]}'\n" + json.dumps(SUCCESS)), id="something-before"),
        pytest.param(_answer(200, str(SUCCESS)), id="python-not-json"),
        pytest.param(_answer(200, "[" * 60_000), id="deeply-nested"),
        pytest.param(_answer(200, "9" * 60_000), id="long-number"),
        pytest.param(_answer(200, {**SUCCESS, "message": "x" * MAX_BODY}), id="too-long"),
        # Whatever follows, it is not JSON as a whole.
        pytest.param(_answer(200, json.dumps(SUCCESS) + " " * MAX_BODY + "<html>"), id="something-behind-many-blanks"),
        pytest.param({"do": "raw", "bytes": 'HTTP/1.1 200 OK\r\n\r\n{"code": "WA-200\xff"}'}, id="not-utf-8"),
        pytest.param({"do": "flood"}, id="flood"),
        pytest.param({"do": "gzip_bomb"}, id="gzip-bomb"),
        pytest.param(_answer(201, SUCCESS), id="201"),
        pytest.param(_answer(202, SUCCESS), id="202"),
        pytest.param(_answer(204), id="204"),
        pytest.param(_answer(206, SUCCESS), id="206"),
    ],
)
def test_unconfirmed_answer_is_unknown(answer: Fault, call: Call, simulator: Simulator) -> None:
    with pytest.raises(OutcomeUnknown) as caught:
        call(answer, retries=3)
    assert caught.value.details["outcome"] == "unknown"
    assert caught.value.details["attempts"] == 1
    assert caught.value.details["http_status"] == answer.get("status", 200)
    message = str(caught.value)
    assert "did not confirm success" in message or f"HTTP {answer['status']}" in message
    assert message.endswith("It may or may not have been applied. Run it again, which is harmless.")
    assert simulator.count() == 1


def test_a_success_under_the_status_of_an_error_is_none(call: Call) -> None:
    with pytest.raises(Rejected):
        call(_answer(400, SUCCESS))


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "status", "code", "message", "remedy"),
    [
        pytest.param({"api_key": "wrong"}, 401, "RBC001", "Incorrect SID or API key.", "Check sid and api_key", id="api-key"),
        pytest.param({"sid": "HXNOBODY"}, 401, "RBC001", "Incorrect SID or API key.", "Check sid and api_key", id="sid"),
        pytest.param(
            {"sid": CLOSED_SID},
            401,
            "WA-401",
            "API is not available for given customer.Please contact support for more info",
            "Ask Kaleyra's support",
            id="closed-account",
        ),
        pytest.param({"pem": "junk"}, 400, "WA-400", "Refer to correct payload format", "WABA is onboarded", id="payload"),
        pytest.param({"path": "/elsewhere"}, 404, None, None, "Check pod or api_url", id="not-found"),
    ],
)
def test_a_documented_refusal_is_final_and_says_what_to_do(
    options: dict[str, str], status: int, code: str | None, message: str | None, remedy: str, call: Call, simulator: Simulator
) -> None:
    with pytest.raises(Rejected) as caught:
        call(**options, retries=3)
    assert caught.value.details == {"outcome": "rejected", "attempts": 1, "http_status": status, "code": code, "message": message}
    text = str(caught.value)
    assert text.startswith(f"The key of {NUMBER} was not registered: ") and f"HTTP {status}" in text
    assert remedy in text and (message or "") in text
    assert text.endswith("The number keeps the key it had.")
    assert simulator.count() == 1
    assert simulator.registered() == {}


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (400, ""),
        (401, "Check sid and api_key."),
        (403, "this IP address may use the API"),
        (404, "Check pod or api_url"),
        (405, ""),
        (407, "user and password of the proxy"),
        (409, ""),
        (413, ""),
        (415, ""),
        (422, ""),
        (451, ""),
    ],
)
def test_any_other_4xx_is_a_refusal_too(status: int, remedy: str, call: Call, simulator: Simulator) -> None:
    with pytest.raises(Rejected) as caught:
        call(_answer(status, "<html>"), retries=3)
    assert caught.value.details == {"outcome": "rejected", "attempts": 1, "http_status": status, "code": None, "message": None}
    assert remedy in str(caught.value) and "  " not in str(caught.value)
    assert simulator.count() == 1


def test_throttling_to_the_end_is_a_refusal_with_advice(call: Call) -> None:
    with pytest.raises(Rejected, match="fewer forks") as caught:
        call(*[_answer(429)] * 2, retries=1)
    assert caught.value.details["attempts"] == 2
    assert "(2 attempts)" in str(caught.value)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_and_named(status: int, call: Call, simulator: Simulator) -> None:
    with pytest.raises(OutcomeUnknown, match=rf"redirect \(HTTP {status}\), which is not followed.* Check pod or api_url\.") as caught:
        call(_answer(status, "", Location="https://evil.example/"), retries=3)
    assert "evil" not in str(caught.value)
    assert simulator.count() == 1


# --- attempts ---------------------------------------------------------------------------------------------------------

RESET, CLOSE = {"do": "reset"}, {"do": "close"}


@pytest.mark.parametrize("retries", [0, 1, 3])
@pytest.mark.parametrize(
    "fault",
    [
        *(pytest.param(_answer(status), id=str(status)) for status in (429, 500, 502, 503, 504)),
        pytest.param(RESET, id="reset"),
        pytest.param({"do": "reset", "unread": True}, id="reset-before-reading"),
        pytest.param(CLOSE, id="close"),
        pytest.param({"do": "raw", "bytes": "nonsense"}, id="not-http"),
        pytest.param({"do": "raw", "bytes": "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}"}, id="cut-off"),
    ],
)
def test_temporary_failure_is_retried_as_often_as_asked(
    fault: Fault, retries: int, call: Call, simulator: Simulator, pauses: list[float]
) -> None:
    with pytest.raises(ApiError) as caught:
        call({**fault, "always": True}, retries=retries)
    assert simulator.count() == retries + 1
    assert caught.value.details["attempts"] == retries + 1
    assert len(pauses) == retries


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 409, 302, 501, 505, 599])
def test_what_will_not_pass_is_not_tried_again(status: int, call: Call, simulator: Simulator, pauses: list[float]) -> None:
    with pytest.raises(ApiError):
        call(_answer(status), retries=3)
    assert simulator.count() == 1
    assert pauses == []


def test_an_attempt_that_hangs_is_tried_again(call: Call, simulator: Simulator) -> None:
    assert call({"do": "hang"}, timeout=1, retries=1)["attempts"] == 2
    assert simulator.count() == 2


@pytest.mark.parametrize(
    ("faults", "attempts"),
    [
        pytest.param([_answer(500), _answer(500)], 3, id="500-twice"),
        pytest.param([RESET, _answer(429), CLOSE], 4, id="all-sorts"),
        pytest.param([{"do": "reset", "apply": True}], 2, id="applied-but-the-answer-lost"),
    ],
)
def test_a_success_after_failures_is_a_success(
    faults: list[Fault], attempts: int, call: Call, simulator: Simulator, fingerprint: Callable[[str], str]
) -> None:
    assert call(*faults, retries=3) == {
        "attempts": attempts, "http_status": 200, "code": "WA-200",
        "message": "Request Processed Successfully",
    }
    assert simulator.registered() == {SID: {NUMBER: fingerprint("rsa-2048")}}


@pytest.mark.parametrize(
    ("faults", "outcome", "attempts"),
    [
        pytest.param([_answer(429)] * 4, Rejected, 4, id="throttled-to-the-end"),
        pytest.param([_answer(429), _answer(401)], Rejected, 2, id="throttled-then-refused"),
        pytest.param([_answer(500), _answer(401)], OutcomeUnknown, 2, id="500-then-refused"),
        pytest.param([_answer(429), RESET, _answer(401)], OutcomeUnknown, 3, id="reset-among-throttling"),
        pytest.param([_answer(429), _answer(503), _answer(429), _answer(429)], OutcomeUnknown, 4, id="503-among-throttling"),
        pytest.param([CLOSE, _answer(400)], OutcomeUnknown, 2, id="closed-then-refused"),
        pytest.param([{"do": "reset", "apply": True}, _answer(400)], OutcomeUnknown, 2, id="really-applied-then-refused"),
        pytest.param([_answer(429), _answer(200, {})], OutcomeUnknown, 2, id="throttled-then-no-proof"),
        pytest.param([_answer(429), _answer(302)], OutcomeUnknown, 2, id="throttled-then-redirect"),
        pytest.param([_answer(500)] * 4, OutcomeUnknown, 4, id="500-to-the-end"),
        pytest.param([_answer(504)] * 4, OutcomeUnknown, 4, id="504-to-the-end"),
        pytest.param([RESET] * 4, OutcomeUnknown, 4, id="reset-to-the-end"),
        pytest.param([_answer(408)], OutcomeUnknown, 1, id="408-says-only-that-the-server-gave-up"),
        pytest.param([_answer(501)], OutcomeUnknown, 1, id="501"),
    ],
)
def test_rejected_means_that_no_attempt_was_applied(
    faults: list[Fault], outcome: type[ApiError], attempts: int, call: Call, simulator: Simulator
) -> None:
    with pytest.raises(outcome) as caught:
        call(*faults, retries=3)
    assert caught.value.details["attempts"] == attempts == simulator.count()
    assert caught.value.details["outcome"] == ("rejected" if outcome is Rejected else "unknown")
    assert ("keeps the key it had" in str(caught.value)) == (outcome is Rejected)
    assert ("may or may not have been applied" in str(caught.value)) == (outcome is OutcomeUnknown)


def test_no_answer_names_the_cause_and_what_to_check(call: Call, simulator: Simulator) -> None:
    with pytest.raises(OutcomeUnknown) as caught:
        call(RESET)
    assert str(caught.value).startswith(
        f"The key of {NUMBER} was not registered: {simulator.url[7:]} gave no answer: Connection reset by peer. "
        "Check pod or api_url, the network and the proxy settings in the environment. It may or may not"
    )
    assert caught.value.details == {"outcome": "unknown", "attempts": 1}


# --- pauses -----------------------------------------------------------------------------------------------------------


def test_pauses_grow_scattered_and_never_beyond_the_timeout(call: Call, pauses: list[float]) -> None:
    with pytest.raises(OutcomeUnknown):
        call({**_answer(500), "always": True}, retries=7, timeout=20)
    for number, pause in enumerate(pauses):
        assert min(20, 2**number / 2) <= pause <= min(20, 2**number)
    assert pauses[-1] == 20


def test_throttled_processes_come_back_apart(call: Call, pauses: list[float]) -> None:
    for dummy in range(5):
        call(_answer(429), retries=1)
    assert len(set(pauses)) == 5


@pytest.mark.parametrize("attempt", [1, 2, 10, 100, 1_000, 10_000])
def test_any_number_of_attempts_has_a_pause(attempt: int) -> None:
    assert 0.5 <= pause_before_retry(attempt, None, 30) <= 30


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("retry_after", "pause"),
    [
        pytest.param("0", 0, id="now"),
        pytest.param("3", 3, id="seconds"),
        pytest.param("007", 7, id="seconds-with-zeros"),
        pytest.param("20", 20, id="as-long-as-the-timeout"),
        pytest.param("86400", 20, id="a-day"),
        pytest.param("9" * 500, 20, id="more-than-a-float-holds"),
        pytest.param("Wed, 21 Oct 2015 07:28:00 GMT", 0, id="date-in-the-past"),
        pytest.param("Fri, 31 Dec 9999 23:59:59 GMT", 20, id="date-far-away"),
    ],
)
def test_retry_after_is_waited_for_within_reason(
    retry_after: str, pause: float, status: int, call: Call, pauses: list[float]
) -> None:
    assert call(_answer(status, "", Retry_After=retry_after), retries=1, timeout=20)["attempts"] == 2
    if status == 429 and not pause:  # to come back at once is what got it refused
        assert 0.5 <= pauses[0] <= 1
    else:
        assert pauses == [pause]


def test_a_date_to_come_is_waited_for(call: Call, pauses: list[float]) -> None:
    date = email.utils.formatdate(time.time() + 10, usegmt=True)
    call(_answer(429, "", Retry_After=date), retries=1, timeout=20)
    # Some seconds go by on a busy machine.
    assert 4 < pauses[0] <= 10


@pytest.mark.parametrize(
    "retry_after",
    [
        *("", "soon", "-5", "1.5", "1e3", "inf", "nan", "5, 7", "\u00b2", "0x10"),
        *("Wed, 21 Oct", "Wed, 99 Oct 2015 07:28:00 GMT", "Fri, 31 Dec 99999 23:59:59 GMT"),
    ],
)
def test_nonsense_in_retry_after_is_as_good_as_nothing(retry_after: str, call: Call, pauses: list[float]) -> None:
    call(_answer(429, "", Retry_After=retry_after), retries=1)
    assert len(pauses) == 1 and 0.5 <= pauses[0] <= 1


def test_the_longest_that_all_attempts_can_take() -> None:
    account = make_account("in", None, SID, API_KEY)
    assert FlowsEncryptionApi(account, 30, 3).longest() == 7 * 30  # 4 attempts, 3 pauses
    assert FlowsEncryptionApi(account, 5, 0).longest() == 5


# --- what is shown ----------------------------------------------------------------------------------------------------


def _shown(error: ApiError) -> str:
    return f"{error} {error!r} {error.details}"


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
        pytest.param(_answer(400, {"message": {"key": API_KEY}, "code": [API_KEY]}), id="in-other-types"),
        pytest.param(_answer(400, {"error": API_KEY, API_KEY: 1}), id="elsewhere"),
        pytest.param({"do": "raw", "bytes": f"{API_KEY}\r\n\r\n"}, id="in-place-of-http"),
        pytest.param({"do": "raw", "bytes": f"HTTP/1.1 {API_KEY} OK\r\n\r\n"}, id="in-place-of-the-status"),
        pytest.param({"do": "raw", "bytes": f"HTTP/1.1 200 OK\r\nContent-Length: 1, {API_KEY}\r\n\r\n"}, id="in-the-length"),
        pytest.param({"do": "raw", "bytes": f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{API_KEY}\r\n"}, id="in-place-of-a-chunk"),
        pytest.param({"do": "raw", "bytes": f"HTTP/1.1 200 OK\r\nContent-Encoding: {API_KEY}\r\n\r\nx"}, id="in-the-encoding"),
    ],
)
def test_an_api_key_that_the_server_echoes_is_not_shown(fault: Fault, call: Call, simulator: Simulator) -> None:
    with pytest.raises(ApiError) as caught:
        call(fault)
    assert simulator.count() == 1
    _assert_no_secret_in(_shown(caught.value))


def test_an_echo_in_a_success_is_not_shown(call: Call) -> None:
    result = call(_answer(200, {**SUCCESS, "message": f"Key set with {API_KEY}"}))
    _assert_no_secret_in(f"{result}")
    assert result["message"] == "Key set with ********"


def test_cut_text_leaves_no_part_of_an_echo(call: Call) -> None:
    for before in range(200 - len(API_KEY) - 1, 202):
        with pytest.raises(Rejected) as caught:
            call(_answer(400, {"code": "x" * before + API_KEY, "message": "y" * before + API_KEY + "z"}))
        _assert_no_secret_in(_shown(caught.value))


def test_a_server_s_text_is_short_and_printable(call: Call) -> None:
    text = "a\x1b[31m\r\nb\x00\u202e\u2028c" + "d" * 10_000
    with pytest.raises(Rejected) as caught:
        call(_answer(400, {"code": text, "message": text}))
    for shown in (caught.value.details["code"], caught.value.details["message"], str(caught.value)):
        assert shown.isprintable() and len(shown) < 1000
    assert len(caught.value.details["message"]) == 200


def test_what_is_no_http_is_shown_short_and_printable(call: Call) -> None:
    with pytest.raises(OutcomeUnknown) as caught:
        call({"do": "raw", "bytes": "\x1b[31m" + "x" * 60_000 + "\r\n\r\n"})
    assert str(caught.value).isprintable() and len(str(caught.value)) < 1000


@pytest.mark.parametrize("value", [None, 7, True, ["x"], {"x": 1}])
def test_code_and_message_of_another_type_are_none(value: Any, call: Call) -> None:
    with pytest.raises(Rejected) as caught:
        call(_answer(400, {"code": value, "message": value}))
    assert (caught.value.details["code"], caught.value.details["message"]) == (None, None)


@pytest.mark.parametrize("code", ["WA-400", "WA400"])
def test_codes_mean_the_same_with_and_without_hyphen(call: Call, code: str) -> None:
    with pytest.raises(Rejected, match="its WABA is onboarded"):
        call(_answer(400, {"code": code, "message": "x"}))


@pytest.mark.parametrize("status", [429, 500])
def test_lasting_failure_tells_the_vendors_advice(call: Call, status: int) -> None:
    with pytest.raises(ApiError, match="again after 5, 10 and 15 minutes, and then contacting its support"):
        call(_answer(status), retries=0)
