# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re

import pytest
from ansible_collections.kaleyra.whatsapp.plugins.module_utils import _country_codes
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._errors import InvalidInput
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._phone_number import missing_plus_warnings, normalise_phone_number
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("+919876543210", id="e164"),
        pytest.param("919876543210", id="integer-as-text"),
        pytest.param("+91 98765 43210", id="blanks"),
        pytest.param("  +919876543210\t", id="blanks-at-the-ends"),
        pytest.param("+919876543210\n", id="newline-at-the-end"),
        pytest.param("+91\u00a098765\u00a043210", id="no-break-space"),
        pytest.param("+91\u202f98765\u200943210", id="narrow-spaces"),
        pytest.param("+91.98765.43210", id="dots"),
        pytest.param("+91-98765-43210", id="dashes"),
        pytest.param("+91\u201098765\u201143210", id="hyphens"),
        pytest.param("+91\u201398765\u201443210", id="en-and-em-dash"),
        pytest.param("+91 (98765) 43210", id="brackets"),
        pytest.param("+91 [98765] 43210", id="square-brackets"),
        pytest.param("(+91) 98765-43210", id="plus-in-brackets"),
    ],
)
def test_ways_to_write_a_number_are_forgiven(text: str) -> None:
    assert normalise_phone_number(text) == "+919876543210"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("+2901234", "+2901234", id="shortest-7-digits"),
        pytest.param("123456789012345", "+123456789012345", id="longest-15-digits"),
        pytest.param("+39 06 1234567", "+39061234567", id="italian-zero-belongs-to-the-number"),
        pytest.param("+1 (415) 555-0120", "+14155550120", id="zero-at-the-end"),
        pytest.param("+1 415.555.0", "+14155550", id="dot-before-a-last-zero-among-other-dots"),
        pytest.param("919876543210.0", "+919876543210", id="float-of-yaml"),
    ],
)
def test_numbers_that_look_odd_but_are_right(text: str, expected: str) -> None:
    assert normalise_phone_number(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("   ", id="blank"),
        pytest.param("+", id="plus-alone"),
        pytest.param("abc", id="letters"),
        pytest.param("+91 98765 4321O", id="letter-o-for-zero"),
        pytest.param("1-800-FLOWERS", id="vanity"),
        pytest.param("+919876543210x12", id="extension"),
        pytest.param("00919876543210", id="00-prefix"),
        pytest.param("+00919876543210", id="plus-and-00"),
        pytest.param("09876543210", id="national-zero"),
        pytest.param("+44 (0) 20 7946 0958", id="trunk-zero"),
        pytest.param("+44(0)2079460958", id="trunk-zero-without-blanks"),
        pytest.param("+44 [0] 20 7946 0958", id="trunk-zero-in-square-brackets"),
        pytest.param("+44 ( 0 ) 20 7946 0958", id="trunk-zero-with-blanks-inside"),
        pytest.param("919876543210.00", id="decimal-number"),
        pytest.param("91 9876543210.0", id="decimal-number-with-blanks"),
        # "+{{ number }}" where the number came from a spreadsheet: without its dot it is another number.
        pytest.param("+919876543210.50", id="decimal-number-after-a-plus"),
        pytest.param("+44 (020) 7946 0958", id="trunk-zero-with-area-code"),
        pytest.param("9.19e+11", id="exponent"),
        pytest.param("9.19876543210e+11", id="exponent-with-all-digits"),
        pytest.param("+290123", id="too-short"),
        pytest.param("+1234567890123456", id="too-long"),
        pytest.param("++919876543210", id="two-plus"),
        pytest.param("91+9876543210", id="plus-inside"),
        pytest.param("919876543210+", id="plus-behind"),
        pytest.param("+919876543210,+14155550123", id="two-numbers"),
        pytest.param("+٩١٩٨٧٦٥٤٣٢١٠", id="arabic-digits"),
        pytest.param("+91９８７６５４３２１０", id="full-width-digits"),
        pytest.param("+9198765432¹⁰", id="superscript-digits"),
        pytest.param("＋919876543210", id="full-width-plus"),
        pytest.param("%2B919876543210", id="encoded-plus"),
        pytest.param("+91%2e9876543210", id="encoded-dot"),
        pytest.param("+919876543210/../x", id="path"),
        pytest.param("+919876543210?a=1", id="query"),
        pytest.param("+919876543210\r\nX-Evil: 1", id="header-injection"),
        # Two lines are two numbers, which together would be a third one.
        pytest.param("+1415555\n2901234", id="line-break-between-digits"),
        pytest.param("+91987\x0065432", id="nul"),
        pytest.param("+91\u200b9876543210", id="zero-width-space"),
        pytest.param("None", id="none-as-text"),
        pytest.param("['+919876543210']", id="list-as-text"),
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"^phone_number .* is not a number in E\.164\. .*'\+919876543210'"):
        normalise_phone_number(text)


def test_the_message_repeats_a_long_text_in_part_and_in_one_line() -> None:
    with pytest.raises(InvalidInput) as caught:
        normalise_phone_number("x\n" * 10_000)
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


_NEARLY_NUMBERS = st.text(st.sampled_from("+0123456789 .-()[]\u2013\u00a0\ne/%"), max_size=24)


@given(st.one_of(st.text(), _NEARLY_NUMBERS))
def test_every_text_gives_e164_or_invalid_input_and_e164_stays_as_it_is(text: str) -> None:
    try:
        number = normalise_phone_number(text)
    except InvalidInput:
        return
    assert re.fullmatch(r"\+[1-9][0-9]{6,14}", number)
    assert normalise_phone_number(number) == number
    # No digit appears, disappears or moves.
    assert number[1:] == "".join(c for c in text if c in "0123456789")


@given(st.integers(min_value=10**6, max_value=10**15 - 1), st.randoms())
def test_separators_anywhere_between_the_digits_change_nothing(number: int, random: object) -> None:
    text = "".join(digit + random.choice(["", " ", "-", " ", "\u2011"]) for digit in f"{number}")  # type: ignore[attr-defined]
    assert normalise_phone_number(text) == f"+{number}"


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
def test_a_missing_plus_is_told_with_the_country(text: str, read_as: str) -> None:
    assert missing_plus_warnings([text]) == [
        f"A phone number has no plus sign: {read_as}. Write numbers with plus sign and country code, in quotes."
    ]


def test_a_number_with_its_plus_and_what_is_no_number_give_no_warning() -> None:
    assert missing_plus_warnings(["+919876543210", "(+91) 98765-43210", "web1", ""]) == []


def test_no_calling_code_begins_with_another() -> None:
    codes = _country_codes._COUNTRIES
    assert not [code for code in codes for other in codes if code != other and code.startswith(other)]
    assert all(re.fullmatch("[1-9][0-9]{0,2}", code) for code in codes)
