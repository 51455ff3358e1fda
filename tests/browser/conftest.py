# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pages as the role writes them, and a browser to open them in."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from browser._browser import Browser
from browser._pages import HOSTILE, KEYS, SID, write_record
from support.playbook_runs import Playbooks

Report = Callable[..., Path]


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Have the playbook write the page, and return its path."""

    def write(records: Path, **variables: Any) -> Path:
        folder = tmp_path_factory.mktemp("r")
        playbooks = Playbooks(folder, "https://nowhere.invalid")
        given = {"cache_path": str(records), "report_path": str(folder / "flows"), "report_formats": ["html"], **variables}
        run = playbooks.run("kaleyra.whatsapp.flows_report", "", variables={f"flows_encryption_{name}": value for name, value in given.items()})
        assert run.rc == 0, run.output
        return folder / "flows.html"

    return write


@pytest.fixture(scope="session")
def pages(report: Report, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The page of a fleet: ``0``, ``3``, ``10000`` or ``hostile``; made once each."""
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        folder = tmp_path_factory.mktemp("records")
        numbers = [f"+9198765{i:05}" for i in range(int(name) if name.isdigit() else 0)]
        chance = random.Random(8)
        for i, number in enumerate(numbers):
            if name == "3":
                write_record(folder, number, KEYS[i // 2])
            elif i % 400 == 7:
                continue  # absent
            else:
                state = "unconfirmed" if i % 90 == 11 else "confirmed"
                since = f"2026-{chance.randrange(1, 13):02}-{chance.randrange(1, 29):02}T{chance.randrange(24):02}:00:00+00:00"
                path = write_record(folder, number, KEYS[chance.choice([0] * 40 + [1, 1, 2])], state, since)
                if i % 250 == 13:
                    path.write_text("junk")
        if name == "hostile":
            write_record(folder, "+919876500001", KEYS[0])
            api = quote(HOSTILE, safe="")
            (folder / f"{api},{SID},+919876500002.json").write_text("junk")
            verification = {"url": f"https://x/{HOSTILE}", "active": True, "latency_ms": HOSTILE, "fingerprint": HOSTILE}
            return report(folder, report_title=HOSTILE, endpoint_verification=verification)
        return report(folder, report_phone_numbers=numbers, report_fingerprint=KEYS[0])

    return lambda name: made.get(name) or made.setdefault(name, make(name))


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
