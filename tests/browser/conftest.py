# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pages as the role writes them, and a browser to open them in."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browser._browser import Browser
from browser._pages import PAGES
from support.playbook_runs import Playbooks
from support.role import prefixed


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The page of these records, as the playbook writes it; made once each."""
    made: dict[str, Path] = {}

    def page(name: str) -> Path:
        if name not in made:
            records, folder = tmp_path_factory.mktemp("records"), tmp_path_factory.mktemp("r")
            given = {"cache_path": str(records), "report_path": str(folder / "flows"), "report_formats": ["html"], **PAGES[name](records)}
            run = Playbooks(folder, "https://nowhere.invalid").run("kaleyra.whatsapp.flows_report", "", variables=prefixed(given))
            assert run.rc == 0, run.output
            made[name] = folder / "flows.html"
        return made[name]

    return page


@pytest.fixture(scope="session")
def _browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("There is no chromium or no chromedriver here. Debian has them as chromium and chromium-driver.")
    os.environ["SE_AVOID_STATS"] = "true"  # the driver is told where the browser is, and has nothing to ask anybody
    browser = Browser(chromium, driver, tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def browser(_browser: Browser) -> Browser:
    """As just started: a wide screen, light colours, scripts on."""
    _browser.reset()
    return _browser
