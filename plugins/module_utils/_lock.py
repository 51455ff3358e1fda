# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: it can change in any release.

"""A lock on a number: for one process at a time, and one thread of it."""

from __future__ import annotations

import dataclasses
import fcntl
import os
import threading
import time

_EVERY = 0.02


@dataclasses.dataclass
class _File:
    """A lock file, open while a thread of this process holds or wants a place in it.

    Its locks belong to the process as a whole: they keep no thread from another, and closing any descriptor of the file frees them
    all. So all threads share one descriptor, and a list of the places that they hold.
    """

    descriptor: int
    held: set[int] = dataclasses.field(default_factory=set)
    users: int = 0


# By device and inode: the same folder may be spelled in many ways.
_files: dict[tuple[int, int], _File] = {}
_mutex = threading.Lock()


class Lock:
    """One place in a lock file. There is nothing to remove_leftover up, and the system frees what a killed process held.

    :param path: of the lock file, made when needed
    """

    def __init__(self, path: str, place: int) -> None:
        self._path = path
        self._place = place
        self._file: _File | None = None
        self._identity = (0, 0)

    def take(self, patience: float) -> bool:
        """Take the place, and say whether it could be had within so many seconds.

        :raises OSError: the file cannot be used
        """
        self._open()
        taken = False
        try:
            until = time.monotonic() + patience
            while not (taken := self._try()) and time.monotonic() <= until:
                time.sleep(_EVERY)
            return taken
        finally:
            if not taken:
                self._close()

    def free(self) -> None:
        with _mutex:
            if self._file and self._place in self._file.held:
                # With the file's end in mind: a lock that was not freed by then goes with the descriptor.
                fcntl.lockf(self._file.descriptor, fcntl.LOCK_UN, 1, self._place)
                self._file.held.discard(self._place)
        self._close()

    def _open(self) -> None:
        with _mutex:
            try:
                found = os.lstat(self._path)
                self._identity = (found.st_dev, found.st_ino)
            except FileNotFoundError:
                self._identity = (0, 0)
            if self._identity not in _files:
                descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
                opened = os.fstat(descriptor)
                self._identity = (opened.st_dev, opened.st_ino)
                _files[self._identity] = _File(descriptor)
            self._file = _files[self._identity]
            self._file.users += 1

    def _close(self) -> None:
        with _mutex:
            if self._file:
                self._file.users -= 1
                if not self._file.users:
                    del _files[self._identity]
                    os.close(self._file.descriptor)
                self._file = None

    def _try(self) -> bool:
        if not self._file:
            raise AssertionError("not open")
        with _mutex:
            if self._place in self._file.held:
                return False
            try:
                fcntl.lockf(self._file.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, self._place)
            except (BlockingIOError, PermissionError):  # POSIX leaves the choice between EAGAIN and EACCES
                return False
            self._file.held.add(self._place)
            return True
