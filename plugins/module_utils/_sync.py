# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: it can change in any release.
"""Writes a folder out to disk, once for all threads that ask for it at the same moment."""

from __future__ import annotations

import os
import threading


class _Folder:
    """How far a folder is written out: each request to do it has a number."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._turn = threading.Condition()
        self._at_work = False
        self._asked = self._done = 0

    def sync(self) -> None:
        with self._turn:
            self._asked += 1
            mine = self._asked
            while self._done < mine:
                if self._at_work:
                    # That sync may have begun before this thread's file was there: the next one counts.
                    self._turn.wait()
                    continue
                self._at_work, covered = True, self._asked
                self._turn.release()
                try:
                    _sync(self._path)
                finally:
                    self._turn.acquire()
                    self._at_work = False
                    self._turn.notify_all()
                self._done = max(self._done, covered)


_folders: dict[str, _Folder] = {}


def sync_folder(path: str) -> None:
    """Return when all that was done in the folder before the call is on disk.

    :raises OSError: it is not
    """
    _folders.setdefault(path, _Folder(path)).sync()


def _sync(path: str) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
