# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A business number in E.164."""

from __future__ import annotations

import re

from ._errors import InvalidInput

# What people, spreadsheets and web pages put between digits: blanks (no-break ones too), dots, brackets, dashes.
_SEPARATORS = re.compile(r"[\s.()\[\]\u2010-\u2015-]")
# Read on, each of these would silently give another number: two lines, a trunk zero as in +44 (0) 20 or (020), and decimals.
_MISLEADING = re.compile(r"[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]|[(\[]\s*0|^[^.]*\.([0-9]{1,2}|0+)$")
# What YAML and INI make of an unquoted number that was a decimal one.
_FLOAT = re.compile(r"(\+?[0-9]+)\.0")
_E164 = re.compile(r"\+?([1-9][0-9]{6,14})")
_NORMAL = re.compile(r"\+[1-9][0-9]{6,14}")


def normalise_phone_number(text: str) -> str:
    """Return the number as E.164 with its plus sign, for example ``+919876543210``.

    Spaces, dots, dashes, brackets and a missing plus are forgiven: YAML and INI turn an unquoted ``+91…`` into an integer.

    :raises InvalidInput: for anything else
    :source: ITU-T E.164: at most 15 digits, the first of the country code is not 0
    """
    if normal := _NORMAL.fullmatch(text):  # nothing to forgive, as nearly always in lists of thousands
        return normal.group()
    text = text.strip()
    if number := _FLOAT.fullmatch(text):
        text = number.group(1)
    match = _E164.fullmatch(_SEPARATORS.sub("", text))
    if not match or _MISLEADING.search(text):
        raise InvalidInput(
            f"phone_number {text[:40]!r} is not a number in E.164. Give it with country code and without a leading zero, "
            "quoted, for example '+919876543210'."
        )
    return "+" + match.group(1)
