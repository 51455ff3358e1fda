# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The report on which number carries which key: its rows, its files and the figures of its web page."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import itertools
import json
import posixpath
import re
import typing as t

COLUMNS = ("phone_number", "api", "sid", "state", "fingerprint", "since", "as_expected", "msg")
"""Fields of a row, in the order of the CSV file. There are no ages, so unchanged records give unchanged files."""

READ_BACK_COLUMNS = ("held_fingerprint", "held_status", "read_back_msg")
"""Further fields, if the keys were read back."""

# The states in which it is not known which key a number carries, the worst first.
_UNSURE = {
    "drifted": "Drifted: the number does not carry the key on record",
    "unreadable": "Unreadable: the record is damaged",
    "unconfirmed": "Unconfirmed: a registration did not complete",
    "absent": "Absent: there is no record",
}
_COLOURED_KEYS = 8  # more keys than that share one part of the bar
_LEAST_WIDTH = 12  # of about 1000, so that a single number is visible
_LISTED_WITHOUT_SCRIPTS = 100

_E164 = re.compile(r"\+[0-9]+")
_FORMULA = re.compile(r"[=+@\t\r\n-]")
_LOOKS_LIKE_A_NUMBER = re.compile(r"\+?[1-9][0-9]{6,14}")

Row = dict[str, t.Any]


def describe_play(hosts: t.Iterable[t.Mapping[str, t.Any]], own: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Return what the report needs from the hosts of a play.

    :param hosts: their variables
    :param own: the same variables as the host that writes the report sees them, including those of the play and the role
    :return: ``phone_numbers``; ``phone_number_ids``, Meta's IDs if the inventory has them; ``key``, the public key that all hosts share,
        as ``host`` and ``path`` or ``text``, empty if they do not share one; ``endpoints``, each verification once
    """
    phone_numbers: list[str] = []
    phone_number_ids: dict[str, t.Any] = {}
    pairs: list[tuple[str, ...]] = []
    endpoints: list[dict[str, t.Any]] = []
    for host in hosts:
        name = host["inventory_hostname"]
        seen = own if name == own["inventory_hostname"] else host
        if host.get("waba_phone_number_id"):  # from the inventory plugin waba_numbers
            phone_number_ids[name] = host["waba_phone_number_id"]
        phone_numbers += _phone_numbers(name, seen.get("flows_encryption_phone_numbers"))
        pairs.append(tuple(str(host.get(f"flows_encryption_{part}") or "") for part in _PAIR))
        verification = seen.get("flows_encryption_endpoint_verification")
        if verification:
            endpoints.append(_endpoint(verification))
    return {
        "phone_numbers": phone_numbers,
        "phone_number_ids": phone_number_ids,
        "key": _key(own if len(set(pairs)) == 1 else {}),
        "endpoints": [endpoint for i, endpoint in enumerate(endpoints) if endpoint not in endpoints[:i]],
    }


_PAIR = ("key_host", "private_key_path", "public_key_path", "public_key")


def _phone_numbers(name: str, given: t.Any) -> list[str]:
    numbers = [number.strip() for number in re.split(r"[,;\r\n]", given)] if isinstance(given, str) else list(given or [name])
    numbers = [str(number) for number in numbers if number != ""] or [name]
    return [] if numbers == [name] and not _LOOKS_LIKE_A_NUMBER.fullmatch(name) else numbers


def _key(own: t.Mapping[str, t.Any]) -> dict[str, str]:
    private_path = own.get("flows_encryption_private_key_path") or ""
    path = own.get("flows_encryption_public_key_path") or ""
    if not path:
        path = posixpath.splitext(private_path)[0] + ".pub.pem" if private_path else ""
    return {"host": own.get("flows_encryption_key_host") or "localhost", "path": path, "text": own.get("flows_encryption_public_key") or ""}


def _endpoint(verification: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    # The user, the password and the query of the URL may be secret.
    url = re.sub(r"\A([a-z]+://)[^/?#]*@", r"\1", str(verification.get("url") or ""))
    return {
        "url": re.sub(r"[?#].*\Z", "", url, flags=re.DOTALL),
        "active": bool(verification.get("active")),
        "latency_ms": verification.get("latency_ms"),
        "fingerprint": verification.get("fingerprint"),
    }


def rows_of(info: t.Mapping[str, t.Any]) -> list[Row]:
    """Return a row for each number.

    :param info: result of kaleyra_flows_encryption_info
    """
    columns = columns_of(info)
    return [{**{column: number.get(column) for column in columns}, "msg": _message(number)} for number in info["numbers"]]


def columns_of(info: t.Mapping[str, t.Any]) -> tuple[str, ...]:
    """Return the names of a row's fields."""
    return COLUMNS + (READ_BACK_COLUMNS if any("drifted" in number for number in info["numbers"]) else ())


def _message(number: t.Mapping[str, t.Any]) -> str | None:
    if number["state"] != "drifted":
        return number.get("msg")
    status = " with the status mismatch" if number["held_status"] == "mismatch" else ""
    return f"The number carries {number['held_fingerprint'] or 'no key'}{status}."


def as_csv(info: t.Mapping[str, t.Any]) -> str:
    """Return the report as CSV (RFC 4180)."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    columns = columns_of(info)
    writer.writerow(columns)
    writer.writerows([_cell(row[column]) for column in columns] for row in rows_of(info))
    return text.getvalue()


def _cell(value: t.Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value)
    # A spreadsheet takes such a cell for a formula. A number in E.164 is harmless, and programs need it unchanged.
    return f"'{text}" if _FORMULA.match(text) and not _E164.fullmatch(text) else text


def as_json(info: t.Mapping[str, t.Any], title: str, endpoints: list[dict[str, t.Any]]) -> str:
    """Return the report as JSON, one line for each number."""
    rows = rows_of(info)
    oldest, newest = _period(rows)
    fields = {
        "format": 1,
        "title": title,
        "oldest_confirmation": oldest,
        "newest_confirmation": newest,
        "fingerprint": info["fingerprint"],
        "endpoints": endpoints,
        "summary": info["summary"],
    }
    head = "".join(f"{json.dumps(name)}: {json.dumps(_plain(value))},\n" for name, value in fields.items())
    return f'{{\n{head}"numbers": [\n' + ",\n".join(json.dumps(row) for row in rows) + "\n]\n}\n"


def _plain(value: t.Any) -> t.Any:
    """Copy Ansible's lazy containers, whose methods json would bypass."""
    if isinstance(value, t.Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value


def describe_page(info: t.Mapping[str, t.Any], endpoints: list[dict[str, t.Any]], style: str, script: str) -> dict[str, t.Any]:
    """Return what the web page shows.

    :param endpoints: as :func:`describe_play` returns them
    :param style: text of the page's style sheet
    :param script: text of the page's script
    """
    rows, expected = rows_of(info), info["fingerprint"]
    oldest, newest = _period(rows)
    carrying = info["summary"]["by_fingerprint"].get(expected, 0)
    confirmed = info["summary"]["by_state"]["confirmed"]
    listed = [row for row in rows if not (row["as_expected"] if expected else row["state"] == "confirmed")]
    parts = _parts(info)
    return {
        "oldest": oldest,
        "newest": newest,
        "expected": expected,
        "verdict": _verdict(len(rows), len(listed), bool(expected)),
        "tiles": _tiles(len(rows), carrying if expected else None, confirmed, len(info["summary"]["by_fingerprint"])),
        "parts": parts,
        "width": sum(part["width"] for part in parts),
        "endpoints": endpoints,
        "total": len(rows),
        "listed": {"total": len(listed), "first": listed[:_LISTED_WITHOUT_SCRIPTS]},
        "data": _data(rows, expected),
        "hashes": {"style": _policy_hash(style), "script": _policy_hash(script)},
    }


def _period(rows: list[Row]) -> tuple[str | None, str | None]:
    """Return the times of the oldest and the newest confirmation; times in UTC sort as text."""
    times = sorted(row["since"] for row in rows if row["since"] and row["state"] == "confirmed")
    return (times[0], times[-1]) if times else (None, None)


def _verdict(total: int, problems: int, is_key_expected: bool) -> dict[str, str]:
    if not total:
        return {"kind": "none", "sentence": "There are no records.", "detail": "Nothing has been registered with this folder of records."}
    what = "the expected key" if is_key_expected else "a confirmed key"
    detail = "" if is_key_expected else "No key is expected."
    if not problems:
        verb = "carry" if is_key_expected else "have"
        who = f"The one number {'carries' if is_key_expected else 'has'}" if total == 1 else f"All {_count(total)} {verb}"
        return {"kind": "good", "sentence": f"{who} {what}.", "detail": detail}
    one = problems == 1
    verb = ("is" if one else "are") + " not confirmed to carry" if is_key_expected else "has no" if one else "have no"
    what = what if is_key_expected else "confirmed key"
    first = "It comes first below." if one else "They come first below."
    return {"kind": "bad", "sentence": f"{problems:,} of {_count(total)} {verb} {what}.", "detail": f"{first} {detail}".strip()}


def _count(total: int) -> str:
    return f"{total:,} number{'' if total == 1 else 's'}"


def _tiles(total: int, carrying: int | None, confirmed: int, keys: int) -> list[dict[str, t.Any]]:
    """:param carrying: how many numbers carry the expected key, None where none is expected"""
    if carrying is None:
        middle = [("Keys in use", keys, False), ("Confirmed", confirmed, False)]
    else:
        middle = [("Expected key", carrying, False), ("Another key", confirmed - carrying, confirmed > carrying)]
    tiles = [("Numbers", total, False), *middle, ("Not confirmed", total - confirmed, total > confirmed)]
    return [{"label": label, "count": count, "attention": attention} for label, count, attention in tiles]


def _parts(info: t.Mapping[str, t.Any]) -> list[dict[str, t.Any]]:
    """Return the parts of the bar: the expected key, the other keys, then what is not known."""
    expected, by_fingerprint = info["fingerprint"], dict(info["summary"]["by_fingerprint"])
    parts = []
    if expected:
        parts.append(("ok", "Expected key", expected, by_fingerprint.pop(expected, 0)))
    others = list(by_fingerprint.items())
    label = "Another key" if expected else "Key"
    parts += [(f"key{i % 4}", label, key, count) for i, (key, count) in enumerate(others[:_COLOURED_KEYS])]
    if others[_COLOURED_KEYS:]:
        parts.append(("more", f"{len(others) - _COLOURED_KEYS} further keys", None, sum(count for dummy, count in others[_COLOURED_KEYS:])))
    by_state = info["summary"]["by_state"]
    parts += [(state, label, None, by_state[state]) for state, label in _UNSURE.items() if by_state.get(state)]
    total = len(info["numbers"])
    widths = [max(_LEAST_WIDTH, count * 1000 // total) if count else 0 for *dummy, count in parts]
    places = itertools.accumulate([0, *widths])
    return [
        {"kind": kind, "label": label, "key": key, "count": count, "share": _share(count, total), "x": x, "width": width}
        for (kind, label, key, count), width, x in zip(parts, widths, places)
    ]


def _share(count: int, total: int) -> str:
    """Return the percentage. Only none is rounded to 0, and only all to 100."""
    if not total:
        return ""
    return "<0.1" if 0 < count * 1000 < total else ">99.9" if total * 999 < count * 1000 < total * 1000 else f"{count * 100 / total:.1f}"


def _data(rows: list[Row], expected: str | None) -> str:
    """Return the table as JSON for a script element: columns, with repeated values as indexes into a list. No ``<`` can end the element."""
    values: dict[str, list[t.Any]] = {}
    places: dict[str, list[int]] = {}
    for column in ("fingerprint", "api", "sid", "state"):
        known = {expected: 0} if expected and column == "fingerprint" else {}
        places[column] = [known.setdefault(row[column], len(known)) for row in rows]
        values[column] = list(known)
    fields = {
        "expected": expected,
        "values": values,
        "places": places,
        "number": [row["phone_number"] for row in rows],
        "since": [row["since"] for row in rows],
        "msg": [row["msg"] for row in rows],
    }
    return json.dumps(fields).replace("<", "\\u003c")


def _policy_hash(text: str) -> str:
    """Return the source expression with which a content security policy allows an inline element."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
