# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

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


def _for_another_process(run: Callable[..., str], path: str, *offsets: int) -> list[str]:
    return run(_TRY, path, *map(str, offsets)).split()


def test_one_thread_at_a_time_holds_it(path: str) -> None:
    inside, most, turns = 0, 0, 0

    def work() -> None:
        nonlocal inside, most, turns
        for dummy in range(20):
            with file_lock(path, timeout=60, offset=7):
                inside += 1
                most = max(most, inside)
                time.sleep(0.0005)
                inside, turns = inside - 1, turns + 1

    threads = [threading.Thread(target=work) for dummy in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, turns) == (1, 80)


def test_releasing_one_keeps_the_others(path: str, run: Callable[..., str]) -> None:
    """Closing any descriptor of the file would release them all, as the locks belong to the process."""
    with contextlib.ExitStack() as others:
        others.enter_context(file_lock(path, timeout=0, offset=1))
        with file_lock(path, timeout=0, offset=2):
            others.enter_context(file_lock(path, timeout=0, offset=3))
        with pytest.raises(LockTimeout), file_lock(path, timeout=0, offset=1):
            pytest.fail("held twice")
        assert _for_another_process(run, path, 1, 2, 3) == ["held", "free", "held"]
    assert _for_another_process(run, path, 1, 2, 3) == ["free", "free", "free"]


@pytest.mark.parametrize("spell", [lambda path: path.replace("/.lock", "/../" + path.split("/")[-2] + "/.lock"), lambda path: "/" + path])
def test_another_spelling_is_the_same_file(spell: Callable[[str], str], path: str, run: Callable[..., str]) -> None:
    with file_lock(path, timeout=0, offset=1):
        with file_lock(spell(path), timeout=0, offset=2), pytest.raises(LockTimeout), file_lock(spell(path), timeout=0, offset=1):
            pytest.fail("held twice")
        assert _for_another_process(run, path, 1) == ["held"]


def test_a_file_made_anew_is_another_one(path: str) -> None:
    with file_lock(path, timeout=0):
        os.unlink(path)
        with file_lock(path, timeout=0):
            pass


def test_a_file_stays_open_once(path: str) -> None:
    with file_lock(path, timeout=0):
        pass
    before = len(os.listdir("/dev/fd"))
    for offset in range(50):
        with file_lock(path, timeout=0, offset=offset):
            pass
    assert len(os.listdir("/dev/fd")) == before


def test_offsets_do_not_wait_for_each_other(path: str) -> None:
    together = threading.Barrier(8)
    broken: list[Exception] = []

    def work(offset: int) -> None:
        try:
            with file_lock(path, timeout=0, offset=offset):
                together.wait(30)  # all hold theirs at once
        except (LockTimeout, threading.BrokenBarrierError) as exc:
            broken.append(exc)

    threads = [threading.Thread(target=work, args=(offset,)) for offset in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not broken
