# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: it can change in any release.

"""What is known of the key that a number carries: a small file, or what the caller says."""

from __future__ import annotations

import contextlib
import datetime
import functools
import hashlib
import json
import os
import re
import stat
import threading
import typing as t
from urllib.parse import quote, unquote

from ._errors import KaleyraError, OutcomeUnknown, RecordError
from ._lock import Lock
from ._sync import sync_folder

_FORMAT = 1
_IDENTITY = ("api", "sid", "phone_number")
_MAX_BYTES = 4096
_NEW = ".new"
_FINGERPRINT = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){31}")
_NAME = re.compile(r"([A-Za-z0-9._~%-]+),([A-Za-z0-9_-]+),(\+[1-9][0-9]{6,14})\.json")

# A record as it is written here, and what its checksum is of. Anything else is read as JSON, which takes three times as long.
_WRITTEN = re.compile(
    r'\{"format": 1, "api": "([ !#-\[\]-~]*)", "sid": "([ !#-\[\]-~]*)", "phone_number": "([ !#-\[\]-~]*)", '
    r'"fingerprint": "([0-9a-f]{2}(?::[0-9a-f]{2}){31})", "state": "((?:un)?confirmed)", '
    r'"since": "([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\+00:00)", "checksum": "([0-9a-f]{64})"\}\n'
)
_CHECKED = '{"api": "%s", "fingerprint": "%s", "format": 1, "phone_number": "%s", "sid": "%s", "since": "%s", "state": "%s"}'

# One thread at a time writes: many that let go of the interpreter at each system call spend most of their time on getting it back.
_writing = threading.Lock()


class Record(t.NamedTuple):
    """What was last proved.

    :param confirmed: false while a registration is under way, and after one whose outcome is unknown
    :param since: when it was written, None if it does not age
    """

    fingerprint: str
    confirmed: bool
    since: datetime.datetime | None = None

    def is_older_than(self, seconds: int) -> bool:
        """Also true for a record from the future: it was written under a wrong clock, its age is not known."""
        if self.since is None:
            return False
        age = (datetime.datetime.now(datetime.timezone.utc) - self.since).total_seconds()
        return not 0 <= age < seconds


class Unreadable(Exception):
    """The file is no record of this number; the message says why."""


class KnownKey:
    """What the caller knows to be registered, in the place of a file."""

    def __init__(self, fingerprint: str) -> None:
        self._record = Record(fingerprint, confirmed=True)

    def read(self) -> Record | None:
        return self._record

    def exclusive(self, patience: float) -> t.ContextManager[None]:
        return contextlib.nullcontext()

    def registering(self, fingerprint: str) -> t.ContextManager[None]:
        return contextlib.nullcontext()

    def remove_leftover(self) -> None:
        pass


class RecordFile:
    """The record of one number of one account on one API host.

    :param cache_path: folder of the records, made when needed
    :param api: API host as in :attr:`Account.api`
    :param phone_number: as :func:`normalise_phone_number` returns it
    """

    def __init__(self, cache_path: str, api: str, sid: str, phone_number: str) -> None:
        self._folder = cache_path
        self._identity = (api, sid, phone_number)
        # Digits and a plus sign, as numbers in E.164 have them, need no quoting.
        self._path = f"{_prefix(cache_path, api, sid)}{phone_number}.json"

    @property
    def name(self) -> str:
        """Name of its file in the folder."""
        return os.path.basename(self._path)

    @property
    def _new(self) -> str:
        return self._path + _NEW

    @property
    def identity(self) -> dict[str, str]:
        """``api``, ``sid`` and ``phone_number``."""
        return dict(zip(_IDENTITY, self._identity))

    def read(self) -> Record | None:
        """Return the record, or None where there is none.

        :raises Unreadable: there is something else
        """
        content = self._content()
        return None if content is None else self._parse(content)

    @contextlib.contextmanager
    def exclusive(self, patience: float) -> t.Iterator[None]:
        """Keep other processes and threads from registering the same number, which could leave each with the other's key on record.

        :param patience: seconds to wait for them
        :raises RecordError: the folder cannot be written, or another process does not end
        """
        # One file for all numbers, one byte of it for each.
        place = int.from_bytes(hashlib.sha256(os.path.basename(self._path).encode()).digest()[:7], "big")
        lock = Lock(os.path.join(self._folder, ".lock"), place)
        with self._naming_cache_path():
            os.makedirs(self._folder, mode=0o700, exist_ok=True)
            taken = lock.take(patience)
        if not taken:
            raise RecordError(
                f"Another process has been registering {self._identity[-1]} for {patience:g} seconds "
                f"(its lock is in cache_path {self._folder}). Wait for it or end it, then run this again."
            )
        try:
            yield
        finally:
            lock.free()

    @contextlib.contextmanager
    def registering(self, fingerprint: str) -> t.Iterator[None]:
        """Write the record as unconfirmed, and confirm it when the body succeeds.

        An error after which the number surely has the key it had puts the earlier record back. Whatever else ends the body,
        a kill included, leaves it unconfirmed.

        :raises RecordError: before the body, the folder cannot be written; after it, what succeeded is not on record
        """
        try:
            earlier = self._content()
        except Unreadable:
            earlier = None
        with self._naming_cache_path():
            self._write(self._dump(fingerprint, "unconfirmed"))
            self._sync()
        try:
            yield
        except OutcomeUnknown:
            raise
        except KaleyraError:
            with contextlib.suppress(OSError):  # unconfirmed is true enough, and the error is what the user must hear of
                if earlier is None:
                    os.unlink(self._path)
                else:
                    self._write(earlier)
            raise
        with self._naming_cache_path():
            self._write(self._dump(fingerprint, "confirmed"))

    def remove_leftover(self) -> None:
        """Remove what a process left that was killed while it wrote the record. What a living one writes stays."""
        if os.access(self._new, os.F_OK, follow_symlinks=False):
            with contextlib.suppress(RecordError, OSError), self.exclusive(patience=0):
                os.unlink(self._new)

    def _content(self) -> bytes | None:
        try:
            # A link or a pipe in the record's place is neither followed nor waited for.
            file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as exc:
            raise Unreadable(getattr(exc, "strerror", exc)) from exc
        try:
            content = os.read(file, _MAX_BYTES + 1)
            if not content and not stat.S_ISREG(os.fstat(file).st_mode):  # only then, as it takes its time
                raise Unreadable("it is not a file")
            if len(content) > _MAX_BYTES:
                raise Unreadable("it is too long")
            return content
        except IsADirectoryError:
            raise Unreadable("it is not a file") from None
        except OSError as exc:
            raise Unreadable(exc.strerror) from exc
        finally:
            os.close(file)

    def _parse(self, content: bytes) -> Record:
        written = _WRITTEN.fullmatch(content.decode("latin-1"))
        try:
            if written:
                api, sid, phone_number, fingerprint, state, since, checksum = written.groups()
                checked = _CHECKED % (api, fingerprint, phone_number, sid, since, state)
                if hashlib.sha256(checked.encode()).hexdigest() == checksum and (api, sid, phone_number) == self._identity:
                    return Record(fingerprint, state == "confirmed", datetime.datetime.fromisoformat(since))
            fields = json.loads(content)
            if fields.pop("checksum") != _checksum(fields):
                raise ValueError
            if tuple(fields[name] for name in _IDENTITY) != self._identity:
                raise Unreadable("it is the record of another number, account or API host")
            if fields["format"] != _FORMAT or fields["state"] not in ("confirmed", "unconfirmed"):
                raise ValueError
            if not _FINGERPRINT.fullmatch(fields["fingerprint"]):
                raise ValueError
            when = datetime.datetime.fromisoformat(fields["since"])
            if when.tzinfo is None:
                raise ValueError
            return Record(fields["fingerprint"], fields["state"] == "confirmed", when)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
            raise Unreadable("its content is not that of a record") from None

    def _dump(self, fingerprint: str, state: str) -> bytes:
        since = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        fields = {"format": _FORMAT, **dict(zip(_IDENTITY, self._identity)), "fingerprint": fingerprint, "state": state, "since": since}
        # Else one spoiled byte could make another key, another time, or a confirmed record of an unconfirmed one.
        return json.dumps({**fields, "checksum": _checksum(fields)}).encode() + b"\n"

    def _write(self, content: bytes) -> None:
        """Replace the record in one step. Under :meth:`exclusive`, so that one name for the new file is enough."""
        with _writing:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            try:
                file = os.open(self._new, flags, 0o600)
            except FileExistsError:  # left by a process that was killed
                os.unlink(self._new)
                file = os.open(self._new, flags, 0o600)
            try:
                with open(file, "wb") as stream:
                    stream.write(content)
                try:
                    os.replace(self._new, self._path)
                except IsADirectoryError:  # not readable, so not to be in the way either
                    os.rmdir(self._path)
                    os.replace(self._new, self._path)
            except OSError:
                with contextlib.suppress(OSError):
                    os.unlink(self._new)
                raise

    def _sync(self) -> None:
        """See to it that a power cut cannot bring the earlier record back, which may be false as soon as something is sent.

        That the new one's name is on disk is enough for that: should its content be lost, it is unreadable and does not count.
        """
        sync_folder(self._folder)

    @contextlib.contextmanager
    def _naming_cache_path(self) -> t.Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as exc:  # ValueError: a NUL in the path
            raise RecordError(
                f"The record cannot be kept in cache_path {self._folder}: {getattr(exc, 'strerror', exc)}. "
                "Give a folder that the task's user can write, or tell what is registered with known_fingerprint."
            ) from exc


def has_leftovers(cache_path: str) -> bool:
    """Whether the folder holds what a process left that was killed while it wrote a record: one look instead of one for each number."""
    try:
        return any(name.endswith(_NEW) for name in os.listdir(cache_path))
    except (OSError, ValueError):  # ValueError: a NUL in the path
        return False


def record_files(cache_path: str) -> t.Iterator[RecordFile]:
    """Yield, in no order, the record of every number that has one in the folder, readable or not. No folder is no records.

    What stands under a name that no record has is not one: nobody would read it.

    :raises RecordError: the folder cannot be read
    """
    try:
        names = os.listdir(cache_path)
    except FileNotFoundError:
        return
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the path
        raise RecordError(
            f"The records in cache_path {cache_path} cannot be read: {getattr(exc, 'strerror', exc)}. "
            "Give the folder that they were written to, and run this as a user that can read it."
        ) from exc
    for name in names:
        match = _NAME.fullmatch(name)
        if match:
            record = RecordFile(cache_path, unquote(match[1]), match[2], match[3])
            if record.name == name:
                yield record


@functools.lru_cache(maxsize=8)
def _prefix(cache_path: str, api: str, sid: str) -> str:
    """What the paths of all records of one account begin with."""
    return os.path.join(cache_path, quote(f"{api},{sid},", safe=","))


def _checksum(fields: dict[str, t.Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
