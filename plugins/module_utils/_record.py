# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The record of the key that a number carries: a small file, or what the caller states."""

from __future__ import annotations

import contextlib
import datetime
import errno
import functools
import hashlib
import json
import os
import re
import stat
import threading
import typing as t
from urllib.parse import quote, unquote

from ._errors import KaleyraError, OutcomeUnknown, RecordBusy, RecordError
from ._lock import LockTimeout, file_lock

_FORMAT = 2
_IDENTITY = ("api", "sid", "phone_number")
_MAX_BYTES = 4096
# How many keys a number may carry; with more, it counts as any key.
_MAX_POSSIBLE = 16
_FINGERPRINT = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){31}")
_NAME = re.compile(r"([A-Za-z0-9._~%-]+),([A-Za-z0-9_-]+),(\+[1-9][0-9]{6,14})\.json")

# Serialise writes: concurrent writers mostly wait for the GIL.
_writing = threading.Lock()


class Record(t.NamedTuple):
    """Which key a number carries.

    :param fingerprint: of the key that was confirmed, or that was tried last
    :param confirmed: false during a registration, and after one with an unknown outcome
    :param since: when the record was written, None if it does not expire
    :param before: unless confirmed, the keys that the number may have carried before, None if it could be any key
    """

    fingerprint: str
    confirmed: bool
    since: datetime.datetime | None = None
    before: tuple[str, ...] | None = None

    @property
    def possible_fingerprints(self) -> tuple[str, ...] | None:
        """Every key that the number may carry; None if it could be any key."""
        if self.confirmed:
            return (self.fingerprint,)
        return None if self.before is None else tuple(dict.fromkeys([self.fingerprint, *self.before]))

    def may_carry(self, fingerprint: str) -> bool:
        """Whether the number may carry this key."""
        possible = self.possible_fingerprints
        return possible is None or fingerprint in possible

    def is_older_than(self, seconds: int) -> bool:
        """Whether the record is older. Also true for a record from the future: its clock was wrong, so its age is unknown."""
        if self.since is None:
            return False
        age = (datetime.datetime.now(datetime.timezone.utc) - self.since).total_seconds()
        return not 0 <= age < seconds


class InvalidRecord(Exception):
    """The file is not a record of this number; the message is the reason."""


class KnownKey:
    """The key that the caller knows to be registered, instead of a file."""

    def __init__(self, fingerprint: str) -> None:
        self._record = Record(fingerprint, confirmed=True)

    def read(self) -> Record | None:
        return self._record

    def require_writable(self) -> None:
        pass

    def exclusive(self, timeout: float, *, waited: float = 0.0) -> t.ContextManager[None]:
        return contextlib.nullcontext()

    def is_correct(self, fingerprint: str | None) -> bool:
        return True

    def correct(self, fingerprint: str | None) -> None:
        pass

    def registering(self, fingerprint: str) -> t.ContextManager[None]:
        return contextlib.nullcontext()


class RecordFile:
    """The record of one number of one account on one API host.

    :param cache_path: folder of the records, created if needed
    :param api: API host as in :attr:`Account.api`
    :param phone_number: as :func:`normalise_phone_number` returns it
    """

    def __init__(self, cache_path: str, api: str, sid: str, phone_number: str) -> None:
        self._folder = cache_path
        self._identity = (api, sid, phone_number)
        # The digits and the plus sign of a number in E.164 need no quoting.
        self._path = f"{_prefix(cache_path, api, sid)}{phone_number}.json"

    @property
    def path(self) -> str:
        """Path of the file."""
        return self._path

    @property
    def identity(self) -> dict[str, str]:
        """``api``, ``sid`` and ``phone_number``."""
        return dict(zip(_IDENTITY, self._identity))

    def read(self) -> Record | None:
        """Return the record, or None if there is none.

        :raises InvalidRecord: the file is not a record
        """
        content = self._content()
        return None if content is None else self._parse(content)

    def require_writable(self) -> None:
        """Check, without writing, that the record can be written.

        :raises RecordError: it cannot be written
        """
        with self._naming_cache_path():
            _require_writable(self._folder)

    @contextlib.contextmanager
    def exclusive(self, timeout: float, *, waited: float = 0.0) -> t.Iterator[None]:
        """Exclude other processes and threads from registering the same number: each could record the key of the other.

        :param timeout: seconds to wait for them
        :param waited: seconds that the caller has waited for them already
        :raises RecordBusy: they have not finished in time
        :raises RecordError: the folder cannot be written
        """
        # One file for all numbers, with one byte for each.
        offset = int.from_bytes(hashlib.sha256(os.path.basename(self._path).encode()).digest()[:7], "big")
        with contextlib.ExitStack() as stack:
            try:
                with self._naming_cache_path():
                    os.makedirs(self._folder, mode=0o700, exist_ok=True)
                    stack.enter_context(file_lock(os.path.join(self._folder, ".lock"), timeout=timeout, offset=offset))
            except LockTimeout:
                raise RecordBusy(
                    f"Another process has been registering {self._identity[-1]} for {timeout + round(waited):g} seconds "
                    f"(its lock is in cache_path {self._folder}). Wait for it or end it, then run this again."
                ) from None
            yield

    @contextlib.contextmanager
    def registering(self, fingerprint: str) -> t.Iterator[None]:
        """Write the record as unconfirmed, and confirm it when the body succeeds.

        After an error that certainly left the number's key unchanged, the earlier record is restored. If the body ends in any other way,
        for example because the process is killed, the record stays unconfirmed.

        :raises RecordError: before the body, the folder cannot be written; after it, the success could not be recorded
        """
        earlier = before = None
        with contextlib.suppress(InvalidRecord):
            earlier = self._content()
            before = self._parse(earlier).possible_fingerprints if earlier is not None else None
        with self._naming_cache_path():
            self._write(self._dump(Record(fingerprint, False, None, before)))
            self._sync()
        try:
            yield
        except OutcomeUnknown:
            raise
        except KaleyraError:
            with contextlib.suppress(OSError):  # an unconfirmed record is correct, and the user needs the first error
                if earlier is None:
                    os.unlink(self._path)
                else:
                    self._write(earlier)
            raise
        with self._naming_cache_path():
            self._write(self._dump(Record(fingerprint, True)))

    def is_correct(self, fingerprint: str | None) -> bool:
        """Whether the record matches the key that was read back, None for no key."""
        try:
            record = self.read()
        except InvalidRecord:
            return False
        return fingerprint is None if record is None else record.confirmed and record.fingerprint == fingerprint

    def correct(self, fingerprint: str | None) -> None:
        """Make the record match the key that was read back, None for no key. Under :meth:`exclusive`.

        :raises RecordError: the folder cannot be written
        """
        if self.is_correct(fingerprint):
            return
        with self._naming_cache_path():
            if fingerprint is not None:
                self._write(self._dump(Record(fingerprint, True)))
            elif os.path.isdir(self._path) and not os.path.islink(self._path):
                os.rmdir(self._path)
            else:
                os.unlink(self._path)

    def _content(self) -> bytes | None:
        try:
            # Neither follow a link nor wait for a pipe in place of the record.
            file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as exc:
            raise InvalidRecord(getattr(exc, "strerror", exc)) from exc
        try:
            content = os.read(file, _MAX_BYTES + 1)
            if not content and not stat.S_ISREG(os.fstat(file).st_mode):  # only then, because it takes time
                raise InvalidRecord("it is not a file")
            if len(content) > _MAX_BYTES:
                raise InvalidRecord("it is too long")
            return content
        except IsADirectoryError:
            raise InvalidRecord("it is not a file") from None
        except OSError as exc:
            raise InvalidRecord(exc.strerror) from exc
        finally:
            os.close(file)

    def _parse(self, content: bytes) -> Record:
        try:
            fields = json.loads(content)
            if fields.pop("checksum") != _checksum(fields):
                raise ValueError
            if tuple(fields[name] for name in _IDENTITY) != self._identity:
                raise InvalidRecord("it is the record of another number, account or API host")
            if fields["format"] not in (1, _FORMAT) or fields["state"] not in ("confirmed", "unconfirmed"):
                raise ValueError
            since = datetime.datetime.fromisoformat(fields["since"])
            if since.tzinfo is None:
                raise ValueError
            # Format 1 had only the key that was tried last.
            possible = fields["possible"] if fields["format"] == _FORMAT else None
            if not all(map(_FINGERPRINT.fullmatch, [fields["fingerprint"], *(possible or ())])):
                raise ValueError
            return Record(fields["fingerprint"], fields["state"] == "confirmed", since, None if possible is None else tuple(possible))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
            raise InvalidRecord("its content is invalid") from None

    def _dump(self, record: Record) -> bytes:
        possible = record.possible_fingerprints
        fields = {
            "format": _FORMAT,
            **self.identity,
            "fingerprint": record.fingerprint,
            "state": "confirmed" if record.confirmed else "unconfirmed",
            "since": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "possible": None if possible is None or len(possible) > _MAX_POSSIBLE else possible,
        }
        # Without a checksum, one damaged byte could change the key, the time, or an unconfirmed record into a confirmed one.
        return json.dumps({**fields, "checksum": _checksum(fields)}).encode() + b"\n"

    def _write(self, content: bytes) -> None:
        """Replace the record in one step. Under :meth:`exclusive`, so one name for the new file is enough."""
        new = f"{self._path}.new"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC  # over what a killed process left
        with _writing:
            file = os.open(new, flags, 0o600)
            try:
                with open(file, "wb") as stream:
                    stream.write(content)
                try:
                    os.replace(new, self._path)
                except IsADirectoryError:  # not a record, so it may be replaced
                    os.rmdir(self._path)
                    os.replace(new, self._path)
            except OSError:
                with contextlib.suppress(OSError):
                    os.unlink(new)
                raise

    def _sync(self) -> None:
        """Ensure that the earlier record cannot return after a power failure, because it may be wrong once something is sent.

        It is enough that the name of the new file is on disk: if its content is lost, the record is invalid and ignored.
        """
        folder = os.open(self._folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    @contextlib.contextmanager
    def _naming_cache_path(self) -> t.Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as exc:  # ValueError: a NUL in the path
            raise RecordError(
                f"The record cannot be written to cache_path {self._folder}: {getattr(exc, 'strerror', exc)}. "
                "Set it to a folder that the task's user can write to, or set known_fingerprint to the key that is registered."
            ) from exc


def record_files(cache_path: str) -> t.Iterator[RecordFile]:
    """Yield, in no particular order, every record in the folder, valid or not. Without the folder, there are no records.

    Other file names are ignored.

    :raises RecordError: the folder cannot be read
    """
    try:
        names = os.listdir(cache_path)
    except FileNotFoundError:
        return
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the path
        raise RecordError(
            f"The records in cache_path {cache_path} cannot be read: {getattr(exc, 'strerror', exc)}. "
            "Set it to the folder of the records, and run this as a user that can read it."
        ) from exc
    for name in names:
        match = _NAME.fullmatch(name)
        if match:
            record = RecordFile(cache_path, unquote(match[1]), match[2], match[3])
            if os.path.basename(record.path) == name:
                yield record


@functools.lru_cache(maxsize=8)
def _prefix(cache_path: str, api: str, sid: str) -> str:
    """Return the beginning of the paths of all records of one account."""
    return os.path.join(cache_path, quote(f"{api},{sid},", safe=","))


def _checksum(fields: dict[str, t.Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _require_writable(folder: str) -> None:
    """Raise the OSError that creating the folder, or a file in it, would raise."""
    while not os.path.lexists(folder):
        folder = os.path.dirname(os.path.abspath(folder))
    if not os.path.isdir(folder):
        raise NotADirectoryError(errno.ENOTDIR, f"{folder} is not a directory")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, f"{folder} cannot be written")
