# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ensures a key pair of the role's plan on its key host, created once for all hosts of a run that work in parallel."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import posixpath
import typing as t

from ansible import constants
from ansible.plugins.action import ActionBase
from ansible_collections.kaleyra.whatsapp.plugins.plugin_utils._role_plan import (
    Stop,
    cannot_create,
    cannot_read,
    cannot_register,
    cannot_use,
    cannot_write,
    would_vanish,
)

Result = dict[str, t.Any]


class ActionModule(ActionBase):
    """Runs three modules for an existing key pair. An error does not fail the task; it is returned and stops the hosts of the pair."""

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> Result:
        result = super().run(tmp, task_vars)
        self._task_vars = task_vars
        pair, self._passphrase = self._task.args["pair"], self._task.args.get("passphrase") or ""
        try:
            return {**result, "stop": "", **self._ensure(pair)}
        except Stop as stop:
            return {**result, "changed": False, "stop": str(stop), "public_key": ""}

    def _ensure(self, pair: Result) -> Result:
        path, owner = pair["private_key_path"], _given(owner=pair["owner"], group=pair["group"])
        file = self._module("ansible.builtin.file", path=path, state="file", mode=pair["mode"], **owner)
        changed, created = bool(file.get("changed")), False
        # The module file ends without a state where a part of the path is a file.
        if file.get("state") == "absent" or ("state" not in file and not self._stat(path).get("exists")):
            if pair["vanishes"]:
                raise Stop(would_vanish(pair))
            created = self._create(pair, owner)
            if self._task.check_mode:
                return {"changed": created, "public_key": "", "pending": True}
        elif file.get("state") != "file":
            raise Stop(cannot_use(pair, file))
        passphrase = _given(passphrase=self._passphrase)
        info = self._module("community.crypto.openssl_privatekey_info", path=path, **passphrase)
        if not info.get("public_key"):
            raise Stop(cannot_read(pair, info))
        if why := cannot_register(pair, info):
            raise Stop(why)
        changed |= created or self._write_public_key(pair, owner)
        return {"changed": changed, "public_key": info["public_key"], "fingerprint": info["public_key_fingerprints"]["sha256"], "pending": False}

    def _create(self, pair: Result, owner: Result) -> bool:
        """Create the key pair, unless another host of this run has done so, and return whether it was created."""

        def module(name: str, **arguments: t.Any) -> Result:
            done = self._module(name, **arguments)
            if done.get("failed"):
                raise Stop(cannot_create(pair, done["msg"]))
            return done

        path, temporary = pair["private_key_path"], pair["temporary_path"]
        # With the strategy free, all hosts that share the key run this at the same time.
        with _alone(f"{pair['key_host']}:{path}") as is_first:
            if not is_first and self._stat(path).get("exists"):  # by now
                return False
            folder, existing = pair["folder"], self._existing_folder(pair)
            if self._task.check_mode:
                return is_first
            if existing != folder:
                if existing != posixpath.dirname(folder):
                    module("ansible.builtin.file", path=posixpath.dirname(folder), state="directory")
                # The mode comes first: if the owner cannot be set, others still have no access.
                module("ansible.builtin.file", path=folder, state="directory", mode="0700")
                if owner:
                    module("ansible.builtin.file", path=folder, state="directory", **owner)
            module(
                "community.crypto.openssl_privatekey",
                path=temporary,
                type="RSA",
                size=2048,
                regenerate="always",
                format=pair["format"],
                mode=pair["mode"],
                **owner,
                **({"passphrase": self._passphrase, "cipher": "auto"} if self._passphrase else {}),
            )
            # Unlike a move, a link never replaces a key that another run has created in the meantime.
            linked = self._module("ansible.builtin.file", src=temporary, path=path, state="hard", mode=pair["mode"])
            if linked.get("failed") and "exist" not in linked["msg"]:
                raise Stop(cannot_create(pair, linked["msg"]))
            module("ansible.builtin.file", path=temporary, state="absent")
            self._write_public_key(pair, owner)
            return True

    def _write_public_key(self, pair: Result, owner: Result) -> bool:
        public = self._module(
            "community.crypto.openssl_publickey",
            path=pair["public_key_path"],
            privatekey_path=pair["private_key_path"],
            mode="0644",
            **owner,
            **_given(privatekey_passphrase=self._passphrase),
        )
        if public.get("failed"):
            raise Stop(cannot_write(pair, public))
        return bool(public.get("changed"))

    def _existing_folder(self, pair: Result) -> str:
        """Return the key's folder, or the nearest one above it that exists. Also in check mode, it must be a folder that can be written to."""
        folder: str = pair["folder"]
        while not (found := self._stat(folder)).get("exists"):
            above = posixpath.dirname(folder)
            if above in ("", folder):
                return ""
            folder = above
        if not found.get("isdir"):
            raise Stop(cannot_create(pair, f"{folder} is not a folder."))
        if not (found.get("writeable") and found.get("executable")):
            raise Stop(cannot_create(pair, f"the folder {folder} cannot be written to."))
        return folder

    def _stat(self, path: str) -> Result:
        looked = self._module("ansible.builtin.stat", path=path, follow=True, get_checksum=False, get_mime=False, get_attributes=False)
        found: Result = looked.get("stat") or {}
        return found

    def _module(self, name: str, **arguments: t.Any) -> Result:
        done: Result = self._execute_module(module_name=name, module_args=arguments, task_vars=self._task_vars)
        return done


def _given(**options: str) -> Result:
    return {name: value for name, value in options.items() if value}


@contextlib.contextmanager
def _alone(what: str) -> t.Iterator[bool]:
    """Wait until no other host of this run works on the same key. Yields whether this host is the first."""
    name = f"flows_encryption_{hashlib.sha256(what.encode()).hexdigest()[:16]}"
    folder = vars(constants)["DEFAULT_LOCAL_TMP"]  # of this run alone
    with open(os.path.join(folder, name), "a", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield os.fstat(file.fileno()).st_size == 0
        file.write("x")
