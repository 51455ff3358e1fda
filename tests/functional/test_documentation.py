# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the documentation shows can be done as it stands, and shows what there is."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
from functional._documents import MODULES, PAGES, Reader, blocks, examples
from support.playbook_runs import CHECKOUT, Playbooks

# Pages that are read after another: they are about numbers that are registered already.
AFTERWARDS = {"docs/first_registration.md": ["docs/check.md", "docs/report.md"]}
FIRST = [page for page in PAGES if blocks(page) and not any(page in pages for pages in AFTERWARDS.values())]


@pytest.fixture
def reader(playbooks: Playbooks, tmp_path: Path) -> Iterator[Reader]:
    made = Reader(playbooks, tmp_path)
    yield made
    made.close()


@pytest.mark.slow
def test_examples_of_the_modules_run(reader: Reader) -> None:
    reader.environment["KALEYRA_SID"] = "HXAP16XXXXXX97IT"
    reader.tasks(*(examples(module).strip() + "\n" for module in MODULES))


@pytest.mark.parametrize("page", FIRST)
@pytest.mark.slow
def test_page_can_be_followed(reader: Reader, page: str) -> None:
    for each in [page, *AFTERWARDS.get(page, [])]:
        before = reader.done
        reader.page(each)
        assert reader.done > before or each == "CONTRIBUTING.md"


def test_pictures_are_what_their_script_draws() -> None:
    spec = importlib.util.spec_from_file_location("draw", CHECKOUT / "docs/images/draw.py")
    assert spec and spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    for path, draw in script.PICTURES.items():
        assert path.read_text() == draw().svg()
