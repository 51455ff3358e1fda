# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = """
name: stopwatch
type: notification
short_description: Write how long each task took on each host to a file, for the tests of faults
description:
  - One JSON object a line, to the file that the environment variable STOPWATCH_FILE names.
requirements: []
"""

import json
import os
import time
import typing as t

from ansible.plugins.callback import CallbackBase


class CallbackModule(CallbackBase):
    """Counts from the moment that Ansible starts a worker to the moment that the result is there."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "stopwatch"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._began: dict[tuple[str, str], float] = {}

    def v2_runner_on_start(self, host: t.Any, task: t.Any) -> None:
        self._began[host.get_name(), task._uuid] = time.monotonic()

    def v2_runner_on_ok(self, result: t.Any) -> None:
        self._record(result)

    def v2_runner_on_failed(self, result: t.Any, ignore_errors: bool = False) -> None:
        self._record(result)

    def _record(self, result: t.Any) -> None:
        host, task = result._host.get_name(), result._task
        seconds = time.monotonic() - self._began[host, task._uuid]
        with open(os.environ["STOPWATCH_FILE"], "a", encoding="utf-8") as file:
            file.write(json.dumps({"host": host, "task": task.name, "seconds": seconds}) + "\n")
