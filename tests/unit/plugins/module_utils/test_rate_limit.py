# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""When requests may start: at a given rate, at the one that an account is found to have, and not at all after the end."""

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
    """Time that passes only in sleep, so that the speed of the machine makes no difference."""

    def __init__(self) -> None:
        self.now = 100.0
        self.meanwhile: Callable[[], object] | None = None
        """Called once, in the next sleep."""

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile:
            meanwhile()
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


def test_without_a_rate_only_given_pauses_are_kept(clock: Clock) -> None:
    rate_limiter = RateLimiter()
    assert _starts(rate_limiter, clock, 5) == [0, 0, 0, 0, 0]
    began = clock.now
    rate_limiter.wait(7)
    assert clock.now - began == 7


def test_rate_is_held_without_bursts(clock: Clock) -> None:
    rate_limiter = RateLimiter(4)
    assert _starts(rate_limiter, clock, 5) == [0, 0.25, 0.5, 0.75, 1]
    clock.now += 60
    assert _starts(rate_limiter, clock, 3) == [0, 0.25, 0.5]  # what was not used is lost


def test_late_wakeup_does_not_delay_those_that_follow(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    sleep = clock.sleep
    monkeypatch.setattr(clock, "sleep", lambda seconds: sleep(seconds + 0.1))
    assert _starts(RateLimiter(4), clock, 4) == [0, 0.35, 0.6, 0.85]


def test_throttling_pauses_all(clock: Clock) -> None:
    rate_limiter = RateLimiter()
    _starts(rate_limiter, clock, 8)
    rate_limiter.refused(30, clock.now)
    assert _starts(rate_limiter, clock, 1) == [30]


@pytest.mark.parametrize("pause", [30, 0.1])
def test_throttling_counts_for_who_waits_already(clock: Clock, pause: float) -> None:
    rate_limiter = RateLimiter(1)
    rate_limiter.wait()
    clock.meanwhile = lambda: rate_limiter.refused(pause, clock.now)
    second, third = _starts(rate_limiter, clock, 2)
    assert second == max(1, pause) and third - second >= 1  # no turn is given twice


def test_pause_of_one_number_delays_no_other(clock: Clock) -> None:
    rate_limiter = RateLimiter(100)
    starts: list[float] = []
    clock.meanwhile = lambda: starts.extend(_starts(rate_limiter, clock, 3))
    rate_limiter.wait(60)
    assert starts == [0, 0.01, 0.02]


def test_refusals_of_requests_under_way_count_once(clock: Clock) -> None:
    starts = []
    for times in (1, 8):
        rate_limiter, began = RateLimiter(), clock.now
        _starts(rate_limiter, clock, 8)
        for dummy in range(times):
            rate_limiter.refused(1, began)
        starts.append(_starts(rate_limiter, clock, 3))
    assert starts[0] == starts[1]


def test_refusal_without_a_pause_lowers_the_rate(clock: Clock) -> None:
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


def test_no_pause_is_longer_than_the_longest(clock: Clock) -> None:
    """Or one number could take longer than its attempts and as long a pause between them."""
    rate_limiter = RateLimiter(longest_pause=1)
    for dummy in range(50):
        assert max(_starts(rate_limiter, clock, 1)) <= 1
        rate_limiter.refused(0, clock.now)


def test_account_that_refuses_everything_is_blocked(clock: Clock) -> None:
    rate_limiter = RateLimiter(patience=20)
    began, sent = clock.now, 0
    while not rate_limiter.is_blocked:
        rate_limiter.wait()
        sent += 1
        rate_limiter.refused(0, clock.now)
        clock.now += 0.01
    assert 20 < clock.now - began < 25 and sent < 15
    assert _starts(rate_limiter, clock, 3) == [0, 0, 0]  # nobody waits who may not send
    rate_limiter.accepted()  # one was still under way
    assert not rate_limiter.is_blocked


def test_nobody_starts_after_the_end(clock: Clock) -> None:
    class Parent:
        def has_ended(self) -> bool:
            return clock.now > 105

    stopped, orphaned = RateLimiter(1), RateLimiter()
    stopped.wait()
    stopped.stop()
    for seconds in (0, 5):
        with pytest.raises(Cancelled):
            stopped.wait(seconds)
    orphaned.parent = Parent()  # type: ignore[assignment]
    orphaned.wait()
    with pytest.raises(Cancelled):
        orphaned.wait(60)
    assert clock.now < 106


def _run_list(account: Limit, clock: Clock, *, gives_seconds: bool, numbers: int = 400, concurrency: int = 8) -> tuple[float, float]:
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
            asked = float(math.ceil(left)) if gives_seconds else 0.0
            rate_limiter.refused(asked, started)
            heapq.heappush(paused, clock.now + (asked or jitter.uniform(0.5, 1)))
    return numbers / (clock.now - began) / account.rate, refused / (numbers + refused)


@pytest.mark.parametrize("gives_seconds", [False, True], ids=["no-retry-after-or-0", "retry-after-seconds"])
@pytest.mark.parametrize(
    ("kind", "amount", "seconds"),
    [
        *((Bucket, 28, 1), (Bucket, 28, 5), (Bucket, 28, 28), (Bucket, 10, 1), (Bucket, 5, 10), (Bucket, 2, 2)),
        *((Window, 28, 1), (Window, 100, 10), (Window, 10, 10), (Window, 300, 60)),
    ],
)
def test_rate_of_an_account_is_found(kind: Callable[[int, int], Limit], amount: int, seconds: int, gives_seconds: bool, clock: Clock) -> None:
    used, refused = _run_list(kind(amount, seconds), clock, gives_seconds=gives_seconds)
    assert used >= 0.7
    assert refused <= 0.1
