# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The check of numbers and endpoints: what to read for a play, what is wrong, and the metrics."""

from __future__ import annotations

import base64
import collections
import datetime
import posixpath
import re
import time
import typing as t

from ansible_collections.kaleyra.whatsapp.plugins.module_utils._errors import KaleyraError
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._phone_number import normalise_phone_number
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._public_key import parse_public_key
from ansible_collections.kaleyra.whatsapp.plugins.plugin_utils._role_plan import LOCAL_NAMES, absolute_path

OK = "ok"
IN_ROTATION = "in_rotation"
_WRONG = {
    "absent": "no key is known",
    "different": "carries another key",
    "drifted": "no longer carries the key on record",
    "mismatch": "carries the key with a signature that does not match",
    "unconfirmed": "a registration did not complete",
    "unreadable": "the record is damaged",
    "unknown": "its record or public key could not be read",
}
"""What is wrong with a number, by its state."""
STATES = (OK, IN_ROTATION, *_WRONG)
MOST_PROBLEMS = 20
"""How many problems the messages and the published result contain; the metrics count all."""

_PREFIX = "flows_encryption_"
_LOOKS_LIKE_A_NUMBER = re.compile(r"\+?[1-9][0-9]{6,14}")

Variables = t.Mapping[str, t.Any]


def plan(
    hosts: t.Iterable[Variables], own: Variables, provided: str = "", environment: Variables | None = None, base_folder: str = ""
) -> dict[str, t.Any]:
    """Return what has to be read for the hosts of a play, each item once.

    :param hosts: their ``hostvars``
    :param own: the same variables as the checking host sees them, including those of the play and the role, which ``hostvars`` lacks
    :param provided: public key of a private key that an AWX credential provides
    :param environment: of the controller
    :param base_folder: that relative paths on the controller start from
    :return: ``public_keys`` that numbers should carry, each with ``host`` and ``path`` or ``text``, and after them those that they may carry
        during a rotation, which also have ``rotates``, the index of the current key; ``records``: each folder and account with its
        ``phone_numbers`` (none for all that have a record), each with the index of its key in ``public_keys``; ``endpoints``: each URL
        with the index of its key; ``problems``: what is wrong with the variables. ``on`` is the host whose secrets are used.
    """
    hosts = list(hosts)
    mine = next((host for host in hosts if host["inventory_hostname"] == own["inventory_hostname"]), {})
    keys: dict[tuple[str, ...], dict[str, t.Any]] = {}
    rotation: dict[tuple[t.Any, ...], dict[str, t.Any]] = {}
    records: dict[tuple[str, ...], dict[str, t.Any]] = {}
    endpoints: dict[tuple[t.Any, ...], dict[str, t.Any]] = {}
    problems: list[str] = []
    for host in hosts:
        name = host["inventory_hostname"]
        seen = {variable: _seen(variable, host, mine, own) for variable in own}
        key, others = _keys(seen, provided, base_folder)
        place = None
        if key["text"] or key["path"]:
            identity = ("text", key["text"]) if key["text"] else (key["host"], key["path"])
            keys.setdefault(identity, key)
            place = list(keys).index(identity)
            rotation.update(((place, *other.values()), {**other, "rotates": place}) for other in others)
        api_host = _text(seen, "api_host") or "localhost"
        account = _account(seen, environment or {})
        folder = records.setdefault((api_host, *account.values()), {"api_host": api_host, **account, "on": name, "phone_numbers": {}})
        try:
            folder["phone_numbers"].update(dict.fromkeys(phone_numbers(name, seen.get(f"{_PREFIX}phone_numbers")), place))
        except KaleyraError as exc:
            problems.append(f"{name}: {exc}")
        url = _text(seen, "endpoint_url")
        if url:
            endpoints.setdefault((url, api_host, place), {"url": url, "shown": shown_url(url), "api_host": api_host, "key": place, "on": name})
    some = [folder for folder in records.values() if folder["phone_numbers"]]
    if not some:  # on localhost: all numbers with a record should carry the key of its variables
        for folder in records.values():
            folder["key"] = 0 if keys else None
    return {
        "public_keys": [*keys.values(), *rotation.values()],
        "records": some or list(records.values()),
        "endpoints": list(endpoints.values()),
        "problems": problems,
    }


def _seen(variable: str, host: Variables, mine: Variables, own: Variables) -> t.Any:
    """Return a variable as a host sees it.

    A variable of the play takes precedence over those of the inventory. It is recognised by the value that the checking host sees, which is
    neither that of its ``hostvars`` nor the role's default.
    """
    value = own[variable]
    if variable in mine:
        is_of_the_play = mine[variable] != value
    else:
        private_path = str(own.get(f"{_PREFIX}private_key_path") or "")
        defaults: tuple[t.Any, ...] = ("", None, [], "localhost", [own["inventory_hostname"]], posixpath.splitext(private_path)[0] + ".pub.pem")
        is_of_the_play = value not in defaults
    return value if is_of_the_play else host.get(variable)


def _text(seen: Variables, name: str) -> str:
    value = seen.get(f"{_PREFIX}{name}")
    return "" if value is None else str(value)


def _account(seen: Variables, environment: Variables) -> dict[str, str]:
    pod, api_url = _text(seen, "pod"), _text(seen, "api_url")
    if not pod and not api_url:
        pod, api_url = environment.get("KALEYRA_POD", ""), environment.get("KALEYRA_API_URL", "")
    return {
        "cache_path": _text(seen, "cache_path"),
        "pod": "" if api_url else pod,
        "api_url": api_url,
        "sid": _text(seen, "sid") or environment.get("KALEYRA_SID", ""),
    }


def _keys(seen: Variables, provided: str, folder: str) -> tuple[dict[str, str], list[dict[str, str]]]:
    """Return the public key of a host's numbers, and those that a rotation puts beside it, whether they are there or not."""
    host = _text(seen, "key_host") or "localhost"
    text = _text(seen, "public_key") or provided
    private_path, path = _text(seen, "private_key_path"), _text(seen, "public_key_path")
    root = posixpath.splitext(private_path)[0]
    if not path:
        path = f"{root}.pub.pem" if root else ""
    if host in LOCAL_NAMES:
        root, path = absolute_path(root, folder), absolute_path(path, folder)
    if text:
        previous = _text(seen, "previous_public_key")
        others = [{"host": "", "path": "", "text": previous, "name": "previous"}] if previous else []
    else:
        others = [{"host": host, "path": f"{root}.{name}.pub.pem", "text": "", "name": name} for name in ("next", "previous") if root]
    return {"host": host, "path": path, "text": text}, others


def phone_numbers(name: str, given: t.Any) -> list[str]:
    """Return a host's numbers in E.164: those of a list or of text, or else the host's name if it is a number.

    :raises KaleyraError: one of them is not a number
    """
    parts = given if isinstance(given, list) else re.split(r"[,;\r\n]", "" if given is None else str(given))
    numbers = [part for part in (str(part).strip() for part in parts) if part] or [name]
    if numbers == [name] and not _LOOKS_LIKE_A_NUMBER.fullmatch(re.sub(r"[ .()-]", "", name)):
        return []
    return [normalise_phone_number(number) for number in numbers]


def shown_url(url: str) -> str:
    """Return a URL without user, password and query, which may be secret."""
    return re.sub(r"[?#].*\Z", "", re.sub(r"\A([a-z]+://)[^/?#]*@", r"\1", url), flags=re.DOTALL)


def read_keys(keys: t.Sequence[Variables], results: t.Sequence[Variables]) -> list[dict[str, t.Any]]:
    """Return each key's ``text`` and ``fingerprint``, or what is wrong with it as ``problem``.

    Nothing is wrong with a rotation's key that is not there.

    :param results: of the loop over the keys with slurp, in any order
    """
    return [_read_key(key, next(result for result in results if result["flows_encryption_key"] == key)) for key in keys]


def _read_key(key: Variables, result: Variables) -> dict[str, t.Any]:
    where = "flows_encryption_public_key" if key["text"] else f"{key['path']} on {key['host']}"
    text = key["text"]
    if not text:
        if not result.get("content"):
            problem = None if "rotates" in key else f"{where}: the public key cannot be read ({_reason(result)})."
            return {"text": "", "fingerprint": None, "problem": problem}
        text = base64.b64decode(result["content"]).decode(errors="replace")
    try:
        return {"text": text, "fingerprint": parse_public_key(text, where).fingerprint, "problem": None}
    except KaleyraError as exc:
        return {"text": "", "fingerprint": None, "problem": str(exc)}


def _reason(result: Variables) -> str:
    return str(result.get("msg") or "no answer").strip().rstrip(".")


def endpoints_to_ask(plan: Variables, keys: t.Sequence[Variables], infos: t.Sequence[Variables]) -> list[dict[str, t.Any]]:
    """Return the plan's endpoints, each with the ``text`` of the key to ask it under, empty for one that cannot be read.

    During a rotation an endpoint is also asked under the next or the previous key, if a number carries that.
    """
    numbers = [number for info in infos for number in info.get("numbers", ())]
    carried = {number[name] for number in numbers for name in ("fingerprint", "held_fingerprint") if number.get(name)}
    rotation = _keys_in_rotation(plan, keys)
    asked = []
    for endpoint in plan["endpoints"]:
        place = endpoint["key"]
        asked.append({**endpoint, "name": "current", "text": "" if place is None else keys[place]["text"]})
        for key in rotation.get(place, ()):
            if key["fingerprint"] in carried:
                asked.append({**endpoint, "name": key["name"], "text": key["text"]})
    return asked


def _keys_in_rotation(plan: Variables, keys: t.Sequence[Variables]) -> dict[int | None, list[dict[str, t.Any]]]:
    """Return, by the place of the current key, the next and the previous one where they are there and differ from it."""
    found: dict[int | None, list[dict[str, t.Any]]] = {}
    for given, key in zip(plan["public_keys"], keys):
        place = given.get("rotates")
        if place is not None and key["fingerprint"] and keys[place]["fingerprint"] not in (None, key["fingerprint"]):
            found.setdefault(place, []).append({**key, "name": given["name"]})
    return found


def judge(
    plan: Variables, keys: t.Sequence[Variables], infos: t.Sequence[Variables], pings: t.Sequence[Variables], now: float | None = None
) -> dict[str, t.Any]:
    """Return the check's result.

    :param keys: as :func:`read_keys` returns them
    :param infos: results of the loop over the plan's ``records`` with kaleyra_flows_encryption_info, in any order
    :param pings: results of the loop over :func:`endpoints_to_ask` with flows_endpoint_ping
    :param now: seconds since the epoch
    :return: ``ok``; ``lines`` to print; ``stats`` to publish; ``metrics`` in Prometheus' text format
    """
    fingerprints = [key["fingerprint"] for key in keys]
    problems = [*plan["problems"], *(key["problem"] for key in keys if key["problem"])]
    rotation = {place: {key["fingerprint"] for key in others} for place, others in _keys_in_rotation(plan, keys).items()}
    numbers: list[dict[str, t.Any]] = []
    for info in infos:
        folder = info["flows_encryption_folder"]
        if "numbers" not in info:
            problems.append(f"The records on {folder['api_host']} cannot be read ({_reason(info)}).")
            numbers += [{"phone_number": number, "state": "unknown", "fingerprint": None, "age": None} for number in folder["phone_numbers"]]
            continue
        if info.get("msg"):  # of read_back_required
            problems.append(f"{_reason(info)}.")
        for number in info["numbers"]:
            place = folder["phone_numbers"].get(number["phone_number"], folder.get("key"))
            judged = _number(number, None if place is None else fingerprints[place], rotation.get(place, ()))
            if judged["state"] == OK and place is not None and fingerprints[place] is None:
                judged["state"] = "unknown"  # its key cannot be read, which is reported once
            numbers.append(judged)
    for number in numbers:
        if number["state"] not in (OK, IN_ROTATION, "unknown"):
            problems.append(f"{number['phone_number']}: {_WRONG[number['state']]}{number['detail']}.")
    endpoints = [_endpoint(ping) for ping in pings]
    problems += [f"{endpoint['url']}{_of_key(endpoint)}: {endpoint['msg']}" for endpoint in endpoints if not endpoint["up"]]
    if not numbers and not problems:
        problems.append("Nothing to check: the play's hosts have no numbers, and there are no records.")
    by_state = collections.Counter(number["state"] for number in numbers)
    ages = [number["age"] for number in numbers if number["age"] is not None]
    more = len(problems) - MOST_PROBLEMS
    stats: dict[str, t.Any] = {
        "ok": not problems,
        "numbers": len(numbers),
        "by_state": {state: by_state[state] for state in STATES if by_state[state]},
        "oldest_confirmation_age": max(ages, default=None),
        "endpoints": endpoints,
        "problems": problems[:MOST_PROBLEMS] + ([f"{more} more problems."] if more > 0 else []),
    }
    return {
        "ok": not problems,
        "lines": [_numbers_line(stats), *map(_endpoint_line, endpoints), *stats["problems"]],
        "stats": stats,
        "metrics": _metrics(stats, numbers, time.time() if now is None else now),
    }


def _number(number: Variables, expected: str | None, others: t.Container[str | None]) -> dict[str, t.Any]:
    """Return the state of a number's key, from what was read back, or else from its record.

    :param others: fingerprints of the next and the previous key during a rotation
    """
    state, fingerprint = number["state"], number["fingerprint"]
    detail = f" ({fingerprint} since {number['since']})" if fingerprint else f" ({number['msg']})" if number.get("msg") else ""
    if number.get("read_back_msg", "not read") is None:
        fingerprint = number["held_fingerprint"]
        detail = f" ({fingerprint})" if fingerprint else ": it carries none"
        state = _held_state(number, expected)
    elif state == "confirmed":
        state = OK if expected in (None, fingerprint) else "different"
    if state in ("different", "drifted") and fingerprint in others:
        state = IN_ROTATION
    return {
        "phone_number": number["phone_number"],
        "state": state,
        "fingerprint": fingerprint,
        "detail": detail,
        "age": number["age"] if number["state"] == "confirmed" else None,
    }


def _held_state(number: Variables, expected: str | None) -> str:
    held, recorded = number["held_fingerprint"], number["fingerprint"]
    if number["held_status"] == "mismatch":
        return "mismatch"
    if not held:
        return "drifted" if recorded else "absent"
    if held == expected:
        return OK
    if number["state"] == "drifted" and expected in (None, recorded):
        return "drifted"
    return "different" if expected else OK


def _endpoint(ping: Variables) -> dict[str, t.Any]:
    endpoint = ping["flows_encryption_endpoint"]
    return {
        "url": endpoint["shown"],
        "key": endpoint["name"],
        "up": bool(ping.get("active")),
        "latency_ms": ping.get("latency_ms"),
        "fingerprint": ping.get("fingerprint"),
        "msg": None if ping.get("active") else str(ping.get("msg") or "It was not verified, because its public key is not known."),
    }


def _of_key(endpoint: Variables) -> str:
    return "" if endpoint["key"] == "current" else f", {endpoint['key']} key"


def _numbers_line(stats: Variables) -> str:
    total = stats["numbers"]
    good = stats["by_state"].get(OK, 0)
    others = [f"{count} {state.replace('_', ' ')}" for state, count in stats["by_state"].items() if state != OK]
    age = stats["oldest_confirmation_age"]
    oldest = "" if age is None else f" The oldest confirmation is {datetime.timedelta(seconds=age)} old."
    return f"{total} number{'' if total == 1 else 's'}: {', '.join([f'{good} ok', *others])}.{oldest}"


def _endpoint_line(endpoint: Variables) -> str:
    key = "key" if endpoint["key"] == "current" else f"{endpoint['key']} key"
    held = f"holds the {key}, {endpoint['latency_ms']} ms." if endpoint["up"] else "down." if key == "key" else f"does not hold the {key}."
    return f"Endpoint {endpoint['url']}: {held}"


def _metrics(stats: Variables, numbers: list[dict[str, t.Any]], now: float) -> str:
    """Return the metrics in Prometheus' text format.

    :source: Prometheus, "Exposition formats", version 0.0.4
    """
    groups = collections.Counter((number["state"], number["fingerprint"] or "") for number in numbers)
    endpoints = [({"url": each["url"], "fingerprint": each["fingerprint"] or ""}, each) for each in stats["endpoints"]]
    age = stats["oldest_confirmation_age"]
    families: list[tuple[str, str, list[tuple[dict[str, str], float]]]] = [
        (
            "numbers",
            "WhatsApp Business numbers, by the state of their key and its fingerprint.",
            [({"state": state, "fingerprint": fingerprint}, count) for (state, fingerprint), count in sorted(groups.items())],
        ),
        ("oldest_confirmation_age_seconds", "Age of the oldest confirmed record.", [] if age is None else [({}, age)]),
        ("endpoint_up", "Whether the Flow endpoint holds the private key.", [(labels, int(each["up"])) for labels, each in endpoints]),
        (
            "endpoint_latency_seconds",
            "Time that the Flow endpoint took to answer.",
            [(labels, each["latency_ms"] / 1000) for labels, each in endpoints if each["latency_ms"] is not None],
        ),
        ("check_ok", "Whether the check found nothing wrong.", [({}, int(stats["ok"]))]),
        ("check_timestamp_seconds", "When the check ran, in seconds since the epoch.", [({}, int(now))]),
    ]
    lines = []
    for name, text, samples in families:
        if samples:
            lines += [f"# HELP kaleyra_flows_{name} {text}", f"# TYPE kaleyra_flows_{name} gauge"]
            lines += [f"kaleyra_flows_{name}{_labels(labels)} {value}" for labels, value in samples]
    return "\n".join(lines) + "\n"


def _labels(labels: t.Mapping[str, str]) -> str:
    escapes = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})
    text = ",".join(f'{name}="{value.translate(escapes)}"' for name, value in labels.items())
    return f"{{{text}}}" if text else ""
