# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which number carries which key, as far as the records tell."""

from __future__ import annotations

import collections
import datetime
import typing as t

from ._account import PODS, normalise_api_url
from ._phone_number import normalise_phone_number
from ._public_key import normalise_fingerprint, public_key_of
from ._record import InvalidRecord, RecordFile, record_files

STATES = ("confirmed", "unconfirmed", "unreadable", "absent")


def read_registrations(params: t.Mapping[str, t.Any], *, check_mode: bool) -> dict[str, t.Any]:
    """Read the records, and return the task's result. Nothing is written or sent, in check mode and otherwise.

    :param params: the module's options, None for what was not given
    :raises KaleyraError: an option cannot be used, or the folder cannot be read
    """
    wanted = {normalise_phone_number(number) for number in params["phone_numbers"] or () if number}
    filters = {"api": _api(params["pod"], params["api_url"]), "sid": params["sid"]}
    filters = {name: value for name, value in filters.items() if value}
    expected = _expected_fingerprint(params)
    now = datetime.datetime.now(datetime.timezone.utc)
    numbers = []
    for file in record_files(params["cache_path"]):
        identity = file.identity
        if (wanted and identity["phone_number"] not in wanted) or any(identity[name] != value for name, value in filters.items()):
            continue
        found = _read(file, now)
        if found:
            numbers.append({**identity, **found})
    for number in wanted.difference(each["phone_number"] for each in numbers):
        numbers.append({"api": None, "sid": None, **filters, "phone_number": number, **_facts("absent")})
    for each in numbers:
        each["as_expected"] = None if expected is None else each["state"] == "confirmed" and each["fingerprint"] == expected
    numbers.sort(key=lambda each: (each["phone_number"], each["api"] or "", each["sid"] or ""))
    return {"changed": False, "fingerprint": expected, "numbers": numbers, "summary": _summary(numbers, expected)}


def _read(file: RecordFile, now: datetime.datetime) -> dict[str, t.Any] | None:
    """Return the facts of a record, or None if it has gone meanwhile."""
    try:
        record = file.read()
    except InvalidRecord as exc:
        return _facts("unreadable", msg=f"The record {file.path} (cache_path) is ignored: {exc}.")
    if record is None:
        return None
    since = record.since or now
    return _facts(
        "confirmed" if record.confirmed else "unconfirmed",
        fingerprint=record.fingerprint,
        possible_fingerprints=None if record.possible_fingerprints is None else list(record.possible_fingerprints),
        since=_in_utc(since),
        age=int((now - since).total_seconds()),
    )


def _facts(state: str, **known: t.Any) -> dict[str, t.Any]:
    return {"state": state, "fingerprint": None, "possible_fingerprints": None, "since": None, "age": None, "msg": None, **known}


def _summary(numbers: list[dict[str, t.Any]], expected: str | None) -> dict[str, t.Any]:
    by_state = collections.Counter(each["state"] for each in numbers)
    # What an unconfirmed record names, the number may or may not carry.
    by_fingerprint = collections.Counter(each["fingerprint"] for each in numbers if each["state"] == "confirmed")
    # The same number can have records of several accounts.
    different = dict.fromkeys(each["phone_number"] for each in numbers if each["as_expected"] is False)
    return {
        "numbers": len(numbers),
        "by_state": {state: by_state[state] for state in STATES},
        "by_fingerprint": dict(sorted(by_fingerprint.items(), key=lambda item: (-item[1], item[0]))),
        "different": None if expected is None else list(different),
    }


def _api(pod: str | None, api_url: str | None) -> str | None:
    """API host as it stands in records, None for any."""
    url = PODS[pod] if pod else api_url
    return normalise_api_url(url).partition("://")[2] if url else None


def _expected_fingerprint(params: t.Mapping[str, t.Any]) -> str | None:
    if params["fingerprint"]:
        return normalise_fingerprint(params["fingerprint"], "fingerprint")
    if params["business_public_key"] or params["business_public_key_path"]:
        return public_key_of(params).fingerprint
    return None


def _in_utc(since: datetime.datetime) -> str:
    try:
        since = since.astimezone(datetime.timezone.utc)
    except OverflowError:  # within a day of the first or last year there is: as it was written
        pass
    return since.isoformat(timespec="seconds").replace("+00:00", "Z")
