# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Makes one number carry one public key: what is to be done, and doing it."""

from __future__ import annotations

import os
import time
import typing as t

from ._account import make_account
from ._api import FlowsEncryptionApi
from ._errors import ApiError, KaleyraError, KeyNotRead, OutcomeUnknown, RecordError, require_range
from ._held_key import HeldKey
from ._http import MAX_TIMEOUT, Tls
from ._parent import Parent
from ._phone_number import missing_plus_warnings, normalise_phone_number
from ._public_key import normalise_fingerprint, public_key_of
from ._rate_limit import RateLimiter
from ._read_back import make_read_back
from ._read_back_plan import plan_from_held
from ._record import InvalidRecord, KnownKey, RecordFile
from ._retry import longest


class Plan(t.NamedTuple):
    """Whether to register, and why.

    :param reason: ``up_to_date``, ``absent``, ``different``, ``expired``, ``forced``, ``unconfirmed`` or ``unreadable``,
        and where the key was read back also ``drifted`` or ``mismatch``
    :param previous_fingerprint: the key that the number is known to carry, None if unknown
    """

    reason: str
    previous_fingerprint: str | None = None
    warning: str | None = None

    @property
    def changed(self) -> bool:
        return self.reason != "up_to_date"


def make_plan(known: KnownKey | RecordFile, fingerprint: str, *, force: bool, cache_valid_time: int | None) -> Plan:
    """Compare the wanted key with what is known. Reads only, for check mode and real runs alike."""
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


class Registration:
    """What a task wants of each of its numbers, and how one of them gets it.

    :param params: the module's options, None for what was not given
    :raises InvalidInput: for what no number could be registered with
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
        self._rate_limiter = rate_limiter
        self._known = KnownKey(normalise_fingerprint(params["known_fingerprint"])) if params["known_fingerprint"] else None
        self.cache_path: str = params["cache_path"]
        self._force: bool = params["force"]
        self._cache_valid_time: int | None = params["cache_valid_time"]

    def known(self, phone_number: str) -> KnownKey | RecordFile:
        """What tells the key that the number carries."""
        return self._known or RecordFile(self.cache_path, self.account.api, self.account.sid, phone_number)

    def read_held(self, result: dict[str, t.Any]) -> HeldKey | None:
        """Return what the number with this result carries, None where it is not read, and count the requests.

        With ``force`` nothing depends on it, which saves a third of the requests.

        :raises KeyNotRead: it could not be read, and has to be
        :raises InvalidInput: the source does not know the number
        """
        if not self.read_back or (self._force and not self._read_back_required):
            return None
        held, attempts = self.read_back.read(result["phone_number"])
        result["attempts"] += attempts
        if held.unknown and self._read_back_required:
            raise KeyNotRead(
                f"The key that {result['phone_number']} carries could not be read, which read_back_required asks for: {held.unknown} "
                "Nothing was registered."
            )
        return held

    def plan(self, known: KnownKey | RecordFile, held: HeldKey | None = None) -> Plan:
        """What is to be done as things stand."""
        plan = make_plan(known, self.fingerprint, force=self._force, cache_valid_time=self._cache_valid_time)
        return plan_from_held(plan, held, self.fingerprint, force=self._force) if held else plan

    def initial_result(self, phone_number: str) -> dict[str, t.Any]:
        """The number's result, before anything is known."""
        result = {
            "changed": False,
            "phone_number": phone_number,
            "fingerprint": self.fingerprint,
            "previous_fingerprint": None,
            "reason": None,
            "attempts": 0,
        }
        return {**result, "held_fingerprint": None, "held_status": None, "verified": None} if self.read_back else result

    def apply(self, known: KnownKey | RecordFile, result: dict[str, t.Any], *, check_mode: bool) -> list[str]:
        """Register the number that this is the result of where need be, add to it what came of it, and return warnings.

        :raises KaleyraError: with further facts in ``details``
        """
        held = self.read_held(result)
        plan = self.plan(known, held)
        add_plan(result, plan, held)
        if plan.changed:
            self.key.require_rsa_2048()
            self.api.prepare()
            known.require_writable()
        if check_mode or not (plan.changed or _is_contradicted(known, held)):
            return [plan.warning] if plan.warning else []
        try:
            with known.exclusive(timeout=self.api.longest()):
                return self._apply_exclusively(known, result, plan, held)
        except RecordError as exc:
            if result["changed"]:
                raise
            return [f"The number carries the key, but the record could not be corrected. {exc}"]

    def _apply_exclusively(self, known: KnownKey | RecordFile, result: dict[str, t.Any], planned: Plan, held: HeldKey | None) -> list[str]:
        plan = self.plan(known, held)
        if held and plan != planned:  # what another process has done meanwhile counts
            self._rate_limiter.wait()
            held = self.read_held(result)
            plan = self.plan(known, held)
        add_plan(result, plan, held)
        if held and not held.unknown:
            known.correct(held.fingerprint)
        warnings = [plan.warning] if plan.warning else []
        if not plan.changed:
            return warnings
        registered = False
        try:
            with known.registering(self.fingerprint):
                if held:  # the pool has waited for the first request
                    self._rate_limiter.wait()
                self._set_public_key(result)
                warnings.extend(self._verify(result))
                registered = True
        except RecordError as exc:
            if not registered:
                raise
            warnings.append(f"The key is registered, but not on record: the next run will register it again. {exc}")
        return warnings

    def _set_public_key(self, result: dict[str, t.Any]) -> None:
        sent = result["attempts"]
        try:
            answered = self.api.set_public_key(result["phone_number"], self.key.pem)
        except ApiError as exc:
            exc.details["attempts"] += sent
            raise
        result.update(answered, attempts=sent + answered["attempts"])

    def _verify(self, result: dict[str, t.Any]) -> list[str]:
        """Read the key again until the number is seen to carry it, as it may become visible late; return warnings.

        :raises OutcomeUnknown: it is not seen within ``timeout``
        """
        if not self.read_back:
            return []
        end = time.monotonic() + self.api.timeout
        pause = 0.0
        while True:
            time.sleep(pause)
            self._rate_limiter.wait()
            held, attempts = self.read_back.read(result["phone_number"])
            result["attempts"] += attempts
            if held.unknown:
                return [f"The key was registered, but could not be read again: {held.unknown}"]
            if held.carries(self.fingerprint):
                result["verified"] = True
                return []
            pause = max(0.1, min(2 * pause, 5.0))
            if time.monotonic() + pause > end:
                break
        result["verified"] = False
        carried = f"the key {held.fingerprint}" if held.fingerprint else "no key"
        if held.fingerprint == self.fingerprint:
            carried = "it with the status mismatch"
        raise OutcomeUnknown(
            f"The API confirmed the key of {result['phone_number']}, but the number is still seen to carry {carried} after {self.api.timeout} "
            "seconds. Run it again. If it stays so, look for somebody else who registers keys for the number, or ask Kaleyra's support.",
            attempts=result["attempts"],
            verified=False,
        )


def add_plan(result: dict[str, t.Any], plan: Plan, held: HeldKey | None = None) -> None:
    """Add to the number's result what is to be done."""
    result.update(changed=plan.changed, reason=plan.reason, previous_fingerprint=plan.previous_fingerprint)
    if held:
        result.update(held_fingerprint=held.fingerprint, held_status=held.status)


def _is_contradicted(known: KnownKey | RecordFile, held: HeldKey | None) -> bool:
    """Whether the record does not say what the number is seen to carry."""
    return held is not None and not held.unknown and not known.is_correct(held.fingerprint)


def register(params: t.Mapping[str, t.Any], *, check_mode: bool, parent: Parent | None = None) -> dict[str, t.Any]:
    """Bring the number to carry the key, and return the task's result, ``warnings`` and ``diff`` included.

    :param params: the module's options, None for what was not given
    :raises KaleyraError: with the result's facts in ``details``
    """
    rate_limiter = RateLimiter(longest_pause=params["timeout"], patience=longest(params["timeout"], params["retries"]))
    rate_limiter.parent = parent
    registration = Registration(params, rate_limiter)
    phone_number = normalise_phone_number(params["phone_number"])
    warnings = missing_plus_warnings([params["phone_number"]])
    result = registration.initial_result(phone_number)
    try:
        if registration.read_back:
            result["attempts"] = registration.read_back.prepare([phone_number])
        warnings += registration.apply(registration.known(phone_number), result, check_mode=check_mode)
    except KaleyraError as exc:
        exc.details = {**result, "changed": False, "warnings": warnings, **exc.details}
        raise
    return {**result, "warnings": warnings, "diff": {"before": state_before(result), "after": state_after(result)}}


def state_before(result: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """For the diff, what was known of the number that these are the facts of."""
    state = result["reason"] if result["reason"] in ("absent", "unconfirmed", "unreadable", "expired") else "confirmed"
    return {"phone_number": result["phone_number"], "fingerprint": result["previous_fingerprint"], "record": state}


def state_after(result: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """For the diff, what is then known."""
    return {"phone_number": result["phone_number"], "fingerprint": result["fingerprint"], "record": "confirmed"}


def _pod_or_api_url(params: t.Mapping[str, t.Any]) -> tuple[str | None, str | None]:
    """What the task gives counts alone; the environment stands in for both together, so that one cannot contradict the other."""
    if params["pod"] or params["api_url"]:
        return params["pod"], params["api_url"]
    return os.environ.get("KALEYRA_POD"), os.environ.get("KALEYRA_API_URL")
