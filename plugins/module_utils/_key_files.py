# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The files of a key pair on the key host, and the steps of a rotation that change them.

Each step holds a lock, reads the files again, and changes nothing if they have changed since the plan was made. A private key always
keeps a name: files are linked, replaced in one step, and removed only if the key has another name or has been retired.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import stat
import time
import typing as t

from ._errors import InvalidInput, KeyPairError
from ._libraries import load_cryptography
from ._lock import LockTimeout, file_lock
from ._rotation import Keys, Plan, in_utc

_MAX_BYTES = 64 * 1024
_LOCK_TIMEOUT = 30.0

# How long a key is kept for a run that was killed while it registered the key, in seconds.
_CLAIM_TIME = 86400

Evidence = t.Callable[[str, str], list[str]]
"""Called with the fingerprints of the target and of the other key; returns the obstacles to replacing or removing the other one."""


@dataclasses.dataclass(frozen=True)
class PrivateKey:
    """The public part of a private key.

    :param fingerprint: of its public key, as of :class:`PublicKey`
    :param public_pem: its public key as PEM, with a newline at the end
    """

    fingerprint: str
    public_pem: str
    is_rsa_2048: bool


@dataclasses.dataclass(frozen=True)
class _Paths:
    private: str
    public: str


class KeyFiles:
    """The current, next and previous key pair, in the same folder.

    :param private_key_path: of the current private key
    :param public_key_path: of the current public key; None for the default name beside the private key
    :raises InvalidInput: two files would have the same path
    """

    def __init__(self, private_key_path: str, public_key_path: str | None = None, passphrase: str | None = None) -> None:
        root, extension = os.path.splitext(private_key_path)
        self.current = _Paths(private_key_path, public_key_path or f"{root}.pub.pem")
        self.next = _Paths(f"{root}.next{extension}", f"{root}.next.pub.pem")
        self.previous = _Paths(f"{root}.previous{extension}", f"{root}.previous.pub.pem")
        pairs = (self.current, self.next, self.previous)
        if len({os.path.abspath(path) for pair in pairs for path in (pair.private, pair.public)}) < 6:
            raise InvalidInput(f"public_key_path {self.current.public} is the path of another file of the key pair. Set it to another path.")
        self._passphrase = passphrase
        self._folder = os.path.dirname(os.path.abspath(private_key_path))
        self._swap = private_key_path + ".flows_encryption.swap"
        self._lock_path = os.path.join(self._folder, f".{os.path.basename(private_key_path)}.lock")
        self._claims_path = os.path.join(self._folder, f".{os.path.basename(private_key_path)}.registering")
        self._read_before: dict[bytes, PrivateKey] = {}

    @property
    def new_private_key_path(self) -> str:
        """Path where the next private key is created before it is staged."""
        return self.next.private + ".flows_encryption.new"

    def read(self) -> Keys:
        """Read the three private keys.

        :raises KeyPairError: there is no current key, or a file cannot be read
        """
        current = self.read_key(self.current.private)
        if current is None:
            raise KeyPairError(
                f"There is no private key at private_key_path {self.current.private}. Check the path and the host. "
                "The role's main entry point creates and registers the first key pair."
            )
        following, previous = self.read_key(self.next.private), self.read_key(self.previous.private)
        promoted_at = os.stat(self.current.private).st_mtime
        return Keys(
            current.fingerprint,
            following.fingerprint if following else None,
            previous.fingerprint if previous else None,
            current_since=promoted_at,
            previous_since=self._previous_since(previous, promoted_at),
        )

    def _previous_since(self, previous: PrivateKey | None, promoted_at: float) -> float:
        # The time of the public key's file is when the key became the previous one; without it, that of the current key's promotion is used.
        if previous and _text(self.previous.public) == previous.public_pem:
            return os.stat(self.previous.public).st_mtime
        return promoted_at

    def paths(self) -> list[str]:
        """Return the paths of the private keys to deploy to the endpoint. A next key that has been promoted is the current one."""
        keys = self.read()
        found = [(self.current, keys.current), (self.next, keys.staged), (self.previous, keys.previous)]
        return [pair.private for pair, fingerprint in found if fingerprint]

    def public_pem(self, fingerprint: str | None) -> str:
        """Return the PEM of the public key with this fingerprint, empty if there is none."""
        for key in (self.read_key(pair.private) for pair in (self.current, self.next, self.previous)):
            if key and key.fingerprint == fingerprint:
                return key.public_pem
        return ""

    def stage(self, plan: Plan, new_private_key_path: str | None = None) -> Plan:
        """Link the new private key as the next key, and the current key as the previous key; return the plan with its target.

        If another run has staged a next key since the plan was made, the rotation continues with that one. A plan without a next key
        is only compared with the files. From now on, other runs do not remove the target, until :meth:`promote` with this plan.

        :raises KeyPairError: nothing was changed, because the files have changed since the plan was made, or the new key cannot be used
        """
        new = new_private_key_path or self.new_private_key_path
        with self._locked():
            keys = self.read()
            if not plan.stages:
                if (keys.current, keys.next, keys.previous) != (plan.current, plan.next, plan.previous):
                    raise self._changed(plan, keys)
                self._claim(plan, keys.current)
                return plan
            if keys.current != plan.current or keys.kept or keys.next == keys.current or (plan.next and keys.next != plan.next):
                self._discard(new)
                raise self._changed(plan, keys)
            if not keys.next:
                self._require_new_key(new, keys)
                _sync(new)
                self._link(new, self.next.private)
            if not keys.previous:
                self._link(self.current.private, self.previous.private)
            staged = self.read()
            self._write_public(self.next, staged.next)
            self._discard(new)
            _sync(self._folder)
            self._claim(plan, staged.next)
            return dataclasses.replace(plan, next=staged.next, previous=staged.previous, target=staged.next)

    def promote(self, plan: Plan, find_obstacles: Evidence) -> tuple[bool, list[str]]:
        """Replace the current key with the next key, unless there are obstacles; return whether files have changed, and the obstacles.

        A plan without a next key is only compared with the files, and missing public keys are written.

        :raises KeyPairError: nothing was changed, because the files have changed since the plan was made
        """
        with self._locked():
            self._claim(plan, None)
            keys = self.read()
            changed = False
            if keys.current != plan.target:
                if not plan.stages or keys.current != plan.current or keys.next != plan.target or keys.kept:
                    raise self._changed(plan, keys)
                obstacles = find_obstacles(keys.next or "", keys.current)
                if obstacles:
                    return False, obstacles
                self._require_new_key(self.next.private, keys)
                self._swap_in(keys)
                keys, changed = self.read(), True
            if keys.kept:
                changed |= self._write_public(self.previous, keys.kept, keys.previous_since)
            changed |= self._write_public(self.current, keys.current)
            return changed, []

    def _swap_in(self, keys: Keys) -> None:
        now = time.time()
        if not keys.previous:
            self._link(self.current.private, self.previous.private)
        self._remove_leftover(keys)
        # Both times are set before the swap: if the run is killed in between, the next promotion sets them again.
        self._write_public(self.previous, keys.current, now, always=True)
        with contextlib.suppress(PermissionError):  # not its owner: the key's age counts from its creation
            os.utime(self.next.private, (now, now))
        self._link(self.next.private, self._swap)
        _sync(self._folder)
        os.replace(self._swap, self.current.private)
        _sync(self._folder)

    def _remove_leftover(self, keys: Keys) -> None:
        """Remove the temporary name that a run left behind that was killed while promoting."""
        left = self.read_key(self._swap)
        if left:
            if left.fingerprint not in (keys.current, keys.next, keys.previous):
                raise KeyPairError(f"{self._swap} contains a private key that does not belong to the key pair. Move it to another folder.")
            os.unlink(self._swap)

    def clean_up(self, plan: Plan) -> bool:
        """Remove the next and the previous name of the current key; return whether there were any.

        :raises KeyPairError: nothing was changed, because the current key is not the one that was registered
        """
        with self._locked():
            keys = self.read()
            if keys.staged:
                return False
            if keys.current != plan.target:
                raise self._changed(plan, keys)
            self._remove_leftover(keys)
            changed = False
            for pair, fingerprint in ((self.next, keys.next), (self.previous, keys.previous)):
                if fingerprint == keys.current:
                    self._remove(pair)
                    changed = True
            return changed

    def retire(self, plan: Plan, find_obstacles: Evidence) -> tuple[bool, list[str]]:
        """Remove the previous key if that is planned and there are no obstacles; return whether it was removed, and the obstacles.

        A run that is registering the previous key is an obstacle, too.

        :raises KeyPairError: nothing was changed, because the files have changed since the plan was made
        """
        with self._locked():
            keys = self.read()
            if keys.current != plan.target or (keys.kept and keys.kept != plan.other):
                raise self._changed(plan, keys)
            if not plan.retires or not keys.kept:
                return False, []
            obstacles = self.retirement_obstacles(keys, find_obstacles)
            if not obstacles:
                self._remove(self.previous)
            return not obstacles, obstacles

    def retirement_obstacles(self, keys: Keys, find_obstacles: Evidence) -> list[str]:
        """Return the obstacles to removing the previous key."""
        claims = [claim for claim in self._claims().values() if claim["fingerprint"] == keys.kept]
        return find_obstacles(keys.current, keys.kept or "") + [
            f"another run began to register it at {in_utc(claim['since'])} and has not finished "
            f"(ignored after {in_utc(claim['since'] + _CLAIM_TIME)})"
            for claim in claims
        ]

    def _claims(self) -> dict[str, t.Any]:
        """Return the runs that register a key, each with the key and the time since when."""
        try:
            with open(self._claims_path, encoding="ascii") as file:
                claims = json.load(file)
            return {run: claim for run, claim in claims.items() if time.time() - claim["since"] < _CLAIM_TIME and claim["fingerprint"]}
        except FileNotFoundError:
            return {}
        except (ValueError, LookupError, TypeError, AttributeError):
            raise KeyPairError(f"{self._claims_path} is damaged. Remove it while no rotation is running.") from None

    def _claim(self, plan: Plan, fingerprint: str | None) -> None:
        """Store that the plan's run registers a key from now on, or (None) no longer does."""
        claims = {run: claim for run, claim in self._claims().items() if run != plan.run}
        if fingerprint:
            claims[plan.run] = {"fingerprint": fingerprint, "since": time.time()}
        if claims:
            self._write(self._claims_path, json.dumps(claims), 0o600)
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._claims_path)
        _sync(self._folder)

    def read_key(self, path: str) -> PrivateKey | None:
        """Read a private key; None if there is no file.

        :raises KeyPairError: it is not a file with a private key
        """
        try:
            found = os.lstat(path)
            if stat.S_ISLNK(found.st_mode):
                raise KeyPairError(
                    f"{path} is a symbolic link, which a rotation would replace. Set private_key_path to the file that it points to."
                )
            if not stat.S_ISREG(found.st_mode):
                raise KeyPairError(f"{path} is not a file. It must be the file of a private key.")
            with open(path, "rb") as file:
                content = file.read(_MAX_BYTES)
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise KeyPairError(f"The private key {path} cannot be read: {exc.strerror}. Run this as a user that can read it.") from exc
        if content not in self._read_before:
            self._read_before[content] = parse_private_key(content, self._passphrase, path)
        return self._read_before[content]

    def _require_new_key(self, path: str, keys: Keys) -> None:
        key = self.read_key(path)
        if not key:
            raise KeyPairError(f"There is no new private key at {path}, where it should have been created. Nothing was changed. Run this again.")
        if not key.is_rsa_2048:
            raise KeyPairError(f"The new private key {path} is not RSA with 2048 bits, as the API requires. Nothing was changed.")
        if key.fingerprint == keys.current:
            raise KeyPairError(f"The new private key {path} is the current one. Nothing was changed.")

    @staticmethod
    def _discard(new: str) -> None:
        """Remove the file created for the next key: either another name of that key, or a key that was never used."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)

    def _write_public(self, pair: _Paths, fingerprint: str | None, modified: float | None = None, *, always: bool = False) -> bool:
        """Replace the public key's file if its content differs, or ``always``; it belongs to the private key's owner."""
        pem = self.public_pem(fingerprint)
        if not always and _text(pair.public) == pem:
            return False
        self._write(pair.public, pem, 0o644, modified)
        return True

    def _write(self, path: str, content: str, mode: int, modified: float | None = None) -> None:
        """Replace a file without secrets in one step; it belongs to the private key's owner."""
        new = path + ".flows_encryption.new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)
        with self._naming(path):
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
            with open(descriptor, "w", encoding="ascii") as file:
                file.write(content)
                file.flush()
                os.fchmod(file.fileno(), mode)
                owner = os.stat(self.current.private)
                with contextlib.suppress(PermissionError):
                    os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
                os.fsync(file.fileno())
            if modified is not None:
                os.utime(new, (modified, modified))
            os.replace(new, path)

    def _link(self, source: str, target: str) -> None:
        try:
            os.link(source, target)
        except OSError as exc:
            if exc.errno in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV):
                raise KeyPairError(
                    f"{source} cannot be linked as {target} ({exc.strerror}). A rotation needs a file system with hard links: "
                    "move the key pair to one."
                ) from exc
            raise

    def _remove(self, pair: _Paths) -> None:
        # The private key last: while it exists, the run after a killed one knows what to do.
        for path in (pair.public, pair.private):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        _sync(self._folder)

    @contextlib.contextmanager
    def _locked(self) -> t.Iterator[None]:
        try:
            with self._naming(self._lock_path), file_lock(self._lock_path, timeout=_LOCK_TIMEOUT):
                yield
        except LockTimeout:
            raise KeyPairError(
                f"Another process has been changing the key pair {self.current.private} for {_LOCK_TIMEOUT:g} seconds "
                f"(its lock is {self._lock_path}). Wait for it or end it, then run this again."
            ) from None

    @contextlib.contextmanager
    def _naming(self, path: str) -> t.Iterator[None]:
        try:
            yield
        except OSError as exc:
            named = exc.filename2 or exc.filename or path
            raise KeyPairError(
                f"The files of the key pair private_key_path {self.current.private} cannot be changed ({named}: {exc.strerror}). "
                "Run this as their owner, who needs write access to the folder. The run continues from what has been done."
            ) from exc

    def _changed(self, plan: Plan, keys: Keys) -> KeyPairError:
        expected = {"current": plan.current, "next": plan.next, "previous": plan.previous}
        found = {"current": keys.current, "next": keys.next, "previous": keys.previous}
        differences = ", ".join(
            f"the {name} key is {(found[name] or 'missing')[:11]} and was {(expected[name] or 'missing')[:11]}"
            for name in expected
            if found[name] != expected[name]
        )
        return KeyPairError(
            f"The key files beside {self.current.private} have changed since this run made its plan: {differences or 'their roles differ'}. "
            "Another run has changed them. This step has changed no key file. Run it again: "
            "it continues from the keys that exist, and registers the right one."
        )


def parse_private_key(content: bytes, passphrase: str | None, path: str) -> PrivateKey:
    """Read the PEM of a private key; a passphrase that the key does not need is ignored.

    :raises KeyPairError: naming the path and what is wrong; no content is repeated
    """
    serialization, unsupported = load_cryptography()
    if not content.strip():
        raise KeyPairError(f"The private key {path} is empty. Restore it from a backup.")
    try:
        try:
            key = serialization.load_pem_private_key(content, passphrase.encode() if passphrase else None)
        except TypeError:
            if passphrase is None:
                raise KeyPairError(
                    f"The private key {path} is protected by a passphrase, but none is set. Set private_key_passphrase "
                    "(role: flows_encryption_private_key_passphrase)."
                ) from None
            key = serialization.load_pem_private_key(content, None)
    except (ValueError, unsupported):
        hint = ", or private_key_passphrase (role: flows_encryption_private_key_passphrase) is wrong" if passphrase else ""
        raise KeyPairError(f"The private key {path} cannot be read: it is damaged or not a private key in PEM{hint}.") from None
    public = key.public_key()
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode("ascii")
    is_rsa_2048 = type(key).__name__.lstrip("_").startswith("RSA") and key.key_size == 2048
    return PrivateKey(hashlib.sha256(der).digest().hex(":"), pem, is_rsa_2048)


def _text(path: str) -> str | None:
    try:
        with open(path, encoding="ascii") as file:
            return file.read(_MAX_BYTES)
    except (OSError, ValueError):
        return None


def _sync(path: str) -> None:
    """Sync a file, or the names in a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
