# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.kaleyra.whatsapp.plugins.module_utils import _rate_limit
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._rate_limit import Alone, Cancelled, RateLimiter


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


def test_a_pause_that_is_asked_for_is_kept(clock: Clock) -> None:
    rate_limiter = RateLimiter()
    began = clock.now
    rate_limiter.wait(7)
    assert clock.now - began == 7


def test_after_throttling_nobody_starts_before_the_pause_ends(clock: Clock) -> None:
    rate_limiter = RateLimiter()
    _starts(rate_limiter, clock, 8)
    rate_limiter.throttled(30)
    assert _starts(rate_limiter, clock, 1) == [30]


def test_who_waits_already_waits_for_the_pause_too(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    rate_limiter = RateLimiter(1)
    rate_limiter.wait()
    sleep = clock.sleep

    def throttled_meanwhile(seconds: float) -> None:
        monkeypatch.setattr(clock, "sleep", sleep)
        rate_limiter.throttled(30)
        sleep(seconds)

    monkeypatch.setattr(clock, "sleep", throttled_meanwhile)
    assert _starts(rate_limiter, clock, 1) == [30]


def test_a_short_pause_does_not_give_a_turn_twice(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    rate_limiter = RateLimiter(1)
    rate_limiter.wait()
    sleep = clock.sleep

    def throttled_meanwhile(seconds: float) -> None:
        monkeypatch.setattr(clock, "sleep", sleep)
        rate_limiter.throttled(0.1)
        sleep(seconds)

    monkeypatch.setattr(clock, "sleep", throttled_meanwhile)
    second, third = _starts(rate_limiter, clock, 2)
    assert second >= 1 and third - second >= 1


def test_news_from_requests_that_were_under_way_count_once(clock: Clock) -> None:
    starts = []
    for times in (1, 8):
        rate_limiter = RateLimiter()
        _starts(rate_limiter, clock, 8)
        for dummy in range(times):
            rate_limiter.throttled(1)
        starts.append(_starts(rate_limiter, clock, 3))
    assert starts[0] == starts[1]


def test_throttled_again_it_gets_slower_even_if_no_pause_is_asked_for(clock: Clock) -> None:
    rate_limiter = RateLimiter()
    gaps = []
    for dummy in range(4):
        first, second = _starts(rate_limiter, clock, 2)
        gaps.append(second - first)
        rate_limiter.succeeded()
        clock.now += 0.01
        rate_limiter.throttled(0)
    assert gaps[0] == 0
    assert all(later > sooner for sooner, later in zip(gaps, gaps[1:]))


def test_once_stopped_nobody_starts(clock: Clock) -> None:
    rate_limiter = RateLimiter(1)
    rate_limiter.wait()
    rate_limiter.stop()
    for seconds in (0, 5):
        with pytest.raises(Cancelled):
            rate_limiter.wait(seconds)


class Account:
    """Lets so many requests a second through, and so many at once after a pause."""

    def __init__(self, rate: float, burst: int, clock: Clock) -> None:
        self.rate, self.burst, self.clock = rate, burst, clock
        self.left, self.last = float(burst), clock.now

    def accepts(self) -> bool:
        self.left = min(self.burst, self.left + (self.clock.now - self.last) * self.rate)
        self.last = self.clock.now
        if self.left < 1:
            return False
        self.left -= 1
        return True


@pytest.mark.parametrize("asks", [0, 1], ids=["at-once-or-nothing", "one-second"])
@pytest.mark.parametrize(("rate", "burst"), [(28, 28), (28, 40), (10, 20), (5, 5)])
def test_the_rate_of_an_account_is_found(rate: float, burst: int, asks: float, clock: Clock) -> None:
    account, rate_limiter = Account(rate, burst, clock), RateLimiter()
    began, done, refused = clock.now, 0, 0
    while done < 400:
        rate_limiter.wait()
        clock.now += 0.01
        if account.accepts():
            done += 1
            rate_limiter.succeeded()
        else:
            refused += 1
            rate_limiter.throttled(asks)
    assert 400 / (clock.now - began) >= 0.7 * rate
    assert refused <= 0.1 * 400


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

    for limiter in (RateLimiter(), Alone()):
        clock.now = 100.0
        limiter.parent = Parent()  # type: ignore[assignment]
        limiter.wait()
        with pytest.raises(Cancelled):
            limiter.wait(60)
        assert clock.now < 106
