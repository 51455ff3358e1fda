# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many numbers in one call of the core: each as if it was alone, and all together within bounds."""

from __future__ import annotations

import itertools
import json
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.kaleyra.whatsapp.plugins.module_utils import _api, _batch, _batch_summary
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._batch import register
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._http import post
from support.simulator.client import Simulator

Params = Callable[..., dict[str, Any]]
Named = Callable[[str], str]
SID = "HXAP16TESTING97IN"
K1, K2 = "rsa-2048", "other-rsa-2048"
NUMBERS = [f"+9198765{number:05}" for number in range(40)]
THROTTLED = {"do": "answer", "status": 429, "body": {"code": "X-429", "message": "Slow down"}}
RESET = {"do": "reset"}


def _all(params: dict[str, Any], *, check_mode: bool = False, progress: Callable[[str], None] = lambda words: None) -> dict[str, Any]:
    return register(params, check_mode=check_mode, progress=progress)


def _failed(params: dict[str, Any], **options: Any) -> tuple[str, dict[str, Any]]:
    result = _all(params, **options)
    assert result["failed"]
    return result["msg"], result


def _by_number(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {number["phone_number"]: number for number in result["numbers"]}


# --- each number as if it was alone -----------------------------------------------------------------------------------

FAULTS: dict[str, list[dict[str, Any]]] = {
    "fine": [],
    "refused": [{"do": "answer", "status": 401, "body": {"code": "RBC001", "message": "Incorrect SID or API key."}}],
    "lost": [{"do": "reset", "apply": True}],
    "reset": [RESET],
    "error": [{"do": "answer", "status": 500, "headers": {"Retry-After": "0"}}] * 2,
    "passing": [{"do": "answer", "status": 503, "headers": {"Retry-After": "0"}}],
    "no-proof": [{"do": "answer", "status": 200, "body": {"code": "WA-200"}}],
    "trickle": [{"do": "trickle", "interval": 0.5}] * 2,
}


@pytest.mark.parametrize("earlier", ["none", *(pytest.param(earlier, marks=pytest.mark.slow) for earlier in ("another", "unconfirmed", "junk"))])
def test_numbers_of_a_list_end_as_they_would_alone(
    earlier: str, params: Params, simulator: Simulator, public_pem: Named, tmp_path: Path
) -> None:
    numbers = dict(zip(FAULTS, NUMBERS))
    results: dict[str, dict[str, Any]] = {}
    records: dict[str, dict[str, Any]] = {}
    for way in ("alone", "together"):
        simulator.reset()
        cache = tmp_path / way
        given = {"cache_path": str(cache), "timeout": 1, "retries": 1}
        if earlier != "none":
            _all(params(phone_numbers=list(numbers.values()), business_public_key=public_pem(K2), cache_path=str(cache)))
        for path in cache.glob("*.json"):
            if earlier == "junk":
                path.write_text("junk")
            elif earlier == "unconfirmed":
                path.write_text(path.read_text().replace("confirmed", "unconfirmed"))
        simulator.faults({number: FAULTS[name] * (2 if name in ("lost", "reset", "trickle") else 1) for name, number in numbers.items()})
        if way == "together":
            result = _failed(params(phone_numbers=list(numbers.values()), **given))[1]
            results[way] = _by_number(result)
        else:
            results[way] = {}
            for number in numbers.values():
                facts = register(params(phone_number=number, **given), check_mode=False)
                results[way][number] = {name: value for name, value in facts.items() if name not in ("warnings", "diff")}
        records[way] = {}
        for path in sorted(cache.iterdir()):
            text = path.read_text()
            if path.suffix == ".json":
                records[way][path.name] = json.loads(text)["state"] if text.startswith("{") else text
    assert results["together"] == results["alone"]
    assert records["together"] == records["alone"]


def test_a_call_that_was_given_up_is_not_sent_later(
    params: Params, simulator: Simulator, public_pem: Named, fingerprint: Named, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A resolver that answers slowly cannot be had for real without changing the machine.
    look_up, slow, waited = socket.getaddrinfo, itertools.count(), threading.Semaphore(0)

    def look_up_slowly(host: Any, *given: Any, **named: Any) -> Any:
        if host != "localhost" or next(slow) >= 4:  # what an earlier test has left behind looks up its own host
            return look_up(host, *given, **named)
        time.sleep(2)
        addresses = look_up(host, *given, **named)
        waited.release()
        return addresses

    monkeypatch.setattr(socket, "getaddrinfo", look_up_slowly)
    given = {"phone_numbers": NUMBERS[:4], "api_url": simulator.url.replace("127.0.0.1", "localhost")}
    details = _failed(params(**given, timeout=1, concurrency=4))[1]
    assert [number["outcome"] for number in details["numbers"]] == ["unknown"] * 4
    assert _all(params(**given, business_public_key=public_pem(K2)))["changed"]
    for dummy in range(4):
        assert waited.acquire(timeout=30)
    time.sleep(0.5)
    assert simulator.registered() == {SID: dict.fromkeys(NUMBERS[:4], fingerprint(K2))}


def test_lists_that_overlap_send_each_number_once(params: Params, simulator: Simulator, fingerprint: Named) -> None:
    """In threads of one process, which is harder than in processes: locks keep only processes apart."""
    simulator.faults({number: [{"do": "answer", "status": 500, "delay": 0.05, "headers": {"Retry-After": "0"}}] for number in NUMBERS[:5]})
    results: list[dict[str, Any]] = []
    options = params(phone_numbers=NUMBERS, retries=1)
    threads = [threading.Thread(target=lambda: results.append(_all(options))) for dummy in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(number["changed"] for result in results for number in result["numbers"]) == {True: 40, False: 80}
    assert simulator.count() == 45
    assert simulator.registered() == {SID: dict.fromkeys(NUMBERS, fingerprint(K1))}


def test_a_number_that_pauses_holds_no_thread(params: Params, simulator: Simulator) -> None:
    paused, other = NUMBERS[:2]
    simulator.faults({paused: [{"do": "answer", "status": 503, "headers": {"Retry-After": "2"}}]})
    assert _all(params(phone_numbers=[paused, other], retries=1, concurrency=1))["changed"]
    assert [request["phone_number"] for request in simulator.requests()] == [paused, other, paused]


def test_a_key_that_becomes_visible_late_holds_no_thread(params: Params, simulator: Simulator, public_pem: Named) -> None:
    simulator.hold(dict.fromkeys(NUMBERS[:2], public_pem(K2)))
    simulator.configure(kaleyra_get="flat", visible_after=2)
    result = _all(params(phone_numbers=NUMBERS[:2], concurrency=1, read_back="kaleyra"))
    assert [number["verified"] for number in result["numbers"]] == [True, True]
    sent = [(request["method"], request["phone_number"]) for request in simulator.requests()]
    last_of_the_first = len(sent) - sent[::-1].index(("GET", NUMBERS[0]))
    assert sent.index(("POST", NUMBERS[1])) < last_of_the_first


def test_lists_that_wait_for_each_other_s_numbers_both_end(params: Params, simulator: Simulator) -> None:
    """Each pauses with the lock that the other one waits for, and its one thread must not wait too."""
    simulator.faults({number: [{"do": "answer", "status": 503, "headers": {"Retry-After": "1"}}] for number in NUMBERS[:2]})
    results: list[dict[str, Any]] = []
    orders = [NUMBERS[:2], NUMBERS[1::-1]]
    threads = [
        threading.Thread(target=lambda given: results.append(_all(params(phone_numbers=given, retries=1, concurrency=1))), args=(given,))
        for given in orders
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(results) == 2 and not any("failed" in result for result in results)
    assert simulator.count() == 4


def test_warnings_are_told_once_for_numbers_that_share_them(params: Params) -> None:
    options = params(phone_numbers=NUMBERS)
    _all(options)
    for path in Path(options["cache_path"]).glob("*.json"):
        path.write_text("junk")
    for check_mode in (True, False):
        result = _all(options, check_mode=check_mode)
        assert {number["reason"] for number in result["numbers"]} == {"unreadable"}
        (warning,) = result["warnings"]
        assert warning.startswith(f"{', '.join(NUMBERS[:3])} and 37 more: Ignoring an invalid record in cache_path")
    assert _all(options)["warnings"] == []


def test_the_one_message_is_short_however_many_fail(params: Params, simulator: Simulator) -> None:
    simulator.faults({"*": [{"do": "answer", "status": 401, "body": {}, "always": True}]})
    message, details = _failed(params(phone_numbers=[*NUMBERS, "junk", "0", "x" * 5000]))
    assert message.startswith(f"43 of 43 numbers failed. The key of {NUMBERS[0]} was not registered: ")
    assert f"Same error for {', '.join(NUMBERS[1:4])} and 36 more." in message
    assert message.endswith("1 more distinct error; see 'numbers' in the result.") and len(message) < 1500
    assert details["attempts"] == simulator.count() == 40  # every number is tried
    message, dummy = _failed(params(phone_numbers=NUMBERS[:1]))
    assert message.startswith(f"The key of {NUMBERS[0]} was not registered: ")


def test_an_error_that_many_share_is_returned_once(
    params: Params, simulator: Simulator, public_pem: Named, fingerprint: Named, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_batch_summary, "_IN_FULL", 2)
    _all(params(phone_numbers=NUMBERS[2:3], business_public_key=public_pem(K2)))
    simulator.faults({"*": [{"do": "answer", "status": 401, "body": {"code": "RBC001"}, "always": True}]})
    message, details = _failed(params(phone_numbers=NUMBERS))
    first, second, third, *others = details["numbers"]
    assert message.count("Check sid and api_key") == first["msg"].count("Check sid and api_key") == 1
    assert second.keys() == first.keys()
    # What differs from the first one stays.
    assert (third["reason"], third["previous_fingerprint"]) == ("different", fingerprint(K2))
    for number, result in zip(NUMBERS[3:], others):
        assert result == {"phone_number": number, "changed": False, "failed": True, "outcome": "rejected", "msg": f"Same error as for {NUMBERS[0]}."}


def test_numbers_without_a_plus_give_one_warning(params: Params, simulator: Simulator) -> None:
    simulator.faults({"*": [{"do": "answer", "status": 401, "body": {}, "always": True}]})
    given = [*NUMBERS[:2], *(number[1:] for number in NUMBERS[2:10])]
    for check_mode in (True, False):
        (warning,) = (_all(params(phone_numbers=given), check_mode=True) if check_mode else _failed(params(phone_numbers=given))[1])["warnings"]
        assert warning.startswith(f"8 phone numbers have no plus sign: {NUMBERS[2][1:]} was read as {NUMBERS[2]} (India, +91); ")
        assert "and 5 more" in warning and warning.count("India") == 3


# --- rate -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When each request was handed to the network."""
    times: list[float] = []

    def noting(*given: Any, **named: Any) -> Any:
        times.append(time.monotonic())
        return post(*given, **named)

    monkeypatch.setattr(_api, "post", noting)
    return times


def _gaps(starts: list[float]) -> list[float]:
    ordered = sorted(starts)
    return [later - sooner for sooner, later in zip(ordered, ordered[1:])]


def test_a_list_is_held_to_its_rate(params: Params, starts: list[float]) -> None:
    begin = time.monotonic()
    _all(params(phone_numbers=NUMBERS[:20], max_requests_per_second=20))
    # From before the first, which may be held up on its way to the network: so a slow machine only makes it longer.
    assert len(starts) == 20 and max(starts) - begin >= 19 / 20


def test_one_429_holds_the_whole_list(params: Params, simulator: Simulator, starts: list[float]) -> None:
    simulator.faults({NUMBERS[0]: [{**THROTTLED, "headers": {"Retry-After": "1"}}]})
    result = _all(params(phone_numbers=NUMBERS[:12], retries=3, concurrency=2))
    assert _by_number(result)[NUMBERS[0]]["attempts"] == 2
    assert simulator.count() == 13
    # Nobody starts for a second, whoever was throttled; what had started then is some more than the two that were under way.
    pause = max(_gaps(starts))
    assert pause > 0.9
    before = _gaps(starts).index(pause) + 1
    assert before < 12


def test_where_the_api_throttles_for_ever_the_list_ends(params: Params, simulator: Simulator) -> None:
    """Neither hammered nor asked for hours: the limit is the account's, so that the numbers that are left need not be tried."""
    simulator.faults({"*": [{**THROTTLED, "headers": {"Retry-After": "0"}, "always": True}]})
    message, details = _failed(params(phone_numbers=NUMBERS[:20], retries=1, timeout=1, concurrency=2))
    assert {number["outcome"] for number in details["numbers"]} == {"rejected"}
    attempts = [number["attempts"] for number in details["numbers"]]
    assert sum(attempts) == simulator.count() < 20 and max(attempts) <= 2
    assert any("has refused every request for 3 seconds" in number["msg"] for number in details["numbers"])
    assert "max_requests_per_second" in message
    assert not list(Path(params()["cache_path"]).glob("*.json"))  # each number carries what it carried


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_how_far_it_is_is_said_now_and_then(params: Params, simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_batch, "_PROGRESS_INTERVAL", 0.2)
    simulator.faults({NUMBERS[0]: [RESET]})
    said: list[str] = []
    _failed(params(phone_numbers=NUMBERS[:20], max_requests_per_second=10), progress=said.append)
    counts = [int(words.split()[0]) for words in said]
    assert len(counts) >= 3 and counts == sorted(counts) and counts[0] < 20
    assert all(words.endswith(" of 20 numbers done, 1 failed") for words in said if int(words.split()[0]) > 0)
    _all(params(phone_numbers=NUMBERS[1:20]), progress=pytest.fail)


def test_unchanged_list_starts_no_thread(params: Params, run: Callable[..., str]) -> None:
    code = """
import json, sys, threading
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._batch import register
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._http import post
result = register(json.loads(sys.argv[1]), check_mode=False, progress=print)
print(result["changed"], threading.active_count(), *(name for name in ("requests", "cryptography") if name in sys.modules))
"""
    options = json.dumps(params(phone_numbers=NUMBERS))
    assert run(code, options).startswith("True ")
    assert run(code, options) == "False 1\n"


_MEMORY = """
import json, sys, tracemalloc
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._batch import register
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._http import post
params = json.loads(sys.argv[1])
def peak(first, count):
    numbers = [f"+91{first + n}" for n in range(count)]
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    result = register({**params, "phone_numbers": numbers}, check_mode=sys.argv[2] == "check", progress=lambda words: None)
    assert result["changed"]
    return tracemalloc.get_traced_memory()[1] - before
tracemalloc.start()
peak(9000000000, 20)  # what there is but once
few, many = peak(9100000000, 100), peak(9200000000, 500)
print((many - few) / 400)
"""


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["check", "real"])
def test_a_number_takes_less_than_three_kilobytes(mode: str, params: Params, run: Callable[..., str]) -> None:
    assert float(run(_MEMORY, json.dumps(params(phone_numbers=[])), mode)) < 3 * 1024


_INTERRUPTED = """
import json, signal, sys
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._batch import register
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._http import post

class Interrupted(BaseException):
    pass

def interrupt(*_):
    raise Interrupted

signal.signal(signal.SIGALRM, interrupt)
params = json.loads(sys.argv[1])
try:
    register(params, check_mode=False, progress=print)
except Interrupted:
    print("interrupted", flush=True)
sys.stdin.readline()
result = register({**params, "phone_numbers": params["phone_numbers"][:20], "max_requests_per_second": None}, check_mode=False, progress=print)
print(sum(number["changed"] for number in result["numbers"]), flush=True)
"""


def test_interrupted_list_sends_nothing_further(
    params: Params, simulator: Simulator, start: Callable[..., Any], fingerprint: Named
) -> None:
    """Ansible's task keyword `timeout` interrupts one item of a loop by a signal, and goes on with the next in the same process."""
    process = start(_INTERRUPTED, json.dumps(params(phone_numbers=NUMBERS, max_requests_per_second=4)))
    until = time.monotonic() + 30
    while simulator.count() < 3 and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGALRM)
    assert process.stdout.readline() == "interrupted\n"
    # One may be on its way, which ends as it would have; those that wait for their turn do not start.
    time.sleep(1)
    count = simulator.count()
    time.sleep(1)
    assert simulator.count() == count < 20
    done = len(simulator.registered()[SID])
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == f"{20 - done}\n"
    assert simulator.registered() == {SID: dict.fromkeys(NUMBERS[:20], fingerprint(K1))}
