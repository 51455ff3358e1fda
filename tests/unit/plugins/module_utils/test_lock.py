# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Locks by bytes of one file, between threads and between processes."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._lock import LockTimeout, file_lock

_TRY = """
import sys
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._lock import LockTimeout, file_lock
for offset in sys.argv[2:]:
    try:
        with file_lock(sys.argv[1], timeout=0, offset=int(offset)):
            print("free")
    except LockTimeout:
        print("held")
"""


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / ".lock")


def _in_threads(work: Callable[[int], None], count: int) -> None:
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_one_thread_at_a_time_holds_it(path: str) -> None:
    inside, most, turns = 0, 0, 0

    def work(number: int) -> None:
        nonlocal inside, most, turns
        for dummy in range(20):
            with file_lock(path, timeout=60, offset=7):
                inside += 1
                most = max(most, inside)
                time.sleep(0.0005)
                inside, turns = inside - 1, turns + 1

    _in_threads(work, 4)
    assert (most, turns) == (1, 80)


def test_offsets_do_not_wait_for_each_other(path: str) -> None:
    together = threading.Barrier(8)
    broken: list[Exception] = []

    def work(offset: int) -> None:
        try:
            with file_lock(path, timeout=0, offset=offset):
                together.wait(30)  # all hold theirs at once
        except (LockTimeout, threading.BrokenBarrierError) as exc:
            broken.append(exc)

    _in_threads(work, 8)
    assert not broken


def test_releasing_one_keeps_the_others(path: str, run: Callable[..., str]) -> None:
    """Closing any descriptor of the file, under whatever name, would release them all, as the locks belong to the process."""
    folder = os.path.basename(os.path.dirname(path))
    with contextlib.ExitStack() as others:
        others.enter_context(file_lock(path, timeout=0, offset=1))
        with file_lock(path, timeout=0, offset=2):
            others.enter_context(file_lock(path, timeout=0, offset=3))
        for spelling in (path, f"/{path}", path.replace("/.lock", f"/../{folder}/.lock")):
            with file_lock(spelling, timeout=0, offset=2), pytest.raises(LockTimeout), file_lock(spelling, timeout=0, offset=1):
                pytest.fail("held twice")
        assert run(_TRY, path, "1", "2", "3").split() == ["held", "free", "held"]
    assert run(_TRY, path, "1", "2", "3").split() == ["free", "free", "free"]


def test_file_is_opened_once_while_it_is_the_same(path: str) -> None:
    with file_lock(path, timeout=0):
        os.unlink(path)
        with file_lock(path, timeout=0):  # of a new file
            pass
    before = len(os.listdir("/dev/fd"))
    for offset in range(50):
        with file_lock(path, timeout=0, offset=offset):
            pass
    assert len(os.listdir("/dev/fd")) == before
