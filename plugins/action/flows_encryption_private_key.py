# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Creates a private key if it does not exist, once for all hosts of a run that work in parallel."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import typing as t

from ansible import constants
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        result = super().run(tmp, task_vars)
        given = {name: value for name, value in self._task.args.items() if value}
        path, temporary = given.pop("path"), given.pop("temporary_path")

        def module(name: str, **arguments: t.Any) -> dict[str, t.Any]:
            done: dict[str, t.Any] = self._execute_module(module_name=name, module_args=arguments, task_vars=task_vars)
            return done

        # With the strategy free, all hosts that share the key run this task at the same time.
        with _alone(f"{self._task.delegate_to}:{path}"):
            looked = module("ansible.builtin.stat", path=path, get_checksum=False, get_mime=False, get_attributes=False)
            if looked.get("failed"):
                return looked
            if looked["stat"]["exists"]:
                return {**result, "changed": False}
            if "passphrase" in given:
                given["cipher"] = "auto"
            created = module("community.crypto.openssl_privatekey", path=temporary, type="RSA", size=2048, regenerate="always", **given)
            if created.get("failed") or self._task.check_mode:
                return created
            # Unlike moving a file, linking it never replaces a key that another run has created in the meantime.
            linked = module("ansible.builtin.file", src=temporary, path=path, state="hard", mode=given["mode"])
            if linked.get("failed") and "exist" not in linked["msg"]:
                return linked
            removed = module("ansible.builtin.file", path=temporary, state="absent")
            return removed if removed.get("failed") else created


@contextlib.contextmanager
def _alone(what: str) -> t.Iterator[None]:
    """Wait until no other host of this run works on the same key."""
    name = f"flows_encryption_{hashlib.sha256(what.encode()).hexdigest()[:16]}"
    folder = vars(constants)["DEFAULT_LOCAL_TMP"]  # of this run alone
    with open(os.path.join(folder, name), "w", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
