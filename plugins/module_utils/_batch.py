# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Registers one public key for many numbers in one task, each with its own outcome."""

from __future__ import annotations

import math
import time
import typing as t

from ._batch_summary import Result, join_warnings, message_for_failed, shorten_same_errors
from ._errors import InvalidInput, KaleyraError, require_range
from ._http import MAX_CALLS
from ._parent import Parent
from ._phone_number import missing_plus_warnings, normalise_phone_number
from ._rate_limit import RateLimiter
from ._registration import NumberOutcome, Registration
from ._retry import longest
from ._steps import Steps
from ._threads import for_each_in_threads

# Seconds between two progress messages.
_PROGRESS_INTERVAL = 10.0


def register(
    params: t.Mapping[str, t.Any], *, check_mode: bool, progress: t.Callable[[str], None] = lambda message: None, parent: Parent | None = None
) -> Result:
    """Register the key for all numbers, or for a single one, and return the task's result, including ``warnings`` and ``diff``.

    If a number of a list fails, all others are still tried, and the result has ``failed`` and ``msg``.

    :param params: the module's options, None for those that are not set
    :param progress: called with a progress message from time to time
    :param parent: once it has ended, nothing more is sent
    :raises Cancelled: the parent has ended
    :raises KaleyraError: nothing was sent for any number
    """
    concurrency, rate = params["concurrency"], params["max_requests_per_second"]
    require_range("concurrency", concurrency, 1, MAX_CALLS)
    if rate is not None and not 0.001 <= rate < math.inf:
        raise InvalidInput(f"max_requests_per_second is {rate:g}, but must be 0.001 or more. Leave it out for no limit.")
    rate_limiter = RateLimiter(rate, longest_pause=params["timeout"], patience=longest(params["timeout"], params["retries"]))
    rate_limiter.parent = parent
    registration = Registration(params, rate_limiter)
    alone = params["phone_numbers"] is None
    given = [params["phone_number"]] if alone else params["phone_numbers"]
    outcomes = _start(registration, given)
    if alone and (error := next(iter(outcomes.values())).error):
        raise error
    looked_up = _Work(registration, outcomes, check_mode).do(concurrency, rate_limiter, progress)
    warnings = missing_plus_warnings(given)
    if alone:
        outcome = next(iter(outcomes.values()))
        return {
            **outcome._replace(attempts=outcome.attempts + looked_up).as_result(),
            "warnings": [*warnings, *outcome.warnings],
            "diff": {"before": outcome.state_before(), "after": outcome.state_after()},
        }
    return _result_of_list(outcomes, registration.fingerprint, looked_up, warnings)


def _start(registration: Registration, phone_numbers: t.Sequence[str]) -> dict[str, NumberOutcome]:
    """Return the initial outcome of each distinct number. What is not a number has failed already."""
    outcomes: dict[str, NumberOutcome] = {}
    for text in phone_numbers:
        try:
            number = normalise_phone_number(text)
        except InvalidInput as exc:
            outcomes.setdefault(text, registration.start(text).failed(exc))
        else:
            outcomes.setdefault(number, registration.start(number))
    return outcomes


class _Work:
    """The work for the numbers.

    :param outcomes: of each number, replaced as the work proceeds
    """

    def __init__(self, registration: Registration, outcomes: dict[str, NumberOutcome], check_mode: bool) -> None:
        self._registration = registration
        self._outcomes = outcomes
        self._check_mode = check_mode

    def do(self, concurrency: int, rate_limiter: RateLimiter, progress: t.Callable[[str], None]) -> int:
        """Do the work, and return the number of requests that were sent for all numbers together."""
        read_back = self._registration.read_back
        numbers = [number for number, outcome in self._outcomes.items() if not outcome.error]
        if not read_back:
            numbers = self._plan(numbers)
        if not numbers:
            return 0
        looked_up = 0
        try:
            # What all numbers need is prepared once.
            self._registration.key.require_rsa_2048()
            self._registration.api.prepare()
            if read_back:
                looked_up = read_back.prepare(numbers)
            else:
                self._registration.known(numbers[0]).require_writable()
        except KaleyraError as exc:
            for number in numbers:
                self._outcomes[number] = self._outcomes[number].failed(exc)
        else:
            if read_back or not self._check_mode:
                self._apply(numbers, concurrency, rate_limiter, progress)
        return looked_up

    def _plan(self, numbers: list[str]) -> list[str]:
        """Plan each number, and return those to be changed. Without threads, because this only reads files."""
        for number in numbers:
            self._outcomes[number] = self._registration.plan(self._outcomes[number])
        return [number for number in numbers if self._outcomes[number].to_be_changed]

    def _apply(self, numbers: list[str], concurrency: int, rate_limiter: RateLimiter, progress: t.Callable[[str], None]) -> None:
        def apply(number: str) -> Steps[None]:
            self._outcomes[number] = yield from self._registration.apply(self._outcomes[number], check_mode=self._check_mode)

        done = failed = 0
        reported = time.monotonic()

        def on_progress(number: str | None) -> None:
            nonlocal done, failed, reported
            if number:
                done += 1
                failed += self._outcomes[number].error is not None
            now = time.monotonic()
            if now - reported >= _PROGRESS_INTERVAL:
                reported = now
                progress(f"{done} of {len(numbers)} numbers done, {failed} failed")

        for_each_in_threads(numbers, apply, threads=concurrency, rate_limiter=rate_limiter, on_progress=on_progress)


def _result_of_list(outcomes: t.Mapping[str, NumberOutcome], fingerprint: str, looked_up: int, warnings: list[str]) -> Result:
    results = [outcome.as_result() for outcome in outcomes.values()]
    changed = [outcome for outcome in outcomes.values() if outcome.changed]
    result: Result = {
        "changed": bool(changed),
        "fingerprint": fingerprint,
        "attempts": looked_up + sum(outcome.attempts for outcome in outcomes.values()),
        "numbers": results,
        "warnings": [*warnings, *join_warnings((number, text) for number, outcome in outcomes.items() for text in outcome.warnings)],
    }
    failed = [each for each in results if "failed" in each]
    if failed:
        message = message_for_failed(failed, len(results))
        shorten_same_errors(failed)
        return {**result, "failed": True, "msg": message}
    return {
        **result,
        "diff": {
            "before": {outcome.phone_number: outcome.state_before() for outcome in changed},
            "after": {outcome.phone_number: outcome.state_after() for outcome in changed},
        },
    }
