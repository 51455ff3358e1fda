# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The report's web page in a real browser, as the role wrote it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from browser._browser import Browser
from browser._pages import ALL, HOSTILE, KEYS, PAGES
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

Pages = Callable[[str], Path]

NUMBERS = "tbody td.number"
STATUSES = "tbody .status"

# Contrast of each text with what is behind it, as WCAG 2 reckons it: of those below 4.5, what it is and how much.
POOR_CONTRAST = """
const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
const rgb = (colour) => {
  canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
  return canvas.getImageData(0, 0, 1, 1).data;
};
const luminance = (colour) => {
  const [r, g, b] = [...rgb(colour)].slice(0, 3).map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = (element) => {
  for (; element; element = element.parentElement) {
    const colour = getComputedStyle(element).backgroundColor;
    if (rgb(colour)[3] === 255) return colour;
  }
  return "white";
};
const poor = {};
for (const element of document.querySelectorAll("body *:not(script):not(noscript):not(option)")) {
  const own = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
  if (!own || !element.checkVisibility()) continue;
  const [a, b] = [luminance(getComputedStyle(element).color), luminance(behind(element))].sort((x, y) => y - x);
  const ratio = (a + 0.05) / (b + 0.05);
  if (ratio < 4.5) poor[`${element.tagName}.${element.className}`] = ratio;
}
return poor;
"""


@pytest.mark.parametrize("name", PAGES)
def test_page_opens_alone_is_legible_and_fits(browser: Browser, pages: Pages, name: str) -> None:
    browser.open(pages(name))
    assert browser.complaints() == []
    assert [url for url in browser.requests() if url != "data:,"] == [pages(name).as_uri()]
    assert browser.run("return document.title") == browser.texts("h1")[0]
    assert bool(browser.all("table")) is (name != "none")
    assert browser.run("return [...document.querySelectorAll('main svg.bar rect')].every((part) => part.getBoundingClientRect().width > 3)")
    for scheme in ("light", "dark"):
        browser.media(prefers_color_scheme=scheme, prefers_reduced_motion="reduce")  # else colours change slowly
        brightness = browser.run("return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0]")
        assert (brightness < 50) if scheme == "dark" else (brightness > 200)
        assert browser.run(POOR_CONTRAST) == {}
    outside = """
        return [...document.querySelectorAll("main *")].filter((e) => e.checkVisibility() && e.getBoundingClientRect().right > innerWidth + 1)
          .map((e) => e.outerHTML.slice(0, 100))
    """
    for width in (320, 740, 970, 2560):
        browser.screen(width)
        assert browser.run("return document.documentElement.scrollWidth <= document.documentElement.clientWidth"), width
        assert browser.run(outside) == [], width


def test_numbers_to_look_at_come_first(browser: Browser, pages: Pages) -> None:
    browser.open(pages("three"))
    assert browser.texts(".verdict") == ["1 of 3 numbers is not confirmed to carry the expected key. It comes first below."]
    shown = list(zip(browser.texts(NUMBERS), browser.texts(STATUSES), strict=True))
    assert shown == [(ALL[2], "≠Another key"), (ALL[0], "✓As expected"), (ALL[1], "✓As expected")]
    assert browser.texts("#count") == ["3 numbers shown."]
    browser.open(pages("many"))
    assert browser.texts(STATUSES)[0] == "≠Another key"
    kinds = [option.text.partition(" (")[0] for option in Select(browser.one("#status")).options[1:]]
    assert kinds == ["Another key", "Unreadable", "Unconfirmed", "Absent", "As expected"]
    browser.open(pages("hostile"))  # without an expected key, those with a rare one
    assert browser.texts(NUMBERS) == [ALL[i] for i in (2, 3, 1, 4)]
    assert browser.texts(STATUSES)[1:] == ["✓Confirmed"] * 3


def test_click_on_a_column_sorts(browser: Browser, pages: Pages) -> None:
    browser.open(pages("many"))
    browser.one("#by-number button").click()
    assert browser.texts(NUMBERS) == ALL[:200]
    assert browser.run("return Array.from(document.querySelectorAll('[aria-sort]'), (e) => e.id + ' ' + e.ariaSort)") == ["by-number ascending"]
    browser.one("#by-number button").click()
    assert browser.texts(NUMBERS) == ALL[:-201:-1]
    assert browser.run("return document.getElementById('by-number').ariaSort") == "descending"
    for column, cells in (("since", "tbody time"), ("key", "tbody td.key code"), ("account", "tbody td.account")):
        browser.one(f"#by-{column} button").click()
        values = browser.texts(cells)
        assert len(values) == 200
        assert values == sorted(values)


def test_the_keyboard_does_it_all_and_shows_where_it_is(browser: Browser, pages: Pages) -> None:
    browser.open(pages("many"))
    for key, order in ((Keys.ENTER, "ascending"), (Keys.SPACE, "descending")):
        browser.tab_to("#by-since button")
        assert browser.run("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
        browser.press(key)
        assert browser.run("return document.getElementById('by-since').ariaSort") == order
    browser.tab_to("#text")
    browser.press("+919876500042")
    assert browser.texts(NUMBERS) == ["+919876500042"]
    browser.tab_to("#reset")
    browser.press(Keys.ENTER)
    browser.tab_to("#more")
    browser.press(Keys.ENTER)
    assert len(browser.texts(NUMBERS)) == 400
    assert browser.run("return document.activeElement.id") == "more"


def test_filters(browser: Browser, pages: Pages) -> None:
    browser.open(pages("many"))
    assert browser.texts("#count") == ["2,000 numbers, the first 200 shown."]
    status, key = Select(browser.one("#status")), Select(browser.one("#key"))
    status.select_by_visible_text(next(option.text for option in status.options if option.text.startswith("Unconfirmed")))
    many = int(status.first_selected_option.text.partition("(")[2].rstrip(")"))
    assert browser.texts("#count") == [f"{many} of 2,000 numbers shown."]
    assert set(browser.texts(STATUSES)) == {"?Unconfirmed"} and len(browser.texts(NUMBERS)) == many
    key.select_by_value(KEYS[0])
    assert 0 < len(browser.texts(NUMBERS)) < many
    browser.one("#text").send_keys("nothing like it")
    assert browser.texts("#count") == ["No number matches."] and browser.texts(NUMBERS) == []
    browser.one("#reset").click()
    assert browser.texts("#count") == ["2,000 numbers, the first 200 shown."]
    # Search finds a number, a whole or part of a key, and an account, in any case.
    for wanted, said in (("919876501", "1,000 of 2,000"), ("hxap16sample", "1,995 of 2,000"), ("JUNK", "No number"), (KEYS[1].upper(), "")):
        browser.one("#reset").click()
        browser.one("#text").send_keys(wanted)
        assert browser.texts("#count")[0].startswith(said)
    assert set(browser.run("return Array.from(document.querySelectorAll('td.key code'), (c) => c.title)")) == {KEYS[1]}
    # 200 at a time.
    browser.one("#reset").click()
    assert browser.texts("#more") == ["Show 200 more"]
    browser.one("#more").click()
    assert len(set(browser.texts(NUMBERS))) == 400
    browser.one("#text").send_keys("+9198765001")
    assert len(browser.texts(NUMBERS)) == 100 and not browser.one("#more").is_displayed()


def test_screen_readers_get_a_table(browser: Browser, pages: Pages) -> None:
    for width in (1280, 390):
        browser.screen(width)
        browser.open(pages("three"))
        nodes = [node for node in browser.command("Accessibility.getFullAXTree")["nodes"] if not node["ignored"]]
        named = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes]
        roles = [role for role, dummy in named]
        assert ("table", "Numbers") in named
        assert (roles.count("row"), roles.count("columnheader"), roles.count("cell")) == (4, 5, 15)
        for expected in (
            *(("button", column) for column in ("Status", "Number", "Key", "Since", "Account")),
            *(("searchbox", "Search"), ("combobox", "Status"), ("combobox", "Key"), ("search", "Filter the numbers")),
            *(("heading", "Numbers by key and state"), ("image", "Share of each key and state, as listed below"), ("status", "")),
        ):
            assert any(role == expected[0] and name.startswith(expected[1]) for role, name in named), (expected, named)


def test_markup_stays_text(browser: Browser, pages: Pages) -> None:
    browser.open(pages("hostile"))
    assert browser.run("return window.harmed") is None
    assert browser.all("img") == []
    assert browser.complaints() == []
    # Blanks and line separators apart, it is all there.
    shown = " ".join(HOSTILE.split())
    for place in ("h1", "td.account small", ".url"):
        assert shown in [" ".join(text.split()).removeprefix("https://x/") for text in browser.texts(place)], place
    browser.one("#text").send_keys("<IMG SRC")
    assert browser.texts(NUMBERS) == [ALL[2]]


def test_policy_lets_nothing_else_run_or_load(browser: Browser, pages: Pages) -> None:
    browser.open(pages("three"))
    browser.requests()
    browser.run(
        """
        window.stopped = [];
        addEventListener("securitypolicyviolation", (violation) => window.stopped.push(violation.effectiveDirective));
        const script = document.createElement("script"); script.textContent = "window.harmed = 'script'"; document.body.append(script);
        const image = new Image(); image.src = "https://nowhere.invalid/x.png"; document.body.append(image);
        const style = document.createElement("style"); style.textContent = "body { display: none }"; document.body.append(style);
        fetch("https://nowhere.invalid/").catch(() => {});
        """
    )
    stopped = browser.run("return new Promise((done) => setTimeout(() => done([window.harmed, window.stopped]), 300))")
    assert stopped[0] is None
    assert {directive.removesuffix("-elem") for directive in stopped[1]} == {"script-src", "style-src", "img-src", "connect-src"}
    assert browser.run("return getComputedStyle(document.body).display") == "block"
    assert browser.requests() == []


def test_without_scripts(browser: Browser, pages: Pages) -> None:
    browser.command("Emulation.setScriptExecutionDisabled", value=True)
    browser.open(pages("three"))
    said = browser.one("body").text
    assert "1 of 3 numbers is not confirmed to carry the expected key" in said
    assert "+919876500002: confirmed" in said and "+919876500000" not in said
    assert KEYS[0] in said and KEYS[1] in said
    assert not browser.one("#table").is_displayed()


def test_on_paper(browser: Browser, pages: Pages) -> None:
    browser.media(media="print", prefers_color_scheme="dark")
    browser.open(pages("many"))
    assert browser.run("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    for selector in (".filters", "#more"):
        assert not browser.one(selector).is_displayed()
    assert browser.run(POOR_CONTRAST) == {}
    browser.media(media="")  # as nobody says, so paper when it is printed
    browser.one("#text").send_keys("+919876500")  # a thousand: paper is dear
    assert len(browser.texts(NUMBERS)) == 200
    pdf = browser.print()
    assert len(browser.texts(NUMBERS)) == 1000
    printed = browser.run("return document.getElementById('printed').textContent")
    assert re.fullmatch(r'Printed 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC\. Numbers filtered by: "\+919876500"\.', printed)
    browser.media(media="print")
    assert browser.one("#printed").is_displayed()
    assert set(browser.texts("td.key code")) <= {*KEYS}  # the whole fingerprint
    sheets = len(re.findall(rb"/Type\s*/Page\b", pdf))
    assert 20 < sheets < 60


def test_reduced_motion(browser: Browser, pages: Pages) -> None:
    for wish, lasts in (("no-preference", True), ("reduce", False)):
        browser.media(prefers_reduced_motion=wish)
        browser.open(pages("three"))
        assert (browser.run("return getComputedStyle(document.querySelector('#reset')).transitionDuration") != "0s") == lasts
