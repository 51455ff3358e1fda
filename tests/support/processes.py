# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The core without Ansible: in the test's own process, or in a fork that can be killed, lose its rights, or have a full disk."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible_collections.kaleyra.whatsapp.plugins.module_utils import _http
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._libraries import load_cryptography, load_requests
from ansible_collections.kaleyra.whatsapp.plugins.modules.kaleyra_flows_encryption import SPEC

from support.keys import KeyPair
from support.playbook_runs import API_KEY, SID

# Before the first fork, so that no child spends its short life on imports.
load_requests()
load_cryptography()


@dataclasses.dataclass(frozen=True)
class Key:
    """A public key, its fingerprint taken by openssl, once: each look at KeyPair's costs two processes."""

    public: str
    fingerprint: str

    @classmethod
    def make(cls) -> Key:
        pair = KeyPair.make("RSA", "rsa_keygen_bits:2048")
        return cls(pair.public, pair.fingerprint)


class Child:
    """A forked process that does some work and hands back what it returns, as JSON."""

    def __init__(self, work: Callable[[], Any]) -> None:
        reading, writing = os.pipe()
        sys.stdout.flush()
        with warnings.catch_warnings():
            # The only other threads here are the core's own, which wait for calls and hold nothing.
            warnings.simplefilter("ignore", DeprecationWarning)
            self.pid = os.fork()
        if not self.pid:
            self._work(work, writing)
        os.close(writing)
        self._reading = reading
        self._status: int | None = None

    @staticmethod
    def _work(work: Callable[[], Any], writing: int) -> None:
        # Threads and connections stay with the parent.
        _http._adapter.cache_clear()
        try:
            answer = {"result": work()}
        except BaseException:
            answer = {"error": traceback.format_exc()}
        with open(writing, "w", encoding="utf-8") as pipe:
            json.dump(answer, pipe)
        os._exit(0)

    def kill(self) -> None:
        """End it as a power cut would, if it still runs, and see it gone."""
        if self._status is None:
            os.kill(self.pid, signal.SIGKILL)
            dummy, self._status = os.waitpid(self.pid, 0)
            os.close(self._reading)

    def wait(self) -> Any:
        """What the work returned; None if the process was killed before it could say so."""
        with open(self._reading, encoding="utf-8") as pipe:
            text = pipe.read()
        dummy, self._status = os.waitpid(self.pid, 0)
        if os.WIFSIGNALED(self._status):
            return None
        answer = json.loads(text)
        assert "error" not in answer, answer["error"]
        return answer["result"]


def in_child(work: Callable[[], Any]) -> Any:
    """Do the work in a process of its own and return what it returns."""
    return Child(work).wait()


def options(api_url: str, cache_path: Path | str, phone_number: str | None, public_key: str, **given: Any) -> dict[str, Any]:
    """All options, as both execution modes hand them to the core."""
    made = {
        **{name: option.get("default") for name, option in SPEC.argument_spec.items()},
        "api_url": api_url,
        "sid": SID,
        "api_key": API_KEY,
        "phone_number": phone_number,
        "business_public_key": public_key,
        "cache_path": str(cache_path),
        "timeout": 20,
        "retries": 0,
    }
    assert given.keys() <= made.keys()
    return {**made, **given}


def register(params: dict[str, Any], *, check_mode: bool = False) -> dict[str, Any]:
    """The task's result, as both execution modes return it."""
    return SPEC.run(params, check_mode=check_mode, diff_mode=False)


def register_all(api_url: str, cache_path: Path | str, numbers: list[str], public_key: str, **given: Any) -> dict[str, Any]:
    """Registrations that a test begins with, without the time that a run of Ansible takes."""
    return register(options(api_url, cache_path, None, public_key, phone_numbers=numbers, **given))
