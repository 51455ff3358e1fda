# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Makes one number carry one public key: what is to be done, and doing it."""

from __future__ import annotations

import os
import typing as t

from ._account import make_account
from ._api import FlowsEncryptionApi
from ._errors import KaleyraError, RecordError, require_range
from ._http import MAX_TIMEOUT, Tls
from ._parent import Parent
from ._phone_number import normalise_phone_number
from ._public_key import normalise_fingerprint, public_key_of
from ._rate_limit import Alone
from ._record import InvalidRecord, KnownKey, RecordFile


class Plan(t.NamedTuple):
    """Whether to register, and why.

    :param reason: ``up_to_date``, ``absent``, ``different``, ``expired``, ``forced``, ``unconfirmed`` or ``unreadable``
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
    """What a task wants of each of its numbers, and bringing it about for one of them.

    :param params: the module's options, None for what was not given
    :raises InvalidInput: for what no number could be registered with
    """

    def __init__(self, params: t.Mapping[str, t.Any], rate_limiter: Alone = Alone()) -> None:
        require_range("timeout", params["timeout"], 1, MAX_TIMEOUT)
        require_range("retries", params["retries"], 0, 1000)
        require_range("cache_valid_time", params["cache_valid_time"], 0)
        self.account = make_account(*_pod_or_api_url(params), params["sid"], params["api_key"])
        self.key = public_key_of(params)
        self.fingerprint = self.key.fingerprint
        self.api = FlowsEncryptionApi(
            self.account, params["timeout"], params["retries"], Tls(params["validate_certs"], params["ca_path"]), rate_limiter
        )
        self._known = KnownKey(normalise_fingerprint(params["known_fingerprint"])) if params["known_fingerprint"] else None
        self.cache_path: str = params["cache_path"]
        self._force: bool = params["force"]
        self._cache_valid_time: int | None = params["cache_valid_time"]

    def known(self, phone_number: str) -> KnownKey | RecordFile:
        """What tells the key that the number carries."""
        return self._known or RecordFile(self.cache_path, self.account.api, self.account.sid, phone_number)

    def plan(self, known: KnownKey | RecordFile) -> Plan:
        """What is to be done as things stand."""
        return make_plan(known, self.fingerprint, force=self._force, cache_valid_time=self._cache_valid_time)

    def initial_result(self, plan: Plan, phone_number: str) -> dict[str, t.Any]:
        """The number's result, before anything is done."""
        return {
            "changed": plan.changed,
            "phone_number": phone_number,
            "fingerprint": self.fingerprint,
            "previous_fingerprint": plan.previous_fingerprint,
            "reason": plan.reason,
            "attempts": 0,
        }

    def apply(self, known: KnownKey | RecordFile, result: dict[str, t.Any]) -> list[str]:
        """Register the number that these are the facts of, add to them what came of it, and return warnings.

        :raises KaleyraError: with further facts in ``details``
        """
        with known.exclusive(timeout=self.api.longest()):
            plan = self.plan(known)  # what another process has done meanwhile counts
            result.update(self.initial_result(plan, result["phone_number"]))
            warnings = [plan.warning] if plan.warning else []
            if not plan.changed:
                return warnings
            registered = False
            try:
                with known.registering(self.fingerprint):
                    result.update(self.api.set_public_key(result["phone_number"], self.key.pem))
                    registered = True
            except RecordError as exc:
                if not registered:
                    raise
                warnings.append(f"The key is registered, but not on record: the next run will register it again. {exc}")
            return warnings


def register(params: t.Mapping[str, t.Any], *, check_mode: bool, parent: Parent | None = None) -> dict[str, t.Any]:
    """Bring the number to carry the key, and return the task's result, ``warnings`` and ``diff`` included.

    :param params: the module's options, None for what was not given
    :raises KaleyraError: with the result's facts in ``details``
    """
    alone = Alone()
    alone.parent = parent
    registration = Registration(params, alone)
    phone_number = normalise_phone_number(params["phone_number"])
    known = registration.known(phone_number)
    plan = registration.plan(known)
    result = registration.initial_result(plan, phone_number)
    warnings = [plan.warning] if plan.warning else []
    try:
        if plan.changed:
            registration.key.require_rsa_2048()
            registration.api.prepare()
            known.require_writable()
        if plan.changed and not check_mode:
            warnings = registration.apply(known, result)
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
