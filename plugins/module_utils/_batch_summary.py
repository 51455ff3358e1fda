# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Short messages and results for many numbers."""

from __future__ import annotations

import typing as t

# In the one message for all: how many errors it contains, and how many of the numbers that share one.
_ERRORS, _EXAMPLES = 3, 3

# How many results of numbers that share an error are returned in full, and the fields that the others keep in any case.
_IN_FULL = 20
_ALWAYS = frozenset(["changed", "failed", "outcome", "phone_number"])

Result = dict[str, t.Any]


def message_for_failed(failed: list[Result], total: int) -> str:
    """Return what happened and what to do, for all that failed: each error as the message of the first number that has it."""
    if total == 1:
        return str(failed[0]["msg"])
    errors = _by_error(failed)
    sentences = [f"{len(failed)} of {total} numbers failed."]
    for alike in sorted(errors, key=len, reverse=True)[:_ERRORS]:
        sentences.append(alike[0]["msg"])
        if len(alike) > 1:
            sentences.append(f"Same error for {join_numbers([result['phone_number'] for result in alike[1:]])}.")
    more = len(errors) - _ERRORS
    further = f"{more} more distinct error{'s' if more > 1 else ''}; see" if more > 0 else "See"
    sentences.append(f"{further} 'numbers' in the result.")
    return " ".join(sentences)


def shorten_same_errors(failed: list[Result]) -> None:
    """If many share an error, remove from each result what is the same in the first one, because Ansible prints all results."""
    for alike in _by_error(failed):
        first = alike[0]
        for result in alike[_IN_FULL:]:
            for name in [name for name in result if name not in _ALWAYS and result[name] == first.get(name)]:
                del result[name]
            result["msg"] = f"Same error as for {first['phone_number'][:40]}."


def join_warnings(warnings: t.Iterable[tuple[str, str]]) -> list[str]:
    """Return one warning for all numbers that share a text.

    :param warnings: number and text
    """
    texts: dict[str, list[str]] = {}
    for phone_number, text in warnings:
        texts.setdefault(text, []).append(phone_number)
    return [f"{join_numbers(numbers)}: {text}" for text, numbers in texts.items()]


def join_numbers(numbers: t.Sequence[str]) -> str:
    """Return the first numbers, and how many more there are."""
    more = f" and {len(numbers) - _EXAMPLES} more" if len(numbers) > _EXAMPLES else ""
    return ", ".join(number[:40] for number in numbers[:_EXAMPLES]) + more


def _by_error(failed: list[Result]) -> list[list[Result]]:
    errors: dict[str, list[Result]] = {}
    for result in failed:
        errors.setdefault(result["msg"].replace(result["phone_number"], ""), []).append(result)
    return list(errors.values())
