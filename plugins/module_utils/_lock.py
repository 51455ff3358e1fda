# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A file lock that one thread of one process holds at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
import typing as t

_INTERVAL = 0.02

# A process loses all its locks on a file when it closes any descriptor of that file. So each file, identified by device and inode, is
# opened once and stays open. POSIX locks do not exclude threads of the same process, so the locks of this process are also kept here.
_descriptors: dict[tuple[int, int], int] = {}
_held: set[tuple[int, int]] = set()
_mutex = threading.Lock()


class LockTimeout(Exception):
    """The lock was held by another process or thread for the whole time."""


@contextlib.contextmanager
def file_lock(path: str, *, timeout: float, offset: int = 0) -> t.Iterator[None]:
    """Hold the lock on one byte of a file. The system releases the locks of a killed process.

    :param path: of the lock file, created if needed
    :param timeout: seconds to wait for the lock
    :param offset: of the byte; each byte is a separate lock
    :raises LockTimeout: the lock could not be acquired in time
    :raises OSError: the file cannot be used
    """
    lock = (_open(path), offset)
    until = time.monotonic() + timeout
    while not _acquire(*lock):
        if time.monotonic() >= until:
            raise LockTimeout
        time.sleep(_INTERVAL)
    try:
        yield
    finally:
        _release(*lock)


def _open(path: str) -> int:
    """Return the descriptor of the file, and open it the first time."""
    with _mutex:
        try:
            found = os.lstat(path)
            known = _descriptors.get((found.st_dev, found.st_ino))
            if known is not None:
                return known
        except FileNotFoundError:
            pass
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        opened = os.fstat(descriptor)
        return _descriptors.setdefault((opened.st_dev, opened.st_ino), descriptor)


def _acquire(descriptor: int, offset: int) -> bool:
    with _mutex:
        if (descriptor, offset) in _held:
            return False
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, offset)
        except (BlockingIOError, PermissionError):  # POSIX allows both EAGAIN and EACCES
            return False
        _held.add((descriptor, offset))
        return True


def _release(descriptor: int, offset: int) -> None:
    with _mutex:
        # Unlock explicitly; the descriptor stays open.
        fcntl.lockf(descriptor, fcntl.LOCK_UN, 1, offset)
        _held.discard((descriptor, offset))
