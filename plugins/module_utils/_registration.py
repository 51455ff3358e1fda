# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plans what to do for a number and why, and does it in steps."""

from __future__ import annotations

import contextlib
import os
import time
import typing as t

from ._account import make_account
from ._api import FlowsEncryptionApi
from ._errors import KaleyraError, KeyNotRead, OutcomeUnknown, RecordBusy, RecordError, require_range
from ._held_key import HeldKey
from ._http import MAX_TIMEOUT, Tls
from ._public_key import normalise_fingerprint, public_key_of
from ._rate_limit import RateLimiter
from ._read_back import make_read_back
from ._read_back_plan import plan_from_held
from ._record import InvalidRecord, KnownKey, RecordFile
from ._steps import Pause, Steps

# Seconds between two attempts to acquire the lock of a number that another process is registering.
_LOOK_AT_LOCK = 0.05


class Plan(t.NamedTuple):
    """Whether to register the key, and why.

    :param reason: ``up_to_date``, ``absent``, ``different``, ``expired``, ``forced``, ``unconfirmed`` or ``unreadable``,
        and if the key was read back also ``drifted`` or ``mismatch``
    :param previous_fingerprint: the key that the number is known to carry, None if unknown
    """

    reason: str
    previous_fingerprint: str | None = None
    warning: str | None = None

    @property
    def changed(self) -> bool:
        return self.reason != "up_to_date"


def make_plan(known: KnownKey | RecordFile, fingerprint: str, *, force: bool, cache_valid_time: int | None) -> Plan:
    """Compare the wanted key with what is known. Only reads, so check mode and real runs share it."""
    try:
        record = known.read()
    except InvalidRecord as exc:
        return Plan("unreadable", None, f"Ignoring an invalid record in cache_path; registering the key again ({exc}).")
    if record is None:
        return Plan("absent")
    if not record.confirmed:
        return Plan("unconfirmed")
    if record.fingerprint != fingerprint:
        return Plan("different", record.fingerprint)
    if cache_valid_time is not None and record.is_older_than(cache_valid_time):
        return Plan("expired", fingerprint)
    return Plan("forced" if force else "up_to_date", fingerprint)


class NumberOutcome(t.NamedTuple):
    """The plan for a number, and its outcome.

    :param phone_number: in E.164, or the original text if it is not a number
    :param fingerprint: of the wanted key
    :param reads_back: whether the result contains what was read back
    :param plan: None if it is not known yet
    :param attempts: requests sent
    :param held: the key that the number carried before, None if it was not read
    :param verified: whether the number was seen to carry the key afterwards, None if that could not be read
    :param answer: ``http_status``, ``code`` and ``message`` of the last answer to a registration
    :param further_warnings: in addition to that of the plan
    :param error: why it failed, None if it did not
    """

    phone_number: str
    fingerprint: str
    reads_back: bool = False
    plan: Plan | None = None
    attempts: int = 0
    held: HeldKey | None = None
    verified: bool | None = None
    answer: t.Mapping[str, t.Any] = {}
    further_warnings: tuple[str, ...] = ()
    error: KaleyraError | None = None

    def failed(self, error: KaleyraError) -> NumberOutcome:
        """Return this outcome with the error, and with the requests that it counted."""
        return self._replace(error=error, attempts=self.attempts + error.details.get("attempts", 0))

    def answered(self, answer: t.Mapping[str, t.Any]) -> NumberOutcome:
        """Return this outcome with what :meth:`FlowsEncryptionApi.set_public_key` returned."""
        return self._replace(
            attempts=self.attempts + answer["attempts"], answer={name: value for name, value in answer.items() if name != "attempts"}
        )

    def warning(self, text: str) -> NumberOutcome:
        """Return this outcome with one more warning."""
        return self._replace(further_warnings=(*self.further_warnings, text))

    @property
    def to_be_changed(self) -> bool:
        return self.plan is not None and self.plan.changed

    @property
    def changed(self) -> bool:
        return self.to_be_changed and self.error is None

    @property
    def warnings(self) -> tuple[str, ...]:
        return (self.plan.warning, *self.further_warnings) if self.plan and self.plan.warning else self.further_warnings

    def as_result(self) -> dict[str, t.Any]:
        """Return the number's part of the task's result."""
        result = {
            "changed": self.changed,
            "phone_number": self.phone_number,
            "fingerprint": self.fingerprint,
            "previous_fingerprint": self.plan.previous_fingerprint if self.plan else None,
            "reason": self.plan.reason if self.plan else None,
            "attempts": self.attempts,
        }
        if self.reads_back:
            held = self.held or HeldKey()
            result.update(held_fingerprint=held.fingerprint, held_status=held.status, verified=self.verified)
        result.update(self.answer)
        if self.error:
            result.update({**self.error.details, "attempts": self.attempts, "failed": True, "msg": str(self.error)})
        return result

    def state_before(self) -> dict[str, t.Any]:
        """Return what was known of the number before, for the diff."""
        reason = self.plan.reason if self.plan else None
        state = reason if reason in ("absent", "unconfirmed", "unreadable", "expired") else "confirmed"
        return {"phone_number": self.phone_number, "fingerprint": self.plan.previous_fingerprint if self.plan else None, "record": state}

    def state_after(self) -> dict[str, t.Any]:
        """Return what is known of the number afterwards, for the diff."""
        return {"phone_number": self.phone_number, "fingerprint": self.fingerprint, "record": "confirmed"}


class Registration:
    """What a task does for each of its numbers.

    :param params: the module's options, None for those that are not set
    :param rate_limiter: is notified of what the API refuses
    :raises InvalidInput: an option cannot be used for any number
    """

    def __init__(self, params: t.Mapping[str, t.Any], rate_limiter: RateLimiter) -> None:
        require_range("timeout", params["timeout"], 1, MAX_TIMEOUT)
        require_range("retries", params["retries"], 0, 1000)
        require_range("cache_valid_time", params["cache_valid_time"], 0)
        self.account = make_account(*_pod_or_api_url(params), params["sid"], params["api_key"])
        self.key = public_key_of(params)
        self.fingerprint = self.key.fingerprint
        self.api = FlowsEncryptionApi(
            self.account, params["timeout"], params["retries"], Tls(params["validate_certs"], params["ca_path"]), rate_limiter
        )
        self.read_back = make_read_back(params, self.account, rate_limiter)
        self._read_back_required: bool = params["read_back_required"]
        self._known = KnownKey(normalise_fingerprint(params["known_fingerprint"])) if params["known_fingerprint"] else None
        self.cache_path: str = params["cache_path"]
        self._force: bool = params["force"]
        self._cache_valid_time: int | None = params["cache_valid_time"]

    def known(self, phone_number: str) -> KnownKey | RecordFile:
        """Return the record of the number, or what the caller states."""
        return self._known or RecordFile(self.cache_path, self.account.api, self.account.sid, phone_number)

    def start(self, phone_number: str) -> NumberOutcome:
        """Return the number's outcome before anything is known."""
        return NumberOutcome(phone_number, self.fingerprint, reads_back=self.read_back is not None)

    def plan(self, outcome: NumberOutcome) -> NumberOutcome:
        """Return the outcome with its plan, made from what is known now."""
        return outcome._replace(plan=self._make_plan(self.known(outcome.phone_number), outcome.held))

    def _make_plan(self, known: KnownKey | RecordFile, held: HeldKey | None) -> Plan:
        plan = make_plan(known, self.fingerprint, force=self._force, cache_valid_time=self._cache_valid_time)
        return plan_from_held(plan, held, self.fingerprint, force=self._force) if held else plan

    def apply(self, outcome: NumberOutcome, *, check_mode: bool) -> Steps[NumberOutcome]:
        """Register the key for the number if needed, and return the outcome. The first step may send a request."""
        known = self.known(outcome.phone_number)
        try:
            outcome = yield from self._read_held(outcome)
            self._require_read(outcome)
            outcome = self.plan(outcome)
            if outcome.to_be_changed:
                self.key.require_rsa_2048()
                self.api.prepare()
                known.require_writable()
            if check_mode or not (outcome.to_be_changed or _is_contradicted(known, outcome.held)):
                return outcome
            with (yield from self._exclusively(known)):
                planned, outcome = outcome.plan, self.plan(outcome)
                if outcome.held and outcome.plan != planned:  # another process has changed it in the meantime
                    yield Pause()
                    outcome = yield from self._read_held(outcome)
                    self._require_read(outcome)
                    outcome = self.plan(outcome)
                if outcome.held and not outcome.held.unknown:
                    known.correct(outcome.held.fingerprint)
                if not outcome.to_be_changed:
                    return outcome
                registered = False
                try:
                    with known.registering(self.fingerprint):
                        if outcome.held:  # the first step has already sent a request
                            yield Pause()
                        answered = yield from self.api.set_public_key(outcome.phone_number, self.key.pem)
                        outcome = outcome.answered(answered)
                        outcome, carried = yield from self._verify(outcome)
                        if carried:
                            raise self._not_visible(outcome, carried)
                        registered = True
                except RecordError as exc:
                    if not registered:
                        raise
                    outcome = outcome.warning(f"The key is registered, but not on record, so the next run will register it again. {exc}")
        except RecordError as exc:
            if outcome.to_be_changed or outcome.plan is None:
                return outcome.failed(exc)
            return outcome.warning(f"The number carries the key, but the record could not be corrected. {exc}")
        except KaleyraError as exc:
            return outcome.failed(exc)
        return outcome

    def _read_held(self, outcome: NumberOutcome) -> Steps[NumberOutcome]:
        """Return the outcome with what the number carries, if that is read. With ``force``, nothing depends on it, so it is not.

        :raises InvalidInput: the source does not know the number
        """
        if not self.read_back or (self._force and not self._read_back_required):
            return outcome
        held, attempts = yield from self.read_back.read(outcome.phone_number)
        return outcome._replace(held=held, attempts=outcome.attempts + attempts)

    def _require_read(self, outcome: NumberOutcome) -> None:
        if outcome.held and outcome.held.unknown and self._read_back_required:
            raise KeyNotRead(
                f"The key that {outcome.phone_number} carries could not be read, but read_back_required is set: {outcome.held.unknown} "
                "Nothing was registered."
            )

    def _exclusively(self, known: KnownKey | RecordFile) -> Steps[contextlib.ExitStack]:
        """Wait for other processes, and return a context in which none of them registers the number.

        :raises RecordError: the folder cannot be written, or another process does not finish
        """
        began = time.monotonic()
        stack = contextlib.ExitStack()
        while True:
            waited = time.monotonic() - began
            try:
                stack.enter_context(known.exclusive(0, waited=waited))
                return stack
            except RecordBusy:
                if waited >= self.api.longest():
                    raise
            yield Pause(_LOOK_AT_LOCK, sends=False)

    def _verify(self, outcome: NumberOutcome) -> Steps[tuple[NumberOutcome, str | None]]:
        """Read the key until the number carries it, because it may become visible late; after ``timeout``, return what it carries instead."""
        if not self.read_back:
            return outcome, None
        end = time.monotonic() + self.api.timeout
        pause = 0.0
        while True:
            yield Pause(pause)
            held, attempts = yield from self.read_back.read(outcome.phone_number)
            outcome = outcome._replace(attempts=outcome.attempts + attempts)
            if held.unknown:
                return outcome.warning(f"The key was registered, but could not be read again: {held.unknown}"), None
            if held.carries(self.fingerprint):
                return outcome._replace(verified=True), None
            pause = max(0.1, min(2 * pause, 5.0))
            if time.monotonic() + pause > end:
                break
        if held.fingerprint == self.fingerprint:
            return outcome._replace(verified=False), "it with the status mismatch"
        return outcome._replace(verified=False), f"the key {held.fingerprint}" if held.fingerprint else "no key"

    def _not_visible(self, outcome: NumberOutcome, carried: str) -> OutcomeUnknown:
        return OutcomeUnknown(
            f"The API confirmed the key of {outcome.phone_number}, but after {self.api.timeout} seconds the number still carries {carried}. "
            "Run it again. If this does not change, find out whether somebody else registers keys for the number, or contact Kaleyra's support."
        )


def _is_contradicted(known: KnownKey | RecordFile, held: HeldKey | None) -> bool:
    """Whether the record differs from the key that was read back."""
    return held is not None and not held.unknown and not known.is_correct(held.fingerprint)


def _pod_or_api_url(params: t.Mapping[str, t.Any]) -> tuple[str | None, str | None]:
    """Return the pod and the API URL of the task, or else both from the environment, so that they cannot contradict each other."""
    if params["pod"] or params["api_url"]:
        return params["pod"], params["api_url"]
    return os.environ.get("KALEYRA_POD"), os.environ.get("KALEYRA_API_URL")
