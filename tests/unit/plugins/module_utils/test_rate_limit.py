# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable

import pytest
from ansible_collections.kaleyra.whatsapp.plugins.module_utils import _rate_limit
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._rate_limit import Cancelled, RateLimiter
from support.simulator._throttling import Bucket, Limit, Window


class Clock:
    """Time that passes only in sleep: when things start is under test, not how fast this machine is."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(_rate_limit, "time", made)
    return made


def _starts(rate_limiter: RateLimiter, clock: Clock, count: int) -> list[float]:
    """When so many requests start, one after the other, since now."""
    began, starts = clock.now, []
    for dummy in range(count):
        rate_limiter.wait()
        starts.append(round(clock.now - began, 6))
    return starts


def test_without_a_rate_nobody_waits(clock: Clock) -> None:
    assert _starts(RateLimiter(), clock, 5) == [0, 0, 0, 0, 0]


def test_a_rate_is_held_without_bursts(clock: Clock) -> None:
    rate_limiter = RateLimiter(4)
    assert _starts(rate_limiter, clock, 5) == [0, 0.25, 0.5, 0.75, 1]
    clock.now += 60
    assert _starts(rate_limiter, clock, 3) == [0, 0.25, 0.5]  # what was not used is not made up for


def test_a_late_waking_does_not_slow_down_those_that_follow(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    sleep = clock.sleep
    monkeypatch.setattr(clock, "sleep", lambda seconds: sleep(seconds + 0.1))
    assert _starts(RateLimiter(4), clock, 4) == [0, 0.35, 0.6, 0.85]


def test_a_pause_that_is_asked_for_is_kept(clock: Clock) -> None:
    rate_limiter = RateLimiter()
    began = clock.now
    rate_limiter.wait(7)
    assert clock.now - began == 7


def test_throttling_pauses_all(clock: Clock) -> None:
    rate_limiter = RateLimiter()
    _starts(rate_limiter, clock, 8)
    rate_limiter.refused(30, clock.now)
    assert _starts(rate_limiter, clock, 1) == [30]


def test_who_waits_already_waits_for_the_pause_too(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    rate_limiter = RateLimiter(1)
    rate_limiter.wait()
    sleep = clock.sleep

    def throttled_meanwhile(seconds: float) -> None:
        monkeypatch.setattr(clock, "sleep", sleep)
        rate_limiter.refused(30, clock.now)
        sleep(seconds)

    monkeypatch.setattr(clock, "sleep", throttled_meanwhile)
    assert _starts(rate_limiter, clock, 1) == [30]


def test_a_short_pause_does_not_give_a_turn_twice(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    rate_limiter = RateLimiter(1)
    rate_limiter.wait()
    sleep = clock.sleep

    def throttled_meanwhile(seconds: float) -> None:
        monkeypatch.setattr(clock, "sleep", sleep)
        rate_limiter.refused(0.1, clock.now)
        sleep(seconds)

    monkeypatch.setattr(clock, "sleep", throttled_meanwhile)
    second, third = _starts(rate_limiter, clock, 2)
    assert second >= 1 and third - second >= 1


def test_news_from_requests_that_were_under_way_count_once(clock: Clock) -> None:
    starts = []
    for times in (1, 8):
        rate_limiter, began = RateLimiter(), clock.now
        _starts(rate_limiter, clock, 8)
        for dummy in range(times):
            rate_limiter.refused(1, began)
        starts.append(_starts(rate_limiter, clock, 3))
    assert starts[0] == starts[1]


def test_throttled_again_gets_slower_without_pause(clock: Clock) -> None:
    rate_limiter = RateLimiter()
    gaps = []
    for dummy in range(4):
        first, second = _starts(rate_limiter, clock, 2)
        gaps.append(second - first)
        rate_limiter.accepted()
        clock.now += 0.01
        rate_limiter.refused(0, clock.now)
    assert gaps[0] == 0
    assert all(later > sooner for sooner, later in zip(gaps, gaps[1:]))


def test_once_stopped_nobody_starts(clock: Clock) -> None:
    rate_limiter = RateLimiter(1)
    rate_limiter.wait()
    rate_limiter.stop()
    for seconds in (0, 5):
        with pytest.raises(Cancelled):
            rate_limiter.wait(seconds)


def _run_list(account: Limit, clock: Clock, *, tells_seconds: bool, numbers: int = 400, concurrency: int = 8) -> tuple[float, float]:
    """Register a list of numbers as the pool does, and return the parts of the account's rate used and of the requests refused."""
    rate_limiter, jitter = RateLimiter(), random.Random(1)
    began, waiting, done, refused = clock.now, numbers, 0, 0
    paused: list[float] = []  # until when each
    under_way: list[tuple[float, float]] = []  # end and start of each
    while done < numbers:
        left = 0.0
        while len(under_way) < concurrency and (waiting or (paused and paused[0] <= clock.now)):
            left = rate_limiter.take_turn()
            if left > 0:
                break
            if paused and paused[0] <= clock.now:
                heapq.heappop(paused)
            else:
                waiting -= 1
            heapq.heappush(under_way, (clock.now + 0.02 * jitter.uniform(0.85, 1.15), clock.now))
        events = [under_way[0][0]] if under_way else []
        events += [clock.now + left + 1e-9] if left > 0 else []
        events += [paused[0]] if paused and paused[0] > clock.now else []
        clock.now = min(events)
        while under_way and under_way[0][0] <= clock.now:
            started = heapq.heappop(under_way)[1]
            left = account.seconds_until_accepted(clock.now)
            if not left:
                done += 1
                rate_limiter.accepted()
                continue
            refused += 1
            asked = float(math.ceil(left)) if tells_seconds else 0.0
            rate_limiter.refused(asked, started)
            heapq.heappush(paused, clock.now + (asked or jitter.uniform(0.5, 1)))
    return numbers / (clock.now - began) / account.rate, refused / (numbers + refused)


_ACCOUNTS: dict[str, Callable[[], Limit]] = {
    "bucket-28-1": lambda: Bucket(28, 1),
    "bucket-28-5": lambda: Bucket(28, 5),
    "bucket-28-28": lambda: Bucket(28, 28),
    "bucket-10-1": lambda: Bucket(10, 1),
    "bucket-5-10": lambda: Bucket(5, 10),
    "bucket-2-2": lambda: Bucket(2, 2),
    "window-28-1": lambda: Window(28, 1),
    "window-100-10": lambda: Window(100, 10),
    "window-10-10": lambda: Window(10, 10),
    "window-300-60": lambda: Window(300, 60),
}


@pytest.mark.parametrize("tells_seconds", [False, True], ids=["no-retry-after-or-0", "retry-after-seconds"])
@pytest.mark.parametrize("name", _ACCOUNTS)
def test_the_rate_of_an_account_is_found(name: str, tells_seconds: bool, clock: Clock) -> None:
    used, refused = _run_list(_ACCOUNTS[name](), clock, tells_seconds=tells_seconds)
    assert used >= 0.7
    assert refused <= 0.1


def test_no_pause_is_longer_than_told_however_much_is_refused(clock: Clock) -> None:
    """Else one number would take longer than its attempts and as long a pause between them."""
    rate_limiter = RateLimiter(longest_pause=1)
    for dummy in range(50):
        assert max(_starts(rate_limiter, clock, 1)) <= 1
        rate_limiter.refused(0, clock.now)


def test_an_account_that_refuses_everything_is_blocked_in_the_end(clock: Clock) -> None:
    rate_limiter = RateLimiter(patience=20)
    began, sent = clock.now, 0
    while not rate_limiter.is_blocked:
        rate_limiter.wait()
        sent += 1
        rate_limiter.refused(0, clock.now)
        clock.now += 0.01
    assert 20 < clock.now - began < 25 and sent < 15
    assert _starts(rate_limiter, clock, 3) == [0, 0, 0]  # who is not to send is not to wait
    rate_limiter.accepted()  # one was still under way
    assert not rate_limiter.is_blocked


def test_a_pause_of_one_number_holds_up_nobody(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    rate_limiter = RateLimiter(100)
    sleep, starts = clock.sleep, []

    def another_meanwhile(seconds: float) -> None:
        monkeypatch.setattr(clock, "sleep", sleep)
        starts.extend(_starts(rate_limiter, clock, 3))

    monkeypatch.setattr(clock, "sleep", another_meanwhile)
    rate_limiter.wait(60)
    assert starts == [0, 0.01, 0.02]


def test_nobody_starts_once_the_parent_has_ended(clock: Clock) -> None:
    class Parent:
        def has_ended(self) -> bool:
            return clock.now > 105

    rate_limiter = RateLimiter()
    rate_limiter.parent = Parent()  # type: ignore[assignment]
    rate_limiter.wait()
    with pytest.raises(Cancelled):
        rate_limiter.wait(60)
    assert clock.now < 106
