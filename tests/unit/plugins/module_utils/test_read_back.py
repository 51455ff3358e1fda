# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The two sources of what a number carries, over real connections to the simulator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.kaleyra.whatsapp.plugins.module_utils import _graph_api
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._account import Account, make_account
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._errors import InvalidInput
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._graph_api import make_graph_api
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._held_key import HeldKey
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._rate_limit import RateLimiter
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._read_back import make_read_back
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._reader import Reader
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._steps import run_steps
from support.simulator.client import Simulator, waba_numbers

SID, API_KEY, TOKEN = "HXAP16TESTING97IN", "A0b1C2d3E4+/f5G6=h7", "EAAtoken/+=.secret"
NUMBER, OTHER_NUMBER = "+919876543210", "+14155550123"
WABA, OTHER_WABA = "1001", "1002"

Named = Callable[[str], str]
Options = Callable[..., "dict[str, Any]"]
Read = Callable[..., "tuple[HeldKey, int]"]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: 0.001)


@pytest.fixture
def account(simulator: Simulator) -> Account:
    return make_account(None, simulator.url, SID, API_KEY)


@pytest.fixture
def options(simulator: Simulator) -> Options:
    simulator.configure(access_token=TOKEN, wabas={WABA: waba_numbers([NUMBER])})
    meta = {"meta_access_token": TOKEN, "meta_waba_ids": [WABA], "meta_phone_number_ids": None, "meta_api_url": f"{simulator.url}/v23.0"}
    common = {"read_back": "meta", "read_back_required": False, "timeout": 20, "retries": 1, "validate_certs": True, "ca_path": None}
    return lambda **given: {**common, **meta, **given}


@pytest.fixture
def read(account: Account, options: Options) -> Read:
    """Read one number with these options, look-up included; the requests of both are counted together."""

    def read_one(number: str = NUMBER, **given: Any) -> tuple[HeldKey, int]:
        source = make_read_back(options(**given), account, RateLimiter())
        assert source
        looked_up = source.prepare([number])
        result = run_steps(source.read(number), RateLimiter())
        return result[0], looked_up + result[1]

    return read_one


def _answer(status: int, body: Any = "<html>", **more: Any) -> dict[str, Any]:
    return {"do": "answer", "status": status, "body": body, **more}


@pytest.mark.parametrize("source", ["meta", "kaleyra"])
@pytest.mark.parametrize("shape", ["flat", "data", "list"])
def test_both_sources_read_every_shape_by_get_alone(
    source: str, shape: str, read: Read, simulator: Simulator, public_pem: Named, fingerprint: Named
) -> None:
    simulator.configure(kaleyra_get=shape, meta_shape=shape)
    simulator.hold({NUMBER: {"pem": public_pem("rsa-2048"), "status": "MISMATCH"}})
    assert read(read_back=source) == (HeldKey(fingerprint("rsa-2048"), "mismatch"), 2 if source == "meta" else 1)
    assert set(simulator.methods()) == {"GET"}
    for request in simulator.requests():
        secret, other = (f"Bearer {TOKEN}", API_KEY) if source == "meta" else (API_KEY, TOKEN)
        assert request["body"] == "" and request["headers"]["authorization" if source == "meta" else "api-key"] == secret
        assert other not in str(request) and TOKEN not in request["path"]


@pytest.mark.parametrize(
    ("fault", "told", "attempts"),
    [
        (_answer(404), "HTTP 404", 1),
        (_answer(302, headers={"Location": "/elsewhere"}), "HTTP 302", 1),
        (_answer(503), "HTTP 503", 2),
        (_answer(429, headers={"Retry-After": 0}), "HTTP 429", 2),
        (_answer(401, {"error": {"message": "Session has expired", "code": 190}}), "Meta's error 190", 1),
        ({"do": "close"}, "gave no answer", 2),
        ({"do": "flood", "bytes": 1_000_000}, "HTTP 200", 1),
        ({"do": "echo", "status": 400}, "HTTP 400", 1),
        ({"do": "echo", "status": 200}, "HTTP 200", 1),
    ],
    ids=str,
)
@pytest.mark.parametrize("source", ["meta", "kaleyra"])
def test_unreadable_answer_is_unknown(
    source: str, fault: dict[str, Any], told: str, attempts: int, read: Read, simulator: Simulator, public_pem: Named
) -> None:
    simulator.configure(kaleyra_get="flat")
    simulator.hold({NUMBER: public_pem("rsa-2048")})
    simulator.faults({NUMBER: [{**fault, "always": True}]})
    held, sent = read(read_back=source)
    assert held.fingerprint is None and held.unknown and told in held.unknown
    assert sent == attempts + (source == "meta")
    assert TOKEN not in held.unknown and API_KEY not in held.unknown
    assert "/elsewhere" not in simulator.methods_by_url() and set(simulator.methods()) == {"GET"}


@pytest.mark.parametrize("code", [4, 80007, 130429])
def test_throttling_by_metas_error_is_retried(code: int, read: Read, simulator: Simulator, public_pem: Named, fingerprint: Named) -> None:
    simulator.hold({NUMBER: public_pem("rsa-2048")})
    simulator.faults({NUMBER: [_answer(400, {"error": {"message": "limit reached", "code": code}})]})
    assert read() == (HeldKey(fingerprint("rsa-2048"), "valid"), 3)


class Recording(RateLimiter):
    def __init__(self) -> None:
        super().__init__()
        self.throttled_for: list[float] = []

    def wait(self, seconds: float = 0.0) -> None:
        pass

    def refused(self, asked: float, started: float) -> None:
        self.throttled_for.append(asked)


@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [(429, {"Retry-After": "7"}, [7]), (429, {}, [0]), (429, {"Retry-After": "600"}, [20]), (400, {}, [0]), (503, {"Retry-After": "7"}, [])],
)
def test_rate_limiter_is_notified_of_throttling(status: int, headers: dict[str, str], expected: list[float], simulator: Simulator) -> None:
    """And not of the pause before the next attempt, which grows, and is this number's alone."""
    simulator.faults({NUMBER: [_answer(status, {}, headers=headers)]})
    limiter = Recording()
    url = f"{simulator.url}/v2/{SID}/whatsapp/{NUMBER}/flows_encryption"
    run_steps(Reader(timeout=20, retries=1, rate_limiter=limiter).get(url, {}, is_throttled=lambda answer: answer.status == 400), limiter)
    assert limiter.throttled_for == expected


def test_ids_are_looked_up_once_for_a_list(account: Account, options: Options, simulator: Simulator, public_pem: Named) -> None:
    numbers = [f"+91987650{n:04}" for n in range(30)]
    simulator.configure(wabas={WABA: waba_numbers(numbers[:25]), OTHER_WABA: waba_numbers(numbers[25:], first_id=3_000_001)}, page_size=10)
    simulator.hold(dict.fromkeys(numbers, public_pem("rsa-2048")))
    source = make_read_back(options(meta_waba_ids=[WABA, OTHER_WABA]), account, RateLimiter())
    assert source and source.prepare(numbers) == 4  # 3 pages and 1
    assert all(run_steps(source.read(number), RateLimiter())[0].fingerprint for number in numbers)
    assert simulator.count() == 34


def test_given_ids_need_no_look_up(read: Read, simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(meta_waba_ids=None, meta_phone_number_ids={NUMBER: 2_000_001}) == (HeldKey(), 1)
    assert list(simulator.methods_by_url()) == ["/v23.0/2000001/whatsapp_business_encryption"]
    monkeypatch.setenv("META_WABA_IDS", f" {WABA}, ,{WABA}")
    assert read(meta_waba_ids=None) == (HeldKey(), 2)


def test_next_page_is_asked_of_the_configured_host_alone(read: Read, simulator: Simulator) -> None:
    elsewhere = "http://127.0.0.1:9/elsewhere?access_token=x&after="
    pages = [{"cursors": {"after": "MQ=="}, "next": f"{elsewhere}MQ=="}, {"next": f"{elsewhere}Mg=="}]
    simulator.faults({WABA: [_answer(200, {"data": [], "paging": paging}) for paging in pages]})
    with pytest.raises(InvalidInput, match="in none of"):  # the third page starts after the one number
        read()
    assert [request["path"].rpartition("&")[2] for request in simulator.requests()] == ["limit=100", "after=MQ%3D%3D", "after=Mg%3D%3D"]


def test_endless_pages_are_given_up(read: Read, simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    def page(after: str) -> dict[str, Any]:
        return {"data": [], "paging": {"cursors": {"after": after}, "next": "https://x/"}}

    simulator.faults({WABA: [_answer(200, page("MQ=="), always=True)]})
    held, attempts = read()
    assert held.unknown and "endless series of pages" in held.unknown and attempts == 2
    monkeypatch.setattr(_graph_api, "_MAX_PAGES", 3)
    simulator.faults({WABA: [_answer(200, page(str(n))) for n in range(5)]})
    assert read()[1] == 3


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (_answer(403, {"error": {"message": f"(#200) No permission for {TOKEN}", "code": 200}}), "error 200 ((#200) No permission for ********)"),
        (_answer(200, {"data": {}}), "not a list of phone numbers"),
        (_answer(404), "HTTP 404"),
        ({"do": "reset"}, "gave no answer"),
    ],
    ids=str,
)
def test_unlisted_account_leaves_its_numbers_unknown(fault: dict[str, Any], told: str, read: Read, simulator: Simulator) -> None:
    simulator.faults({WABA: [{**fault, "always": True}]})
    held, dummy = read()
    assert TOKEN not in repr(make_graph_api(simulator.url, TOKEN, Reader(20, 0)))
    assert held.unknown and told in held.unknown and WABA in held.unknown and TOKEN not in held.unknown


def test_invalid_entries_are_left_out(read: Read, simulator: Simulator) -> None:
    junk: list[Any] = [1, {}, {"id": "5", "display_phone_number": None}]
    junk += [{"id": wrong, "display_phone_number": NUMBER} for wrong in ("../me", 5, None)]
    simulator.faults({WABA: [_answer(200, {"data": [*junk, *waba_numbers([NUMBER])]})]})
    assert read()[0] == HeldKey()


def test_number_of_no_account_or_of_two_is_an_error(read: Read, simulator: Simulator) -> None:
    with pytest.raises(InvalidInput, match=r"\+14155550123 is in none of the WhatsApp Business Accounts of meta_waba_ids \(1001\)"):
        read(OTHER_NUMBER)
    simulator.configure(wabas={WABA: waba_numbers([NUMBER]), OTHER_WABA: waba_numbers([NUMBER], first_id=3_000_001)})
    with pytest.raises(InvalidInput, match="listed more than once .*2000001 in 1001, 3000001 in 1002"):
        read(meta_waba_ids=[WABA, OTHER_WABA])
    assert not any("encryption" in path for path in simulator.methods_by_url())


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"meta_access_token": "EAA\nx"}, "meta_access_token contains a space, a line break"),
        ({"meta_access_token": None}, "needs meta_access_token"),
        ({"meta_waba_ids": ["WABA-1"]}, "'WABA-1' is not the ID"),
        ({"meta_waba_ids": [WABA, "1/../2"]}, "is not the ID"),
        ({"meta_waba_ids": []}, "needs meta_waba_ids"),
        ({"meta_waba_ids": None, "meta_phone_number_ids": {NUMBER: "x"}}, "'x' is not the ID of a phone number"),
        ({"meta_waba_ids": None, "meta_phone_number_ids": {"x": "1"}}, "not a number in E.164"),
        ({"meta_api_url": "http://graph.example.com"}, "meta_api_url 'http://graph.example.com' would send the access token unencrypted"),
        ({"meta_api_url": "https://graph.example.com/?x"}, "meta_api_url"),
        ({"read_back": "none", "read_back_required": True}, "read_back_required needs a source"),
        ({"read_back": "none"}, None),
    ],
    ids=str,
)
def test_unusable_option_sends_nothing(given: dict[str, Any], told: str | None, account: Account, options: Options, simulator: Simulator) -> None:
    if told is None:
        assert make_read_back(options(**given), account, RateLimiter()) is None
    else:
        with pytest.raises(InvalidInput) as error:
            make_read_back(options(**given), account, RateLimiter())
        assert told in str(error.value) and "EAA" not in str(error.value)
    assert simulator.count() == 0
