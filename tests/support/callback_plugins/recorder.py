# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = """
name: recorder
type: notification
short_description: Write every result to a file, for the functional tests
description:
  - Leaves the output on the terminal as it is, which the tests look at too.
  - One JSON object a line, to the file that the environment variable RECORDER_FILE names.
requirements: []
"""

import json
import os
import signal
import typing as t

from ansible.plugins.callback import CallbackBase


class CallbackModule(CallbackBase):
    """Takes down what happened to each host and item, in order."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "recorder"
    CALLBACK_NEEDS_ENABLED = True

    _play = ""
    _seen = 0

    def v2_playbook_on_play_start(self, play: t.Any) -> None:
        self._play = play.get_name()

    def v2_runner_on_ok(self, result: t.Any) -> None:
        self._record("ok", result)

    def v2_runner_on_failed(self, result: t.Any, ignore_errors: bool = False) -> None:
        self._record("failed", result)

    def v2_runner_on_skipped(self, result: t.Any) -> None:
        self._record("skipped", result)

    def v2_runner_on_unreachable(self, result: t.Any) -> None:
        self._record("unreachable", result)

    def v2_runner_item_on_ok(self, result: t.Any) -> None:
        self._record("ok", result, item=True)

    def v2_runner_item_on_failed(self, result: t.Any) -> None:
        self._record("failed", result, item=True)

    def v2_runner_item_on_skipped(self, result: t.Any) -> None:
        self._record("skipped", result, item=True)

    def v2_playbook_on_stats(self, stats: t.Any) -> None:
        self._write({"recap": {host: stats.summarize(host) for host in stats.processed}})

    def _record(self, status: str, result: t.Any, item: bool = False) -> None:
        task = result._task
        self._write(
            {
                "play": self._play,
                "task": task.name or task.action,
                "action": task.action,
                "host": result._host.get_name(),
                "is_item": item,
                "status": status,
                "result": result._result,
            }
        )
        # KILL_AFTER is the name of a task and how many of its results come before the one that nobody outlives.
        name, dummy, earlier = os.environ.get("KILL_AFTER", "").rpartition("#")
        if earlier and status == "ok" and name == task.name:
            self._seen += 1
            if self._seen > int(earlier):
                os.killpg(0, signal.SIGKILL)

    def _write(self, document: dict[str, t.Any]) -> None:
        with open(os.environ["RECORDER_FILE"], "a", encoding="utf-8") as file:
            file.write(json.dumps(document, default=repr) + "\n")
