# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a record says after each end of a registration, what does not count as a record, and who waits for whom."""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import signal
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._errors import (
    InvalidInput,
    MissingLibrary,
    OutcomeUnknown,
    RecordBusy,
    RecordError,
    Rejected,
)
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._record import InvalidRecord, KnownKey, Record, RecordFile

API, SID, NUMBER, OTHER = "api.in.kaleyra.io", "HXAP16TESTING97IN", "+919876543210", "+14155550123"
KEY, OTHER_KEY, THIRD_KEY = (":".join([digits] * 32) for digits in ("a0", "b1", "c2"))
UNKNOWN = OutcomeUnknown("?")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "not yet" / "there"


@pytest.fixture
def record(folder: Path) -> RecordFile:
    return RecordFile(str(folder), API, SID, NUMBER)


def _register(record: RecordFile, fingerprint: str = KEY, error: BaseException | None = None) -> None:
    """Register a key, or let the error end the registration."""
    with pytest.raises(type(error)) if error else contextlib.nullcontext(), record.exclusive(5), record.registering(fingerprint):
        assert _state(record) == (fingerprint, False)
        if error:
            raise error


def _state(record: RecordFile) -> tuple[str, bool] | None:
    known = record.read()
    return known and (known.fingerprint, known.confirmed)


def _possible(record: RecordFile) -> tuple[str, ...] | None:
    known = record.read()
    assert known
    return known.possible_fingerprints


def _files(folder: Path) -> dict[str, bytes]:
    """All but the lock."""
    return {path.name: path.read_bytes() for path in folder.glob("*.json*")}


def _type_name(error: object) -> str:
    return type(error).__name__


def test_record_is_unconfirmed_until_success(record: RecordFile, folder: Path) -> None:
    assert record.read() is None and not folder.exists()
    for key in (KEY, OTHER_KEY):
        with record.exclusive(5), record.registering(key):
            assert _state(RecordFile(str(folder), API, SID, NUMBER)) == (key, False)  # as another process sees it
        assert _state(record) == (key, True)
    assert sorted(path.name for path in folder.iterdir()) == [".lock", f"{API},{SID},{NUMBER}.json"]


def test_reader_sees_the_old_or_the_new_record(record: RecordFile, monkeypatch: pytest.MonkeyPatch) -> None:
    _register(record)
    replace, seen = os.replace, []

    def replace_and_read(*paths: str) -> None:
        seen.append(_state(record))
        replace(*paths)
        seen.append(_state(record))

    monkeypatch.setattr(os, "replace", replace_and_read)
    _register(record, OTHER_KEY)
    assert seen == [(KEY, True), (OTHER_KEY, False), (OTHER_KEY, False), (OTHER_KEY, True)]


def test_folder_is_synced_before_the_request(record: RecordFile, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the earlier record could return after a power failure, which cannot be caused here."""
    synced: list[os.stat_result] = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(os.fstat(file)))
    with record.exclusive(5), record.registering(KEY):
        assert any(os.path.samestat(each, folder.stat()) for each in synced)


def test_leftover_of_a_killed_process_is_replaced(record: RecordFile, folder: Path) -> None:
    _register(record)
    Path(f"{record.path}.new").write_text("half a rec" * 100)
    _register(record, OTHER_KEY)
    assert _state(record) == (OTHER_KEY, True) and list(_files(folder)) == [Path(record.path).name]


def test_files_are_private_whatever_the_umask(record: RecordFile, folder: Path) -> None:
    earlier = os.umask(0)
    try:
        _register(record)
    finally:
        os.umask(earlier)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_each_identity_has_a_file_and_all_one_lock(folder: Path) -> None:
    apis = (API, "api.eu.kaleyra.io", f"{API}:8443", f"{API}/mirror", f"{API}/mirror/of", f"{API}_mirror", "[2001:db8::1]:8443")
    identities = [(API, SID, OTHER), (API, "HXAP16OTHER", NUMBER), *((api, SID, NUMBER) for api in apis)]
    for count, identity in enumerate(identities, 1):
        _register(RecordFile(str(folder), *identity))
        assert len(list(folder.iterdir())) == count + 1
    assert all(path.is_file() for path in folder.iterdir()) and (folder / ".lock").stat().st_size == 0
    _register(RecordFile(str(folder), *identities[0]), OTHER_KEY)
    assert {_state(RecordFile(str(folder), *identity)) for identity in identities[1:]} == {(KEY, True)}


@pytest.mark.parametrize("before", ["nothing", "this key", "another key", "unconfirmed", "junk", "folder"])
@pytest.mark.parametrize("seen", [KEY, None])
def test_record_is_corrected_to_what_was_read(before: str, seen: str | None, record: RecordFile, folder: Path) -> None:
    if before in ("this key", "another key", "unconfirmed"):
        _register(record, OTHER_KEY if before == "another key" else KEY, UNKNOWN if before == "unconfirmed" else None)
    else:
        folder.mkdir(parents=True)
        if before == "junk":
            Path(record.path).write_text("{")
        elif before == "folder":
            Path(record.path).mkdir()
    assert record.is_correct(seen) is ((before, seen) in (("nothing", None), ("this key", KEY)))
    with record.exclusive(5):
        record.correct(seen)
    assert record.is_correct(seen) and _state(record) == (seen and (seen, True))


def _make_pipe(path: Path, record: bytes) -> None:
    path.unlink()
    os.mkfifo(path)


_NO_RECORDS: dict[str, Any] = {
    "empty": lambda path, record: path.write_bytes(b""),
    "binary": lambda path, record: path.write_bytes(bytes(range(256))),
    "zeros-as-after-a-power-failure": lambda path, record: path.write_bytes(b"\0" * len(record)),
    "half": lambda path, record: path.write_bytes(record[: len(record) // 2]),
    "twice": lambda path, record: path.write_bytes(record * 2),
    "followed-by-a-letter": lambda path, record: path.write_bytes(record + b"x"),
    "followed-by-blanks-and-a-letter": lambda path, record: path.write_bytes(record + b" " * 5000 + b"x"),
    "huge": lambda path, record: path.write_bytes(b"x" * 10_000_000),
    "deeply-nested": lambda path, record: path.write_bytes(b"[" * 4000),
    "truncated-utf-16": lambda path, record: path.write_bytes(record.decode().encode("utf-16")[:-9]),
    "folder": lambda path, record: (path.unlink(), path.mkdir()),
    "pipe": _make_pipe,
    "link-to-a-device": lambda path, record: (path.unlink(), path.symlink_to("/dev/zero")),
    "link-to-the-record": lambda path, record: path.symlink_to(path.rename(path.parent / "moved")),
}


@pytest.mark.parametrize("put", _NO_RECORDS.values(), ids=_NO_RECORDS)
def test_anything_else_is_invalid_and_replaced(put: Callable[[Path, bytes], object], record: RecordFile) -> None:
    _register(record)
    path = Path(record.path)
    put(path, path.read_bytes())
    signal.alarm(20)  # nothing waits for a pipe
    try:
        with pytest.raises(InvalidRecord, match="."):
            record.read()
        _register(record, OTHER_KEY, Rejected("no"))
        with contextlib.suppress(InvalidRecord):
            assert record.read() is None
        _register(record, OTHER_KEY)
    finally:
        signal.alarm(0)
    assert _state(record) == (OTHER_KEY, True)
    assert path.is_file() and not path.is_symlink()


_FIELDS = ("format", "api", "sid", "phone_number", "fingerprint", "state", "since")
_INVALID: list[dict[str, Any]] = [
    *({name: value} for name in _FIELDS for value in (..., None, [1])),
    *({"format": value} for value in (3, "1")),
    *({"possible": value} for value in (..., KEY, [KEY, 1], [KEY, ""])),
    *({"api": "api.eu.kaleyra.io"}, {"sid": SID.lower()}, {"phone_number": OTHER}, {"phone_number": int(NUMBER)}),
    *({"state": value} for value in ("CONFIRMED", "done", True)),
    *({"fingerprint": value} for value in (KEY.upper(), KEY.replace(":", ""), KEY + "\n", "")),
    *({"since": value} for value in ("yesterday", "2026-01-01T00:00:00", "2026-13-01T00:00:00+00:00", 1767225600)),
]


@pytest.mark.parametrize("changes", _INVALID, ids=str)
def test_record_with_another_field_is_invalid(changes: dict[str, Any], record: RecordFile, edit_record: Callable[..., None]) -> None:
    _register(record)
    edit_record(Path(record.path), {})
    assert _state(record) == (KEY, True)  # an edited record counts, so that it is the change that does not
    edit_record(Path(record.path), changes)
    with pytest.raises(InvalidRecord, match="its content|another number, account or API host"):
        record.read()


@pytest.mark.parametrize(("old", "new"), [(KEY[:2], "a1"), ("unconfirmed", "confirmed"), ("+00:00", "+01:00"), (', "checksum": "', ', "c": "')])
def test_record_without_its_checksum_is_invalid(old: str, new: str, record: RecordFile) -> None:
    _register(record, KEY, UNKNOWN)
    path = Path(record.path)
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(InvalidRecord, match="its content"):
        record.read()


@pytest.mark.parametrize("error", [Rejected("no"), InvalidInput("no"), MissingLibrary("no")], ids=_type_name)
@pytest.mark.parametrize("earlier", ["nothing", "confirmed", "unconfirmed"])
def test_refusal_restores_the_earlier_record(error: Exception, earlier: str, record: RecordFile, folder: Path) -> None:
    if earlier != "nothing":
        _register(record)
    if earlier == "unconfirmed":
        _register(record, OTHER_KEY, UNKNOWN)
    before = _files(folder)
    _register(record, THIRD_KEY, error)
    assert _files(folder) == before and len(before) == (earlier != "nothing")


@pytest.mark.parametrize("error", [UNKNOWN, KeyboardInterrupt(), SystemExit(1), RuntimeError(), GeneratorExit()], ids=_type_name)
@pytest.mark.parametrize("earlier", [True, False])
def test_other_end_leaves_the_record_unconfirmed(error: BaseException, earlier: bool, record: RecordFile, folder: Path) -> None:
    if earlier:
        _register(record)
    _register(record, OTHER_KEY, error)
    assert _state(record) == (OTHER_KEY, False) and len(_files(folder)) == 1
    assert _possible(record) == ((OTHER_KEY, KEY) if earlier else None)


def test_unconfirmed_record_keeps_every_possible_key(record: RecordFile) -> None:
    _register(record)
    _register(record, OTHER_KEY, UNKNOWN)
    assert _possible(record) == (OTHER_KEY, KEY)
    _register(record, THIRD_KEY, UNKNOWN)
    assert _possible(record) == (THIRD_KEY, OTHER_KEY, KEY)
    _register(record, KEY, UNKNOWN)
    assert _possible(record) == (KEY, THIRD_KEY, OTHER_KEY)
    _register(record)
    known = record.read()
    assert known and known.possible_fingerprints == (KEY,)
    assert known.may_carry(KEY) and not known.may_carry(OTHER_KEY)


def test_key_is_any_where_the_earlier_one_is_unknown(record: RecordFile) -> None:
    _register(record, KEY, UNKNOWN)
    known = record.read()
    assert known and known.possible_fingerprints is None and known.may_carry(OTHER_KEY)
    _register(record, OTHER_KEY, UNKNOWN)
    assert _possible(record) is None
    Path(record.path).write_text("damaged")
    _register(record, OTHER_KEY, UNKNOWN)
    assert _possible(record) is None
    _register(record)
    for number in range(16):  # more than a record holds
        _register(record, ":".join([f"{number:02x}"] * 32), UNKNOWN)
    assert _possible(record) is None


# As release 1.0.0 wrote it.
_FORMAT_1 = (
    f'{{"format": 1, "api": "{API}", "sid": "{SID}", "phone_number": "{NUMBER}", "fingerprint": "{KEY}", "state": "%s", '
    '"since": "2026-01-31T10:20:30+00:00", "checksum": "%s"}\n'
)


@pytest.mark.parametrize(
    ("state", "checksum", "possible"),
    [
        ("confirmed", "a7dd89a41ac6335ed5903bf4f3013eb73545172d9463bb0247d774d9c7d1dc3e", (KEY,)),
        ("unconfirmed", "5a6f5d27da2c276bf3ef0108237ea3578ae7100a3a75770e4baf0105fb3d41ad", None),
    ],
)
def test_record_of_format_1_is_read(state: str, checksum: str, possible: tuple[str, ...] | None, record: RecordFile) -> None:
    _register(record, OTHER_KEY)
    Path(record.path).write_text(_FORMAT_1 % (state, checksum))
    assert _state(record) == (KEY, state == "confirmed") and _possible(record) == possible
    _register(record, OTHER_KEY, UNKNOWN)
    assert _possible(record) == (possible and (OTHER_KEY, KEY))


@pytest.mark.parametrize(
    ("make", "cause"),
    [
        pytest.param(lambda folder: folder.write_text(""), "File exists|Not a directory", id="file"),
        pytest.param(lambda folder: folder.symlink_to("/dev/null"), "File exists|Not a directory", id="device"),
        pytest.param(lambda folder: folder.symlink_to("nowhere"), "File exists|No such file", id="link-to-nothing"),
        pytest.param(lambda folder: (folder / ".lock").mkdir(parents=True), "Is a directory", id="folder-as-lock"),
        pytest.param(lambda folder: (folder.mkdir(), (folder / ".lock").symlink_to("/etc/hosts")), "symbolic links", id="link-as-lock"),
    ],
)
def test_unusable_cache_path_is_named(make: Callable[[Path], object], cause: str, record: RecordFile, folder: Path) -> None:
    folder.parent.mkdir()
    make(folder)
    with pytest.raises(RecordError, match=rf"^The record cannot be written to cache_path {folder}: .*({cause})"), record.exclusive(5):
        pytest.fail("the body ran")


def test_unwritable_folder_is_named_without_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what the system says; its real rights are in tests/crash."""
    closed, file = tmp_path / "closed", tmp_path / "file"
    closed.mkdir()
    file.write_text("")
    monkeypatch.setattr(os, "access", lambda path, mode: path != str(closed))
    for folder, cause in ((closed, "closed cannot be written"), (file, "file is not a directory")):
        for path in (folder, folder / "a" / "b"):
            with pytest.raises(RecordError, match=rf"cache_path {re.escape(str(path))}: .*/{cause}"):
                RecordFile(str(path), API, SID, NUMBER).require_writable()
    RecordFile(str(tmp_path / "new" / "folder"), API, SID, NUMBER).require_writable()
    assert sorted(tmp_path.rglob("*")) == [closed, file]


_HOLD = """
import sys
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._record import RecordFile
with RecordFile(*sys.argv[1:]).exclusive(5):
    print("holding", flush=True)
    sys.stdin.readline()
"""


def test_only_who_registers_the_same_number_waits(record: RecordFile, folder: Path, start: Callable[..., Any]) -> None:
    _register(record)
    process = start(_HOLD, str(folder), API, SID, NUMBER)
    assert process.stdout.readline() == "holding\n"
    assert _state(record) == (KEY, True)  # check mode and unchanged runs never wait
    for identity in ((API, SID, OTHER), (API, "HXAP16OTHER", NUMBER), ("api.eu.kaleyra.io", SID, NUMBER)):
        with RecordFile(str(folder), *identity).exclusive(0):
            pass
    began = time.monotonic()
    with pytest.raises(RecordBusy) as caught, record.exclusive(0.1):
        pytest.fail("the body ran")
    assert time.monotonic() - began >= 0.1
    assert all(text in str(caught.value) for text in (NUMBER, str(folder), "0.1 seconds"))
    process.kill()  # which releases the lock
    process.wait()
    with record.exclusive(0):
        pass


@pytest.mark.parametrize(
    ("age", "seconds", "older"),
    [
        *((100, 200, False), (100, 50, True), (100, 0, True), (0, 0, True), (10**9, 10**9 + 1000, False)),
        (-3600, 10**9, True),  # from the future
    ],
)
def test_age_counts_in_any_time_zone(age: int, seconds: int, older: bool) -> None:
    for hours in (0, 5.5, -8):
        zone = datetime.timezone(datetime.timedelta(hours=hours))
        since = datetime.datetime.now(zone) - datetime.timedelta(seconds=age)
        assert Record(KEY, True, since).is_older_than(seconds) is older


@pytest.mark.parametrize("since", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"])
def test_any_date_has_an_age(since: str) -> None:
    assert Record(KEY, True, datetime.datetime.fromisoformat(since)).is_older_than(10**9) is True


def test_known_fingerprint_does_not_age(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    known = KnownKey(KEY)
    record = known.read()
    assert record == Record(KEY, True) and record.possible_fingerprints == (KEY,)
    assert record and not record.is_older_than(0)
    with known.exclusive(5), known.registering(OTHER_KEY):
        pass
    assert known.read() == record and list(tmp_path.iterdir()) == []
