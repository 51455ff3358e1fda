# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A key pair that two numbers carry, an endpoint that holds its private key, and runs that rotate it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from support.endpoint.client import Endpoint
from support.keys import fingerprint_of, openssl, public_of
from support.playbook_runs import API_KEY, CHECKOUT, SID, Playbooks, Run, new_number
from support.processes import register_all
from support.simulator.client import Simulator

ROTATE = "kaleyra.whatsapp.rotate_flows_key"
DAY = 86400
AFTER = {"private.pem", "private.pub.pem", "private.previous.pem", "private.previous.pub.pem"}
"""Files of a rotation that is over, the previous key still kept."""


class World:
    """A key pair that two numbers carry, and the endpoint that holds its private key."""

    def __init__(self, playbooks: Playbooks, simulator: Simulator, folder: Path, passphrase: str | None = None) -> None:
        self.playbooks, self.simulator, self.folder, self.passphrase = playbooks, simulator, folder, passphrase
        self.numbers = [new_number(), new_number()]
        # Whatever a path may contain, in every rotation.
        self.keys = folder / "the \"kéys\" of one 'pair'"
        self.keys.mkdir(mode=0o700)
        self.current, self.next, self.previous = (self.keys / f"private{middle}.pem" for middle in ("", ".next", ".previous"))
        encrypted = ["-aes256", "-pass", f"pass:{passphrase}"] if passphrase else []
        openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", *encrypted, "-out", self.current)
        self.age(self.current, 2 * DAY)
        self.endpoint = Endpoint(folder / "endpoint-keys", [self.current], passphrase=passphrase)
        self.variables: dict[str, Any] = {
            "flows_encryption_api_url": simulator.url,
            "flows_encryption_sid": SID,
            "flows_encryption_api_key": API_KEY,
            "flows_encryption_private_key_path": str(self.current),
            "flows_encryption_cache_path": str(folder / "records"),
            "flows_encryption_endpoint_url": self.endpoint.url,
            "flows_encryption_deploy_tasks": str(CHECKOUT / "docs/examples/deploy_to_endpoint.yml"),
            "flows_endpoint_keys_file": str(self.endpoint.keys),
            "flows_endpoint_pid": self.endpoint.pid,
            "flows_encryption_retries": 0,
            "ansible_pipelining": True,  # fewer files, so that many runs take less time
        }

    def deploy_nothing(self) -> dict[str, Any]:
        """Variables of a run that leaves the endpoint with the keys that it has."""
        tasks = self.folder / "nothing.yml"
        tasks.write_text("- name: Leave the endpoint alone\n  ansible.builtin.meta: noop\n")
        return {"flows_encryption_deploy_tasks": str(tasks)}

    def inventory(self, **variables: Any) -> dict[str, Any]:
        return {"all": {"hosts": {number: {} for number in self.numbers}, "vars": {**self.variables, **variables}}}

    def register(self) -> None:
        """What the role did some days ago, without the time that a run takes."""
        public = self.keys / "private.pub.pem"
        public.write_text(public_of(self.current, self.passphrase or ""))
        assert register_all(self.simulator.url, self.folder / "records", self.numbers, public.read_text())["changed"]

    def rotate(self, *args: str, kill_after: tuple[str, int] | None = None, **variables: Any) -> Run:
        return self.playbooks.run(ROTATE, self.inventory(**variables), *args, kill_after=kill_after)

    @staticmethod
    def age(path: Path, seconds: int) -> None:
        then = time.time() - seconds
        os.utime(path, (then, then))

    @staticmethod
    def fingerprint(private_key: Path) -> str:
        return fingerprint_of(public_of(private_key))

    def carried(self) -> list[str]:
        """What the API holds for each number."""
        registered = self.simulator.registered()[SID]
        return [registered[number] for number in self.numbers]

    def files(self) -> set[str]:
        """Names of the key files: what a rotation keeps for itself beside them is hidden."""
        return {path.name for path in self.keys.iterdir() if not path.name.startswith(".")}
