# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Returns which number carries which key, from the records and from what is read back."""

from __future__ import annotations

import collections
import datetime
import os
import typing as t

from ._account import PODS, make_account, normalise_api_url
from ._errors import InvalidInput, SomeFailed, require_range
from ._held_key import HeldKey
from ._http import MAX_CALLS, MAX_TIMEOUT
from ._phone_number import missing_plus_warnings, normalise_phone_number
from ._public_key import normalise_fingerprint, public_key_of
from ._rate_limit import RateLimiter
from ._read_back import ReadBack, make_read_back
from ._record import InvalidRecord, Record, RecordFile, record_files
from ._retry import longest
from ._steps import Steps
from ._threads import for_each_in_threads

# The last one only from what is read back.
STATES = ("confirmed", "unconfirmed", "unreadable", "absent", "drifted")


def read_registrations(params: t.Mapping[str, t.Any], *, check_mode: bool) -> dict[str, t.Any]:
    """Read the records, and return the task's result. Nothing is written, and only the GET requests of ``read_back`` are sent.

    :param params: the module's options, None for those that are not set
    :raises SomeFailed: with ``read_back_required``, the key of a number could not be read
    :raises KaleyraError: an option cannot be used, or the folder cannot be read
    """
    if params["pod"] and params["api_url"]:
        raise InvalidInput("Set at most one of pod and api_url.")
    # The defaults are those of kaleyra_flows_encryption.
    timeout = 30 if params["timeout"] is None else params["timeout"]
    retries = 3 if params["retries"] is None else params["retries"]
    rate_limiter = RateLimiter(params["max_requests_per_second"], longest_pause=timeout, patience=longest(timeout, retries))
    source = _read_back({**params, "timeout": timeout, "retries": retries}, rate_limiter)
    wanted = {normalise_phone_number(number) for number in params["phone_numbers"] or () if number}
    filters = {"api": _api(params["pod"], params["api_url"]), "sid": params["sid"]}
    filters = {name: value for name, value in filters.items() if value}
    expected = _expected_fingerprint(params)
    now = datetime.datetime.now(datetime.timezone.utc)
    numbers = []
    records: dict[int, Record | None] = {}
    for file in record_files(params["cache_path"]):
        identity = file.identity
        if (wanted and identity["phone_number"] not in wanted) or any(identity[name] != value for name, value in filters.items()):
            continue
        found = _read(file, now)
        if found:
            record, facts = found
            numbers.append({**identity, **facts})
            records[id(numbers[-1])] = record
    for number in wanted.difference(each["phone_number"] for each in numbers):
        numbers.append({"api": None, "sid": None, **filters, "phone_number": number, **_facts("absent")})
    held = _read_held(source, [each["phone_number"] for each in numbers], params["concurrency"], rate_limiter) if source else {}
    for each in numbers:
        if source:
            each.update(_held_facts(each, records.get(id(each)), held[each["phone_number"]]))
        each["as_expected"] = _is_as_expected(each, expected, held.get(each["phone_number"]))
    numbers.sort(key=lambda each: (each["phone_number"], each["api"] or "", each["sid"] or ""))
    result: dict[str, t.Any] = {"changed": False, "fingerprint": expected, "numbers": numbers, "summary": _summary(numbers, expected)}
    if source:
        result["summary"]["drifted"] = list(dict.fromkeys(each["phone_number"] for each in numbers if each["drifted"]))
    unknown = {number: each.unknown for number, each in held.items() if each.unknown}
    if unknown and params["read_back_required"]:
        number, cause = next(iter(unknown.items()))
        raise SomeFailed(
            f"The key of {len(unknown)} of {len(held)} numbers could not be read, but read_back_required is set. {number}: {cause} "
            "See 'numbers' in the result for each cause.",
            **result,
        )
    return {**result, "warnings": [*missing_plus_warnings(params["phone_numbers"] or ()), *_warnings(unknown)]}


def _read_back(params: t.Mapping[str, t.Any], rate_limiter: RateLimiter) -> ReadBack | None:
    """Return the source that the options choose."""
    require_range("timeout", params["timeout"], 1, MAX_TIMEOUT)
    require_range("retries", params["retries"], 0, 1000)
    require_range("concurrency", params["concurrency"], 1, MAX_CALLS)
    account = None
    if params["read_back"] == "kaleyra":
        api_key = params["api_key"] or os.environ.get("KALEYRA_API_KEY")
        if not (params["pod"] or params["api_url"]) or not params["sid"] or not api_key:
            raise InvalidInput("read_back=kaleyra needs the account. Set pod or api_url, sid, and api_key or KALEYRA_API_KEY.")
        account = make_account(params["pod"], params["api_url"], params["sid"], api_key)
    return make_read_back({**params, "validate_certs": params["validate_certs"] is not False}, account, rate_limiter)


def _read_held(source: ReadBack, phone_numbers: t.Iterable[str], concurrency: int, rate_limiter: RateLimiter) -> dict[str, HeldKey]:
    """Return what each number carries. For a number that the source does not know, that is unknown."""
    held: dict[str, HeldKey] = {}
    numbers = list(dict.fromkeys(phone_numbers))

    def read(number: str) -> Steps[None]:
        try:
            held[number] = (yield from source.read(number))[0]
        except InvalidInput as exc:
            held[number] = HeldKey(unknown=str(exc))

    if numbers:
        source.prepare(numbers)
        for_each_in_threads(numbers, read, threads=concurrency, rate_limiter=rate_limiter, on_progress=lambda number: None)
    return held


def _held_facts(number: t.Mapping[str, t.Any], record: Record | None, held: HeldKey) -> dict[str, t.Any]:
    """Return the fields of a number that change or are added by reading back."""
    drifted = has_drifted(record, held)
    possible = number["possible_fingerprints"]
    if held.fingerprint and possible is not None and held.fingerprint not in possible:
        possible = [*possible, held.fingerprint]
    return {
        "state": "drifted" if drifted else number["state"],
        "possible_fingerprints": possible,
        "held_fingerprint": held.fingerprint,
        "held_status": held.status,
        "drifted": drifted,
        "read_back_msg": held.unknown,
    }


def has_drifted(record: Record | None, held: HeldKey) -> bool | None:
    """Whether the number does not carry the key on record, or carries it with a mismatch; None if the key could not be read."""
    if held.unknown:
        return None
    if held.status == "mismatch":
        return True
    if record is None:
        return False
    return held.fingerprint is None or not record.may_carry(held.fingerprint)


def _is_as_expected(number: t.Mapping[str, t.Any], expected: str | None, held: HeldKey | None) -> bool | None:
    """Whether the number certainly carries the expected key, according to what was read back, or else to the record."""
    if expected is None:
        return None
    if held and not held.unknown:
        return held.carries(expected)
    return bool(number["state"] == "confirmed" and number["fingerprint"] == expected)


def _warnings(unknown: t.Mapping[str, str | None]) -> list[str]:
    """Return one warning for all numbers that share a cause."""
    by_cause: dict[str, list[str]] = {}
    for number, cause in unknown.items():
        by_cause.setdefault((cause or "").replace(number, "the number"), []).append(number)
    return [
        f"{numbers[0]}{f' and {len(numbers) - 1} more' if len(numbers) > 1 else ''}: the record is used, because the key could not be read: {cause}"
        for cause, numbers in by_cause.items()
    ]


def _read(file: RecordFile, now: datetime.datetime) -> tuple[Record | None, dict[str, t.Any]] | None:
    """Return a record (None if it is invalid) and its fields; or None if it no longer exists."""
    try:
        record = file.read()
    except InvalidRecord as exc:
        return None, _facts("unreadable", msg=f"Ignoring the invalid record {file.path} in cache_path: {exc}.")
    if record is None:
        return None
    since = record.since or now
    return record, _facts(
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
    # The number may or may not carry the key of an unconfirmed record.
    by_fingerprint = collections.Counter(each["fingerprint"] for each in numbers if each["state"] == "confirmed")
    # The same number can have records of several accounts.
    different = dict.fromkeys(each["phone_number"] for each in numbers if each["as_expected"] is False)
    return {
        "numbers": len(numbers),
        "by_state": {state: by_state[state] for state in STATES if state != "drifted" or any("drifted" in each for each in numbers)},
        "by_fingerprint": dict(sorted(by_fingerprint.items(), key=lambda item: (-item[1], item[0]))),
        "different": None if expected is None else list(different),
    }


def _api(pod: str | None, api_url: str | None) -> str | None:
    """Return the API host as it is in records, None for any."""
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
    except OverflowError:  # within a day of the first or last possible year: as it was written
        pass
    return since.isoformat(timespec="seconds").replace("+00:00", "Z")
