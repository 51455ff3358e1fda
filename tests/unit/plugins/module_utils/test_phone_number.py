# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re

import pytest
from ansible_collections.kaleyra.whatsapp.plugins.module_utils import _country_codes
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._errors import InvalidInput
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._phone_number import missing_plus_warnings, normalise_phone_number


@pytest.mark.parametrize(
    "text",
    [
        *("+919876543210", "919876543210", "+91 98765 43210", "  +919876543210\t", "+919876543210\n", "+91\u00a098765\u00a043210"),
        *("+91\u202f98765\u200943210", "+91.98765.43210", "+91-98765-43210", "+91\u201098765\u201143210", "+91\u201398765\u201443210"),
        *("+91 (98765) 43210", "+91 [98765] 43210", "(+91) 98765-43210"),
    ],
)
def test_number_is_normalised(text: str) -> None:
    assert normalise_phone_number(text) == "+919876543210"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *(("+2901234", "+2901234"), ("123456789012345", "+123456789012345")),  # the shortest and the longest
        ("+39 06 1234567", "+39061234567"),  # the Italian zero belongs to the number
        *(("+1 (415) 555-0120", "+14155550120"), ("+1 415.555.0", "+14155550")),
        ("919876543210.0", "+919876543210"),  # a float of YAML
    ],
)
def test_unusual_number_is_accepted(text: str, expected: str) -> None:
    assert normalise_phone_number(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        # Trunk zeros, the decimals of a spreadsheet and two lines are among them: read on, each would be another number.
        *("", "   ", "+", "abc", "+91 98765 4321O", "1-800-FLOWERS", "+919876543210x12", "00919876543210", "+00919876543210"),
        *("09876543210", "+44 (0) 20 7946 0958", "+44(0)2079460958", "+44 [0] 20 7946 0958", "+44 ( 0 ) 20 7946 0958", "919876543210.00"),
        *("91 9876543210.0", "+919876543210.50", "+44 (020) 7946 0958", "9.19e+11", "9.19876543210e+11", "+290123", "+1234567890123456"),
        *("++919876543210", "91+9876543210", "919876543210+", "+919876543210,+14155550123", "+٩١٩٨٧٦٥٤٣٢١٠", "+91９８７６５４３２１０"),
        *("+9198765432¹⁰", "＋919876543210", "%2B919876543210", "+91%2e9876543210", "+919876543210/../x", "+919876543210?a=1"),
        *("+919876543210\r\nX-Evil: 1", "+1415555\n2901234", "+91987\x0065432", "+91\u200b9876543210", "None", "['+919876543210']"),
        "x\n" * 10_000,
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"^phone_number .* is not a number in E\.164\. .*'\+919876543210'") as caught:
        normalise_phone_number(text)
    assert len(str(caught.value)) < 400 and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "read_as"),
    [
        ("9876543210", "9876543210 was read as +9876543210 (Iran, +98)"),
        (" 91 98765 43210", "91 98765 43210 was read as +919876543210 (India, +91)"),
        ("4155550120", "4155550120 was read as +4155550120 (Switzerland, +41)"),
        ("14155550120", "14155550120 was read as +14155550120 (the USA, Canada or the Caribbean, +1)"),
        ("3585550120", "3585550120 was read as +3585550120 (Finland, +358)"),
        ("9995550120", "9995550120 was read as +9995550120 (no country's calling code)"),
    ],
)
def test_missing_plus_is_a_warning_with_the_country(text: str, read_as: str) -> None:
    assert missing_plus_warnings([text]) == [
        f"A phone number has no plus sign: {read_as}. Write numbers with plus sign and country code, in quotes."
    ]
    assert missing_plus_warnings(["+919876543210", "(+91) 98765-43210", "web1", ""]) == []


def test_calling_codes_are_no_prefixes() -> None:
    codes = _country_codes._COUNTRIES
    assert not [code for code in codes for other in codes if code != other and code.startswith(other)]
    assert all(re.fullmatch("[1-9][0-9]{0,2}", code) for code in codes)
