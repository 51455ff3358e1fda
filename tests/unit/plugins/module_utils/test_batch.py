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

Params = Callable[..., "dict[str, Any]"]
Named = Callable[[str], str]
SID = "HXAP16TESTING97IN"
K1, K2 = "rsa-2048", "other-rsa-2048"
NUMBERS = [f"+9198765{number:05}" for number in range(40)]
THROTTLED = {"do": "answer", "status": 429, "body": {"code": "X-429", "message": "Slow down"}}
REFUSED = {"do": "answer", "status": 401, "body": {"code": "RBC001"}, "always": True}
RESET = {"do": "reset"}


def _real(params: dict[str, Any], *, progress: Callable[[str], None] = lambda words: None) -> dict[str, Any]:
    return register(params, check_mode=False, progress=progress)


def _failed(params: dict[str, Any], **options: Any) -> tuple[str, list[dict[str, Any]]]:
    """The message and the results of a list that fails."""
    result = _real(params, **options)
    assert result["failed"]
    return result["msg"], result["numbers"]


def _at_once(params: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The results of several lists, in a thread each."""
    results: list[dict[str, Any]] = []
    threads = [threading.Thread(target=lambda given=given: results.append(_real(given))) for given in params]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


_FAULTS: dict[str, list[dict[str, Any]]] = {
    "none": [],
    "refused": [{"do": "answer", "status": 401, "body": {"code": "RBC001", "message": "Incorrect SID or API key."}}],
    "lost": [{"do": "reset", "apply": True}] * 2,
    "reset": [RESET] * 2,
    "error": [{"do": "answer", "status": 500}] * 2,
    "temporary": [{"do": "answer", "status": 503}],
    "unconfirmed": [{"do": "answer", "status": 200, "body": {"code": "WA-200"}}],
    "hanging": [{"do": "trickle", "interval": 0.5}],  # a second, once alone and once together
}


@pytest.mark.parametrize("earlier", ["none", *(pytest.param(earlier, marks=pytest.mark.slow) for earlier in ("another", "unconfirmed", "junk"))])
def test_numbers_of_a_list_end_as_they_would_alone(
    earlier: str, params: Params, simulator: Simulator, public_pem: Named, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: 0.001)  # the pauses
    numbers = dict(zip(_FAULTS, NUMBERS))
    results: dict[str, dict[str, Any]] = {"alone": {}, "together": {}}
    records: dict[str, dict[str, str]] = {}
    for way in results:
        simulator.reset()
        cache = tmp_path / way
        given = {"cache_path": str(cache), "timeout": 1, "retries": 1}
        if earlier != "none":
            _real(params(phone_numbers=list(numbers.values()), business_public_key=public_pem(K2), cache_path=str(cache)))
        for path in cache.glob("*.json"):
            if earlier == "junk":
                path.write_text("junk")
            elif earlier == "unconfirmed":
                path.write_text(path.read_text().replace("confirmed", "unconfirmed"))
        simulator.faults({number: _FAULTS[name] for name, number in numbers.items()})
        if way == "together":
            results[way] = {number["phone_number"]: number for number in _failed(params(phone_numbers=list(numbers.values()), **given))[1]}
        else:
            for number in numbers.values():
                facts = _real(params(phone_number=number, **given))
                results[way][number] = {name: value for name, value in facts.items() if name not in ("warnings", "diff")}
        texts = {path.name: path.read_text() for path in cache.glob("*.json")}
        records[way] = {name: json.loads(text)["state"] if text.startswith("{") else text for name, text in texts.items()}
    assert results["together"] == results["alone"]
    assert records["together"] == records["alone"]


def test_call_that_was_given_up_is_not_sent_later(
    params: Params, simulator: Simulator, public_pem: Named, fingerprint: Named, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_up, count, may_end, ended = socket.getaddrinfo, itertools.count(), threading.Event(), threading.Semaphore(0)

    def look_up_slowly(host: Any, *given: Any, **named: Any) -> Any:
        if host != "localhost" or next(count) >= 4:  # what an earlier test has left behind looks up its own host
            return look_up(host, *given, **named)
        may_end.wait(60)
        addresses = look_up(host, *given, **named)
        ended.release()
        return addresses

    monkeypatch.setattr(socket, "getaddrinfo", look_up_slowly)
    given = {"phone_numbers": NUMBERS[:4], "api_url": simulator.url.replace("127.0.0.1", "localhost")}
    assert [number["outcome"] for number in _failed(params(**given, timeout=1, concurrency=4))[1]] == ["unknown"] * 4
    assert _real(params(**given, business_public_key=public_pem(K2)))["changed"]
    may_end.set()
    for dummy in range(4):
        assert ended.acquire(timeout=30)
    time.sleep(0.3)
    assert simulator.registered() == {SID: dict.fromkeys(NUMBERS[:4], fingerprint(K2))}


def test_lists_that_overlap_send_each_number_once(params: Params, simulator: Simulator, fingerprint: Named) -> None:
    """In threads of one process, because locks of files exclude only other processes."""
    simulator.faults({number: [{"do": "answer", "status": 500, "delay": 0.05, "headers": {"Retry-After": "0"}}] for number in NUMBERS[:5]})
    results = _at_once([params(phone_numbers=NUMBERS, retries=1)] * 3)
    assert Counter(number["changed"] for result in results for number in result["numbers"]) == {True: 40, False: 80}
    assert simulator.count() == 45
    assert simulator.registered() == {SID: dict.fromkeys(NUMBERS, fingerprint(K1))}


def test_lists_that_wait_for_each_other_both_end(params: Params, simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each pauses with the lock that the other one waits for, so its one thread must not wait too."""
    monkeypatch.setattr("random.uniform", lambda low, high: 0.3)  # the pauses
    simulator.faults({number: [{"do": "answer", "status": 503}] for number in NUMBERS[:2]})
    results = _at_once([params(phone_numbers=given, retries=1, concurrency=1) for given in (NUMBERS[:2], NUMBERS[1::-1])])
    assert len(results) == 2 and not any("failed" in result for result in results)
    assert simulator.count() == 4


def test_warning_that_many_share_is_given_once(params: Params) -> None:
    options = params(phone_numbers=NUMBERS)
    _real(options)
    for path in Path(options["cache_path"]).glob("*.json"):
        path.write_text("junk")
    for check_mode in (True, False):
        result = register(options, check_mode=check_mode)
        assert {number["reason"] for number in result["numbers"]} == {"unreadable"}
        (warning,) = result["warnings"]
        assert warning.startswith(f"{', '.join(NUMBERS[:3])} and 37 more: Ignoring an invalid record in cache_path")
    assert _real(options)["warnings"] == []


def test_message_is_short_however_many_fail(params: Params, simulator: Simulator) -> None:
    simulator.faults({"*": [REFUSED]})
    result = _real(params(phone_numbers=[*NUMBERS, "junk", "0", "x" * 5000]))
    message = result["msg"]
    assert message.startswith(f"43 of 43 numbers failed. The key of {NUMBERS[0]} was not registered: ")
    assert f"Same error for {', '.join(NUMBERS[1:4])} and 36 more." in message
    assert message.endswith("1 more distinct error; see 'numbers' in the result.") and len(message) < 1500
    assert result["attempts"] == simulator.count() == 40  # every number is tried
    assert _failed(params(phone_numbers=NUMBERS[:1]))[0].startswith(f"The key of {NUMBERS[0]} was not registered: ")


def test_error_that_many_share_is_returned_once(
    params: Params, simulator: Simulator, public_pem: Named, fingerprint: Named, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_batch_summary, "_IN_FULL", 2)
    _real(params(phone_numbers=NUMBERS[2:3], business_public_key=public_pem(K2)))
    simulator.faults({"*": [REFUSED]})
    message, (first, second, third, *others) = _failed(params(phone_numbers=NUMBERS))
    assert message.count("Check sid and api_key") == first["msg"].count("Check sid and api_key") == 1
    assert second.keys() == first.keys()
    # What differs from the first one stays.
    assert (third["reason"], third["previous_fingerprint"]) == ("different", fingerprint(K2))
    for number, result in zip(NUMBERS[3:], others):
        assert result == {"phone_number": number, "changed": False, "failed": True, "outcome": "rejected", "msg": f"Same error as for {NUMBERS[0]}."}


def test_numbers_without_plus_give_one_warning(params: Params, simulator: Simulator) -> None:
    simulator.faults({"*": [REFUSED]})
    given = [*NUMBERS[:2], *(number[1:] for number in NUMBERS[2:10])]
    for check_mode in (True, False):
        (warning,) = register(params(phone_numbers=given), check_mode=check_mode)["warnings"]
        assert warning.startswith(f"8 phone numbers have no plus sign: {NUMBERS[2][1:]} was read as {NUMBERS[2]} (India, +91); ")
        assert "and 5 more" in warning and warning.count("India") == 3


def test_progress_counts_what_is_done_and_failed(params: Params, simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    simulator.faults({NUMBERS[0]: [RESET]})
    said: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(_batch, "_PROGRESS_INTERVAL", 0)
        _failed(params(phone_numbers=NUMBERS, concurrency=1), progress=said.append)
    assert said == [f"{done} of 40 numbers done, 1 failed" for done in range(1, 41)]
    _real(params(phone_numbers=NUMBERS), progress=pytest.fail)


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When each request was handed to the network."""
    times: list[float] = []

    def noting(*given: Any, **named: Any) -> Any:
        times.append(time.monotonic())
        return post(*given, **named)

    monkeypatch.setattr(_api, "post", noting)
    return times


def test_list_is_held_to_its_rate(params: Params, starts: list[float]) -> None:
    begin = time.monotonic()
    _real(params(phone_numbers=NUMBERS[:10], max_requests_per_second=20))
    # From before the first, which may be held up on its way to the network: so a slow machine only makes it longer.
    assert len(starts) == 10 and max(starts) - begin >= 9 / 20


def test_one_429_holds_the_whole_list(params: Params, simulator: Simulator, starts: list[float]) -> None:
    simulator.faults({NUMBERS[0]: [{**THROTTLED, "headers": {"Retry-After": "1"}}]})
    result = _real(params(phone_numbers=NUMBERS[:12], retries=3, concurrency=2))
    assert result["numbers"][0]["attempts"] == 2 and simulator.count() == 13
    # Nobody starts for a second, whoever was throttled, apart from those that had started then.
    starts.sort()
    gaps = [later - sooner for sooner, later in zip(starts, starts[1:])]
    assert max(gaps) > 0.9 and gaps.index(max(gaps)) < 11


def test_list_ends_where_everything_is_throttled(params: Params, simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is the account's, so the numbers that are left need not be tried."""
    monkeypatch.setattr(_batch, "longest", lambda timeout, retries: 0.5)
    simulator.faults({"*": [{**THROTTLED, "headers": {"Retry-After": "0"}, "always": True}]})
    message, numbers = _failed(params(phone_numbers=NUMBERS[:20], retries=1, timeout=1, concurrency=2))
    assert {number["outcome"] for number in numbers} == {"rejected"}
    attempts = [number["attempts"] for number in numbers]
    assert sum(attempts) == simulator.count() < 20 and max(attempts) <= 2
    assert any("has refused every request for 3 seconds" in number["msg"] for number in numbers)
    assert "max_requests_per_second" in message
    assert not list(Path(params()["cache_path"]).glob("*.json"))  # each number carries what it carried


_INTERRUPTED = """
import json, signal, sys
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._batch import register

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


def test_interrupted_list_sends_nothing_further(params: Params, simulator: Simulator, start: Callable[..., Any], fingerprint: Named) -> None:
    """Ansible's task keyword `timeout` interrupts one item of a loop by a signal, and goes on with the next in the same process."""
    process = start(_INTERRUPTED, json.dumps(params(phone_numbers=NUMBERS, max_requests_per_second=4)))
    until = time.monotonic() + 30
    while simulator.count() < 2 and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGALRM)
    assert process.stdout.readline() == "interrupted\n"
    # One may be on its way, which ends as it would have; those that wait for their turn do not start.
    time.sleep(0.3)
    count = simulator.count()
    time.sleep(0.6)  # enough for two more
    assert simulator.count() == count < 20
    done = len(simulator.registered()[SID])
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == f"{20 - done}\n"
    assert simulator.registered() == {SID: dict.fromkeys(NUMBERS[:20], fingerprint(K1))}
