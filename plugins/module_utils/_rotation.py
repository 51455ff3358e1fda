# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Decides when a key pair is rotated, and finds obstacles to promoting its next key or removing its previous key.

Pure functions: files, records, options and the clock are arguments.
"""

from __future__ import annotations

import dataclasses
import datetime
import re
import typing as t

from ._errors import InvalidInput

BEGIN, RESUME, COMPLETE, KEEP, NOTHING = "begin", "resume", "complete", "keep", "nothing"

_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION = re.compile(r"([0-9]{1,9})\s*([smhdw]?)")
_SHOWN = 10


@dataclasses.dataclass(frozen=True)
class Keys:
    """Fingerprints of the private keys of a pair; None for a file that does not exist.

    :param current_since: when the current key was created or promoted, in seconds since 1970 (UTC)
    :param previous_since: when the previous key was replaced, in seconds since 1970 (UTC)
    """

    current: str
    next: str | None = None
    previous: str | None = None
    current_since: float = 0
    previous_since: float = 0

    @property
    def staged(self) -> str | None:
        """The next key; None if it is missing, or if it has been promoted and still has its old name."""
        return self.next if self.next != self.current else None

    @property
    def kept(self) -> str | None:
        """The previous key; None if it is missing, or if it is the current key under its future name."""
        return self.previous if self.previous != self.current else None


@dataclasses.dataclass(frozen=True)
class Policy:
    """The options that decide when a step is due; durations in seconds."""

    rotate_after: int
    keep_previous: int
    retire_previous: bool = False


@dataclasses.dataclass(frozen=True)
class Plan:
    """What one run does with a key pair, decided once.

    :param action: ``begin`` a rotation, ``resume`` one that has a next key, ``complete`` one whose next key is promoted, ``keep`` (or
        remove) the previous key, or ``nothing``
    :param current: fingerprint of the current key when the plan was made; the same for ``next`` and ``previous``
    :param target: the key that the numbers get; None if it does not exist yet
    :param other: the key that some numbers may still carry
    :param retires: whether ``other`` is removed in this run, once no number may carry it
    :param now: when the plan was made, in seconds since 1970 (UTC)
    :param run: identity of the run that registers ``target`` with this plan
    """

    action: str
    current: str
    next: str | None
    previous: str | None
    target: str | None
    other: str | None
    retires: bool
    now: float
    run: str

    @property
    def stages(self) -> bool:
        """Whether there is a next key to promote or to create."""
        return self.action in (BEGIN, RESUME)

    def as_result(self) -> dict[str, t.Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_result(cls, fields: t.Mapping[str, t.Any]) -> Plan:
        """Read what :meth:`as_result` returned.

        :raises InvalidInput: it is not a plan
        """
        names = [field.name for field in dataclasses.fields(cls)]
        if set(fields) != set(names):
            raise InvalidInput(f"plan must be the plan that the step plan returned, with {', '.join(names)}.")
        # Templates of older ansible-core turn numbers and booleans into text.
        return cls(
            action=fields["action"],
            current=fields["current"],
            next=fields["next"] or None,
            previous=fields["previous"] or None,
            target=fields["target"] or None,
            other=fields["other"] or None,
            retires=str(fields["retires"]).lower() == "true",
            now=float(fields["now"]),
            run=fields["run"],
        )


def parse_duration(option: str, value: str | int) -> int:
    """Return a duration such as ``7d``, ``12h`` or ``90`` in seconds.

    :raises InvalidInput: naming the option
    """
    match = _DURATION.fullmatch(str(value).strip())
    if not match:
        raise InvalidInput(f"{option} is {str(value)[:40]!r}, but must be a duration such as 7d, 12h, 30m or 90s.")
    return int(match[1]) * _SECONDS[match[2]]


def make_plan(keys: Keys, policy: Policy, now: float, run: str, earlier: Plan | None = None) -> Plan:
    """Decide what this run does.

    :param now: seconds since 1970 (UTC)
    :param run: an identity that no other plan has
    :param earlier: the plan that the same run has already made for the same key pair, in another batch, play or loop item. Its time is used,
        and a run begins at most one rotation.
    :raises InvalidInput: there is a third key, which no rotation leaves behind
    """
    now = earlier.now if earlier else now
    if keys.staged and keys.kept:
        raise InvalidInput(
            "There are both a next and a previous private key beside the current one, which no rotation leaves behind. "
            "Find out which of them the endpoint and the numbers use, and move the other one to another folder."
        )
    due = policy.retire_previous or policy.keep_previous == 0
    other: str | None
    if keys.staged:
        action, target, other, retires = RESUME, keys.staged, keys.current, due
    elif keys.next or keys.kept:
        action, target, other = COMPLETE if keys.next else KEEP, keys.current, keys.kept
        retires = bool(keys.kept) and (due or now - keys.previous_since >= policy.keep_previous)
    elif _begins(keys, policy, now, earlier):
        return Plan(BEGIN, keys.current, None, keys.previous, None, keys.current, due, now, run)
    else:
        action, target, other, retires = NOTHING, keys.current, None, False
    return Plan(action, keys.current, keys.next, keys.previous, target, other, retires, now, run)


def _begins(keys: Keys, policy: Policy, now: float, earlier: Plan | None) -> bool:
    if earlier:
        return earlier.action == BEGIN and earlier.current == keys.current
    return not policy.retire_previous and now - keys.current_since >= policy.rotate_after


def describe_plan(plan: Plan, keys: Keys, policy: Policy) -> str:
    """Describe in a sentence or two what the run does."""
    if plan.action == BEGIN:
        return (
            "A rotation begins: the next key is created, both keys are deployed to the endpoint and verified there, the next key is registered for "
            "every number, and then it replaces the current key."
        )
    if plan.action == RESUME:
        return "The rotation continues with the existing next key."
    if plan.action == COMPLETE:
        return "The next key has already been promoted. This run completes the rotation."
    if plan.action == KEEP:
        if plan.retires:
            return "The previous key is no longer needed. It is removed once no number may carry it."
        return f"The last rotation is complete. The previous key is kept until {in_utc(keys.previous_since + policy.keep_previous)}."
    if policy.retire_previous:
        return "There is no previous key to remove."
    return f"No rotation begins: the current key is due to be rotated at {in_utc(keys.current_since + policy.rotate_after)}."


def in_utc(seconds: float) -> str:
    """Write seconds since 1970 as date and time."""
    try:
        return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):  # beyond the year 9999
        return "a time after the year 9999"


@dataclasses.dataclass(frozen=True)
class KnownNumber:
    """A number of this run.

    :param host: inventory host that it belongs to
    :param registered: fingerprint that this run has registered successfully, or found to be registered; None otherwise
    :param uses_this_pair: whether the number uses the key pair; None if that is not known yet
    """

    host: str
    phone_number: str
    registered: str | None
    uses_this_pair: bool | None


@dataclasses.dataclass(frozen=True)
class KnownRecord:
    """A record of a number, of any run.

    :param possible: fingerprints that the number may carry; None for any
    """

    phone_number: str
    possible: tuple[str, ...] | None

    def may_carry(self, fingerprint: str) -> bool:
        return self.possible is None or fingerprint in self.possible


def find_obstacles(
    numbers: t.Iterable[KnownNumber], records: t.Iterable[KnownRecord], *, target: str, other: str, limited: bool
) -> list[str]:
    """Return the obstacles to replacing or removing ``other``: an empty list if every known number certainly carries ``target``.

    For numbers that use another key pair, only their records count.

    :param limited: whether the run does not cover every host (``--limit``)
    """
    by_number: dict[str, list[KnownRecord]] = {}
    for record in records:
        by_number.setdefault(record.phone_number, []).append(record)
    missing, unknown = [], []
    for number in numbers:
        recorded = by_number.get(number.phone_number, [])
        name = number.phone_number if number.phone_number == number.host else f"{number.phone_number} (host {number.host})"
        if number.uses_this_pair:
            if number.registered != target and not any(record.possible == (target,) for record in recorded):
                missing.append(name)
        elif number.uses_this_pair is None and not number.registered and not recorded:
            unknown.append(name)
    doubtful = [name for name, recorded in by_number.items() if any(record.may_carry(other) for record in recorded)]
    obstacles = []
    if limited:
        obstacles.append("this run is limited (--limit), so it does not cover every number")
    if missing:
        obstacles.append(f"numbers without the key in this run: {_list(missing)}")
    if unknown:
        obstacles.append(f"numbers that this run has not reached, without a record: {_list(unknown)}")
    if doubtful:
        obstacles.append(
            "numbers that may still carry the other key according to their records (register them, or remove the records of those that no longer "
            "exist): "
            + _list(doubtful)
        )
    return obstacles


def _list(names: list[str]) -> str:
    unique = list(dict.fromkeys(names))
    more = len(unique) - _SHOWN
    return ", ".join(unique[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def known_numbers(
    plan: t.Mapping[str, t.Any],
    play_hosts: t.Iterable[str],
    registrations: t.Mapping[str, t.Mapping[str, t.Any] | None],
    pair: str,
    normalise: t.Callable[[str], str],
) -> list[KnownNumber]:
    """Return the numbers of all hosts of a play, and what this run has registered for them.

    A host that is not in the plan takes no part in the rotation.

    :param plan: of the role: for each host its ``pair`` (None if that is not known) and ``numbers``
    :param registrations: result of the registration of each host that has finished it in this run
    :param pair: ID of the key pair
    :param normalise: converts a number to E.164
    """
    places = {each["id"]: (each["key_host"], each["private_key_path"]) for each in plan["pairs"]}
    found = []
    for host in play_hosts:
        entry = plan["hosts"].get(host)
        if entry is None:
            continue
        registered = {
            outcome.get("phone_number"): outcome.get("fingerprint")
            for outcome in (registrations.get(host) or {}).get("numbers") or []
            if not outcome.get("failed") and outcome.get("verified") is not False
        }
        uses_this_pair = None
        if entry["pair"] in places:
            uses_this_pair = places[entry["pair"]] == places[pair]  # whatever the path of the public key
        elif entry["pair"] in plan["keys"]:
            uses_this_pair = False
        for text in entry["numbers"] or [host]:
            try:
                number = normalise(str(text))
            except InvalidInput:
                number = str(text)
            found.append(KnownNumber(host, number, registered.get(number), uses_this_pair))
    return found


def pair_leader(plan: t.Mapping[str, t.Any], hosts: t.Iterable[str], host: str) -> str:
    """Return the first host, in the plan's order, that shares a host's key pair.

    If each host plans for itself, that is the host. It is empty for a host that cannot continue.

    :param plan: of the role
    :param hosts: that have not failed
    """
    own = plan["hosts"].get(host)
    if not own or own["stop"]:
        return ""
    if not plan["shared"]:
        return host
    at_work = set(hosts)
    other: str
    for other, entry in plan["hosts"].items():
        if other in at_work and not entry["stop"] and entry["pair"] == own["pair"]:
            return other
    return ""


def endpoint_stops(pings: t.Mapping[str, t.Any]) -> dict[str, str]:
    """Return why hosts cannot continue, by ID of the endpoint whose verification failed with one of the keys.

    :param pings: result of a loop over endpoints and keys
    """
    stops = {}
    for result in pings.get("results") or []:
        if not result.get("active"):
            cause = str(result.get("msg") or "The endpoint was not verified.").strip()
            stops[result["flows_encryption_endpoint"][0]["id"]] = f"{cause} No key was registered in this run."
    return stops


def known_records(infos: t.Mapping[str, t.Any], held: t.Mapping[str, t.Any]) -> list[dict[str, t.Any]]:
    """Return the number and the possible keys of each record, and of each number that was read back.

    :param infos: result of a loop over the folders of records
    :param held: result of reading back, even if the task was skipped
    """
    return [
        {"phone_number": record["phone_number"], "possible": record["possible_fingerprints"]}
        for result in [*(infos.get("results") or []), held]
        for record in result.get("numbers", ())
    ]
