# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Detects that the process that started this one has ended."""

from __future__ import annotations

import os
import select
import sys


class Parent:
    """The process that started this one.

    A worker of Ansible continues when ``ansible-playbook`` is killed, and could undo what the next run registers.

    :param reads_output: whether it reads the standard output, as with a module: over SSH, or with a shell in between, only that shows its end
    """

    def __init__(self, *, reads_output: bool = False) -> None:
        self._pid = os.getppid()
        self._reads_output = reads_output

    def has_ended(self) -> bool:
        return os.getppid() != self._pid or (self._reads_output and _nobody_reads(sys.__stdout__))


def _nobody_reads(stream: object) -> bool:
    try:
        poll = select.poll()
        poll.register(stream.fileno(), 0)  # type: ignore[attr-defined]
        return any(event & (select.POLLERR | select.POLLHUP) for dummy, event in poll.poll(0))
    except (AttributeError, OSError, ValueError):  # no such call on this system, or no descriptor
        return False
