# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What other users of the machine could see while something runs."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path


class ProcessWatch:
    """Collects, for as long as its block lasts, what the system shows of all processes.

    :ivar seen: user ID, command line and environment
    """

    def __init__(self) -> None:
        self.seen: set[tuple[int, str, str]] = set()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._collect)

    def _collect(self) -> None:
        while not self._end.wait(0.03):
            for process in Path("/proc").glob("[0-9]*"):
                with contextlib.suppress(OSError):  # it has ended, or is somebody else's
                    texts = [(process / name).read_text(errors="replace").replace("\0", " ") for name in ("cmdline", "environ")]
                    self.seen.add((process.stat().st_uid, texts[0], texts[1]))

    def __enter__(self) -> ProcessWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
