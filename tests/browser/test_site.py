# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The documentation site in a real browser, as ``make docs`` built it: every page, link, anchor and picture, on a wide and a narrow screen."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from urllib.parse import unquote, urldefrag, urlsplit

import pytest
from browser._browser import Browser
from browser.test_report_page import POOR_CONTRAST
from support.playbook_runs import CHECKOUT

SITE = CHECKOUT / ".cache/docs/html"
PAGES = sorted(str(path.relative_to(SITE)) for path in SITE.rglob("*.html"))

LINKS = "return Array.from(document.querySelectorAll('a[href]'), (link) => link.href)"
IDS = "return Array.from(document.querySelectorAll('[id]'), (element) => element.id)"
CUT_CODE = "return Array.from(document.querySelectorAll('pre')).filter((e) => e.scrollWidth > e.clientWidth).map((e) => e.innerText)"
DRAWINGS = "return Array.from(document.querySelectorAll('article img[src$=\".svg\"]'), (image) => [image.width, image.height])"
BROKEN_PICTURES = """
const pictures = [...document.images];
pictures.forEach((picture) => { picture.loading = "eager"; });
await Promise.all(pictures.map((picture) => picture.decode().catch(() => {})));
return pictures.filter((picture) => !picture.naturalWidth || !picture.alt.trim()).map((picture) => picture.src);
"""
# What stands out of the screen and cannot be brought into it, as a box that scrolls would.
TOO_WIDE = """
// A phone widens its own idea of the screen to what stands out.
const width = Math.min(document.documentElement.clientWidth, arguments[0]);
const bounds = ["auto", "scroll", "hidden"];
// A table or a block of code may be moved sideways, the article as a whole may not.
const scrolls = (element) => element.tagName !== "ARTICLE" && element !== document.body
  && (bounds.includes(getComputedStyle(element).overflowX) || scrolls(element.parentElement));
const out = [...document.querySelectorAll("main *, article *")].filter((element) => element.checkVisibility()
  && element.getBoundingClientRect().right > width + 1 && !scrolls(element));
return [document.documentElement.scrollWidth - width, out.map((element) => element.outerHTML.slice(0, 120))];
"""


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """The site's address."""
    assert PAGES, f"There is no site in {SITE}: make docs"
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(SITE))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


def test_pages_are_whole_fit_and_lead_to_each_other(browser: Browser, site: str) -> None:
    links: dict[str, set[str]] = {}
    ids: dict[str, set[str]] = {}
    for page in PAGES:
        browser.media(prefers_color_scheme="light")
        browser.screen(1400)
        browser.open(site + page)
        assert browser.run(BROKEN_PICTURES) == [], page
        links[page] = {link.removeprefix(site) for link in browser.run(LINKS) if link.startswith(site)}
        ids[page] = set(browser.run(IDS))
        if page in ("index.html", "first_registration.html"):
            assert browser.run(CUT_CODE) == [], page
        for width, scheme in ((1400, "light"), (390, "dark")):
            browser.screen(width)
            browser.media(prefers_color_scheme=scheme)
            assert browser.run(TOO_WIDE, width) == [0, []], (page, width)
            assert browser.run(POOR_CONTRAST) == {}, (page, scheme)
        if page in ("index.html", "failure.html", "rotation.html", "awx.html"):
            boxes = browser.run(DRAWINGS)
            assert boxes and all(width <= 390 and height > width for width, height in boxes), page  # the narrow ones, higher than wide
        assert browser.complaints() == [], page
    # Nothing comes from elsewhere.
    assert {urlsplit(url).netloc for url in browser.requests() if url.startswith("http")} == {urlsplit(site).netloc}

    targets = {(page, target) for page in PAGES for target in links[page]}
    assert len(targets) > 200
    for page, target in targets:
        path, anchor = urldefrag(target)
        path = unquote(path.partition("?")[0]) or "index.html"
        assert (SITE / path).is_file() and (not anchor or unquote(anchor) in ids[path]), (page, target)
    seen: set[str] = set()
    waiting = ["index.html"]
    while waiting:
        page = waiting.pop()
        if page in links and page not in seen:
            seen.add(page)
            waiting += [urldefrag(target)[0] for target in links[page]]
    guides = {path.with_suffix(".html").name for path in (CHECKOUT / "docs").glob("*.md")}
    plugins = {f"reference/{path.stem}_module.html" for path in (CHECKOUT / "plugins/modules").glob("[!_]*.py")}
    assert guides | plugins | {"reference/flows_encryption_role.html"} <= seen


def test_search_finds_a_guide(browser: Browser, site: str) -> None:
    browser.open(site + "search.html?q=rotation")
    found = browser.wait("return Array.from(document.querySelectorAll('#search-results li a'), (link) => link.textContent)")
    assert any("rotat" in title.lower() for title in found), found


def test_pictures_follow_the_theme(browser: Browser, site: str) -> None:
    """The theme's switch says the opposite of the system: the picture's ground is as the page's."""
    for scheme, system in (("light", "dark"), ("dark", "light")):
        browser.media(prefers_color_scheme=system)
        browser.open(site + "rotation.html")
        browser.run("document.body.dataset.theme = arguments[0]; document.images[0].scrollIntoView()", scheme)
        place = browser.run("const box = document.images[0].getBoundingClientRect(); return [box.left + 30, box.top + 4]")
        assert (browser.brightness(*place) > 0.5) is (scheme == "light")
