# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Normalises business numbers to E.164."""

from __future__ import annotations

import re
import typing as t

from ._country_codes import country_of
from ._errors import InvalidInput

# What people, spreadsheets and web pages write between digits: spaces (also no-break ones), dots, brackets, dashes.
_SEPARATORS = re.compile(r"[\s.()\[\]\u2010-\u2015-]")
# Each of these would silently become another number: two lines, a trunk zero as in +44 (0) 20 or (020), and decimals.
_MISLEADING = re.compile(r"[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]|[(\[]\s*0|^[^.]*\.([0-9]{1,2}|0+)$")
# YAML and INI read an unquoted number as an integer, some tools as a float.
_FLOAT = re.compile(r"(\+?[0-9]+)\.0")
_E164 = re.compile(r"\+?([1-9][0-9]{6,14})")
_NORMAL = re.compile(r"\+[1-9][0-9]{6,14}")

# How many numbers a warning names.
_EXAMPLES = 3


def normalise_phone_number(text: str) -> str:
    """Return the number as E.164 with its plus sign, for example ``+919876543210``.

    Spaces, dots, dashes, brackets and a missing plus are accepted: YAML and INI read an unquoted ``+91…`` as an integer.

    :raises InvalidInput: for anything else
    :source: ITU-T E.164: at most 15 digits, the first of the country code is not 0
    """
    if normal := _NORMAL.fullmatch(text):  # the usual case in lists of thousands
        return normal.group()
    text = text.strip()
    if number := _FLOAT.fullmatch(text):
        text = number.group(1)
    match = _E164.fullmatch(_SEPARATORS.sub("", text))
    if not match or _MISLEADING.search(text):
        raise InvalidInput(
            f"phone_number {text[:40]!r} is not a number in E.164. Write it with its country code, without a leading zero, and "
            "in quotes, for example '+919876543210'."
        )
    return "+" + match.group(1)


def missing_plus_warnings(texts: t.Iterable[str]) -> list[str]:
    """Return one warning for all numbers without a plus sign, with the number that each became: without a country code, that is another number."""
    examples = []
    count = 0
    for text in texts:
        if "+" in text:
            continue
        try:
            phone_number = normalise_phone_number(text)
        except InvalidInput:  # reported elsewhere
            continue
        count += 1
        if count <= _EXAMPLES:
            examples.append(f"{text.strip()} was read as {phone_number} ({country_of(phone_number)})")
    if not count:
        return []
    more = f", and {count - _EXAMPLES} more" if count > _EXAMPLES else ""
    what = "A phone number has" if count == 1 else f"{count} phone numbers have"
    return [f"{what} no plus sign: {'; '.join(examples)}{more}. Write numbers with plus sign and country code, in quotes."]
