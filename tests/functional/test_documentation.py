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

# Those that are about numbers which are registered already.
AFTERWARDS = {"docs/check.md", "docs/report.md", "kaleyra_flows_encryption_info"}


@pytest.fixture
def reader(playbooks: Playbooks, tmp_path: Path) -> Iterator[Reader]:
    made = Reader(playbooks, tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.slow
def test_examples_of_a_module_run(reader: Reader, module: str) -> None:
    if module in AFTERWARDS:
        reader.register()
    reader.environment["KALEYRA_SID"] = "HXAP16XXXXXX97IT"
    reader.tasks(examples(module).strip())


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)])
@pytest.mark.slow
def test_page_can_be_followed(reader: Reader, page: str) -> None:
    if page in AFTERWARDS:
        reader.register()
    reader.page(page)
    assert reader.done or page == "CONTRIBUTING.md"


def test_pictures_are_what_their_script_draws() -> None:
    spec = importlib.util.spec_from_file_location("draw", CHECKOUT / "docs/images/draw.py")
    assert spec and spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    for path, draw in script.PICTURES.items():
        assert path.read_text() == draw().svg()
