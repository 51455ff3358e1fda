# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Makes many numbers carry one public key in one task, and tells of each what came of it."""

from __future__ import annotations

import math
import time
import typing as t

from ._batch_summary import Result, join_warnings, message_for_failed, shorten_same_errors
from ._errors import InvalidInput, KaleyraError, SomeFailed, require_range
from ._http import MAX_CALLS
from ._parent import Parent
from ._phone_number import missing_plus_warnings, normalise_phone_number
from ._rate_limit import RateLimiter
from ._record import KnownKey, RecordFile
from ._registration import Registration, add_plan, state_after, state_before
from ._retry import longest
from ._threads import for_each_in_threads

# Seconds between two words on how far it is.
_PROGRESS_INTERVAL = 10.0

_Job = tuple[t.Union[KnownKey, RecordFile], Result]


def register_batch(params: t.Mapping[str, t.Any], *, check_mode: bool, progress: t.Callable[[str], None], parent: Parent | None = None) -> Result:
    """Bring all numbers to carry the key, and return the task's result, ``warnings`` and ``diff`` included.

    :param params: the module's options, None for what was not given
    :param progress: called now and then while it takes long, with a few words on how far it is
    :param parent: when it has ended, nothing further is sent
    :raises Cancelled: it has ended
    :raises SomeFailed: every number was tried
    :raises KaleyraError: nothing was sent for any of them
    """
    concurrency, rate = params["concurrency"], params["max_requests_per_second"]
    require_range("concurrency", concurrency, 1, MAX_CALLS)
    if rate is not None and not 0.001 <= rate < math.inf:
        raise InvalidInput(f"max_requests_per_second is {rate:g}, but must be 0.001 or more. Leave it out for no limit.")
    rate_limiter = RateLimiter(rate, longest_pause=params["timeout"], patience=longest(params["timeout"], params["retries"]))
    rate_limiter.parent = parent
    registration = Registration(params, rate_limiter)
    warnings: list[tuple[str, str]] = []
    results, jobs = _list_numbers(registration, params["phone_numbers"])
    looked_up = 0
    if not registration.read_back:
        jobs = _plan(registration, jobs, warnings)
    if jobs:
        try:
            # What all of them need, once for all.
            registration.key.require_rsa_2048()
            registration.api.prepare()
            if registration.read_back:
                looked_up = registration.read_back.prepare([result["phone_number"] for dummy, result in jobs])
            else:
                jobs[0][0].require_writable()
        except KaleyraError as exc:
            for dummy, result in jobs:
                _fail(result, exc)
        else:
            if registration.read_back or not check_mode:
                _apply(registration, jobs, concurrency, rate_limiter, warnings, progress, check_mode)
    outcome = {
        "changed": any(result["changed"] for result in results),
        "fingerprint": registration.fingerprint,
        "attempts": looked_up + sum(result["attempts"] for result in results),
        "numbers": results,
        "warnings": [*missing_plus_warnings(params["phone_numbers"]), *join_warnings(warnings)],
    }
    failed = [result for result in results if "failed" in result]
    if failed:
        message = message_for_failed(failed, len(results))
        shorten_same_errors(failed)
        raise SomeFailed(message, **outcome)
    changed = [result for result in results if result["changed"]]
    return {
        **outcome,
        "diff": {
            "before": {result["phone_number"]: state_before(result) for result in changed},
            "after": {result["phone_number"]: state_after(result) for result in changed},
        },
    }


def _list_numbers(registration: Registration, phone_numbers: t.Sequence[str]) -> tuple[list[Result], list[_Job]]:
    """Return the result of each number, each once, and what is to be looked at."""
    results: dict[str, Result] = {}
    jobs: list[_Job] = []
    for text in phone_numbers:
        try:
            phone_number = normalise_phone_number(text)
        except InvalidInput as exc:
            _fail(results.setdefault(text, registration.initial_result(text)), exc)
            continue
        if phone_number not in results:
            results[phone_number] = registration.initial_result(phone_number)
            jobs.append((registration.known(phone_number), results[phone_number]))
    return list(results.values()), jobs


def _plan(registration: Registration, jobs: list[_Job], warnings: list[tuple[str, str]]) -> list[_Job]:
    """Add to each result what is to be done as things stand, and return what is. Without threads: reading files is all there is to do."""
    to_do = []
    for known, result in jobs:
        plan = registration.plan(known)
        add_plan(result, plan)
        if plan.warning:
            warnings.append((result["phone_number"], plan.warning))
        if plan.changed:
            to_do.append((known, result))
    return to_do


def _apply(
    registration: Registration,
    jobs: list[_Job],
    concurrency: int,
    rate_limiter: RateLimiter,
    warnings: list[tuple[str, str]],
    progress: t.Callable[[str], None],
    check_mode: bool,
) -> None:
    planned = set(warnings)

    def apply(job: _Job) -> None:
        known, result = job
        try:
            told = registration.apply(known, result, check_mode=check_mode)
        except KaleyraError as exc:
            _fail(result, exc)
        else:
            warnings.extend(each for each in ((result["phone_number"], text) for text in told) if each not in planned)

    done = failed = 0
    said = time.monotonic()

    def on_progress(job: _Job | None) -> None:
        nonlocal done, failed, said
        if job:
            done += 1
            failed += "failed" in job[1]
        now = time.monotonic()
        if now - said >= _PROGRESS_INTERVAL:
            said = now
            progress(f"{done} of {len(jobs)} numbers done, {failed} failed")

    for_each_in_threads(jobs, apply, threads=concurrency, rate_limiter=rate_limiter, on_progress=on_progress)


def _fail(result: Result, exc: KaleyraError) -> None:
    result.update({**exc.details, "changed": False, "failed": True, "msg": str(exc)})
