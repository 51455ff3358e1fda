# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.kaleyra.whatsapp.plugins.module_utils import _lock
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._lock import Lock

_TRY = """
import sys
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._lock import Lock
print([Lock(sys.argv[1], int(place)).take(0) for place in sys.argv[2:]])
"""


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / ".lock")


def _free_for_another_process(run: Callable[..., str], path: str, *places: int) -> list[bool]:
    return [word == "True" for word in run(_TRY, path, *map(str, places)).strip("[]\n").split(", ")]


def test_a_place_is_taken_by_one_thread_at_a_time(path: str) -> None:
    inside, most, turns = 0, 0, 0

    def work() -> None:
        nonlocal inside, most, turns
        for dummy in range(20):
            lock = Lock(path, 7)
            assert lock.take(60)
            inside += 1
            most = max(most, inside)
            time.sleep(0.0005)
            inside, turns = inside - 1, turns + 1
            lock.free()

    threads = [threading.Thread(target=work) for dummy in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, turns) == (1, 80)
    assert not _lock._files


def test_what_one_thread_frees_does_not_free_what_others_hold(path: str, run: Callable[..., str]) -> None:
    """Closing any descriptor of the file would free them all, as the locks belong to the process."""
    first, second, third = (Lock(path, place) for place in (1, 2, 3))
    for lock in (first, second, third):
        assert lock.take(0)
    second.free()
    assert not Lock(path, 1).take(0)  # nor does one that could not be had
    assert _free_for_another_process(run, path, 1, 2, 3) == [False, True, False]
    first.free()
    third.free()
    assert _free_for_another_process(run, path, 1, 2, 3) == [True, True, True]
    assert not _lock._files


@pytest.mark.parametrize("spell", [lambda path: path.replace("/.lock", "/../" + path.split("/")[-2] + "/.lock"), lambda path: "/" + path])
def test_the_same_file_in_another_spelling_is_the_same(spell: Callable[[str], str], path: str, run: Callable[..., str]) -> None:
    lock, other = Lock(path, 1), Lock(spell(path), 2)
    assert lock.take(0) and other.take(0)
    assert not Lock(spell(path), 1).take(0)
    other.free()
    assert _free_for_another_process(run, path, 1) == [False]
    lock.free()


def test_a_file_that_was_made_anew_is_another_one(path: str) -> None:
    lock = Lock(path, 1)
    assert lock.take(0)
    os.unlink(path)
    other = Lock(path, 1)
    assert other.take(0)
    lock.free()
    other.free()
    assert not _lock._files


def test_many_threads_with_places_of_their_own_do_not_wait_for_each_other(path: str) -> None:
    together = threading.Barrier(8)
    broken: list[Any] = []

    def work(place: int) -> None:
        lock = Lock(path, place)
        if not lock.take(0):
            broken.append(place)
        try:
            together.wait(30)  # all hold theirs at once
        except threading.BrokenBarrierError as exc:
            broken.append(exc)
        lock.free()

    threads = [threading.Thread(target=work, args=(place,)) for place in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not broken
