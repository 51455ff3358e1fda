# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What only Linux lets a test do to itself: a small file system, and root without its rights."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000
_MS_REC, _MS_PRIVATE = 0x4000, 0x40000
_CAPABILITY_VERSION_3 = 0x20080522


def mount_tmpfs(folder: Path, size: str) -> str | None:
    """Put a small file system there, which ends with this process; return why it cannot be done, None when it was."""
    uid, gid = os.getuid(), os.getgid()
    if _libc.unshare(_CLONE_NEWNS) != 0:
        # Somebody who is not root may be it in a user namespace of his own, where the system allows that.
        if _libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNS) != 0:
            return f"unshare: {os.strerror(ctypes.get_errno())}"
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
            try:
                Path("/proc/self", name).write_text(text)
            except OSError as error:
                return f"{name}: {error.strerror}"
    # Nothing of this may reach the mounts of the others.
    if _libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None) != 0:
        return f"mount --make-rprivate: {os.strerror(ctypes.get_errno())}"
    if _libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, f"size={size}".encode()) != 0:
        return f"mount: {os.strerror(ctypes.get_errno())}"
    return None


def drop_capabilities() -> None:
    """Take away what lets root past the modes of files; who is not root loses nothing."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    if _libc.capset(header, nothing) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def fill(folder: Path) -> None:
    """Leave no byte free on the folder's file system."""
    with open(folder / "filler", "ab", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 512)
        except OSError:
            pass
