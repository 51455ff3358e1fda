# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import datetime
import json
import os
import shutil
import signal
import socket
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._errors import (
    InvalidInput,
    MissingLibrary,
    OutcomeUnknown,
    RecordError,
    Rejected,
)
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._record import InvalidRecord, KnownKey, Record, RecordFile
from hypothesis import given
from hypothesis import strategies as st

API, SID, NUMBER, OTHER = "api.in.kaleyra.io", "HXAP16TESTING97IN", "+919876543210", "+14155550123"
KEY, OTHER_KEY = ":".join(["a0"] * 32), ":".join(["b1"] * 32)

# For processes of their own: a record whose folder is the first argument, its number the second.
_PREPARED = """
import os, sys, time
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._errors import RecordError
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._record import RecordFile
record = RecordFile(sys.argv[1], "api.in.kaleyra.io", "HXAP16TESTING97IN", sys.argv[2])
key, other_key = ":".join(["a0"] * 32), ":".join(["b1"] * 32)
def say(text):
    print(text, flush=True)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def record(folder: Path) -> RecordFile:
    return RecordFile(str(folder), API, SID, NUMBER)


def _confirm(record: RecordFile, fingerprint: str = KEY) -> None:
    with record.exclusive(5), record.registering(fingerprint):
        pass


def _file(folder: Path) -> Path:
    """The one record in the folder."""
    (path,) = (path for path in folder.iterdir() if path.name != ".lock")
    return path


def _state(record: RecordFile) -> tuple[str, bool] | None:
    known = record.read()
    return known and (known.fingerprint, known.confirmed)


# --- reading and writing ----------------------------------------------------------------------------------------------


def test_no_record_before_the_first_registration(record: RecordFile, folder: Path) -> None:
    assert record.read() is None
    assert not folder.exists()


def test_record_is_unconfirmed_until_success(record: RecordFile, folder: Path) -> None:
    with record.exclusive(5):
        with record.registering(KEY):
            # As another process sees it.
            assert _state(RecordFile(str(folder), API, SID, NUMBER)) == (KEY, False)
        assert _state(RecordFile(str(folder), API, SID, NUMBER)) == (KEY, True)
    with record.exclusive(5), record.registering(OTHER_KEY):
        assert _state(record) == (OTHER_KEY, False)
    assert _state(record) == (OTHER_KEY, True)


def test_a_record_says_when_it_was_written(record: RecordFile) -> None:
    before = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
    _confirm(record)
    known = record.read()
    assert known and known.since and before <= known.since <= datetime.datetime.now(datetime.timezone.utc)


@pytest.mark.parametrize("before", ["nothing", "this key", "another key", "unconfirmed", "junk", "folder"])
@pytest.mark.parametrize("seen", [KEY, None])
def test_a_record_is_corrected_to_what_is_seen(before: str, seen: str | None, record: RecordFile, folder: Path) -> None:
    if before in ("this key", "another key"):
        _confirm(record, KEY if before == "this key" else OTHER_KEY)
    elif before == "unconfirmed":
        with pytest.raises(OutcomeUnknown), record.exclusive(5), record.registering(KEY):
            raise OutcomeUnknown("?")
    else:
        folder.mkdir()
        if before == "junk":
            Path(record.path).write_text("{")
        elif before == "folder":
            Path(record.path).mkdir()
    assert record.is_correct(seen) is ((before, seen) in (("nothing", None), ("this key", KEY)))
    with record.exclusive(5):
        record.correct(seen)
    assert record.is_correct(seen) and _state(record) == (seen and (seen, True))


def test_records_are_private_whatever_the_umask(record: RecordFile, folder: Path) -> None:
    earlier = os.umask(0)
    try:
        _confirm(record)
    finally:
        os.umask(earlier)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_each_identity_has_a_file_and_all_one_lock(folder: Path) -> None:
    identities = [
        (API, SID, NUMBER),
        (API, SID, OTHER),
        (API, "HXAP16OTHER", NUMBER),
        ("api.eu.kaleyra.io", SID, NUMBER),
        (f"{API}:8443", SID, NUMBER),
        (f"{API}/mirror", SID, NUMBER),
        (f"{API}/mirror/of", SID, NUMBER),
        (f"{API}_mirror", SID, NUMBER),
        ("[2001:db8::1]:8443", SID, NUMBER),
    ]
    for count, identity in enumerate(identities, 1):
        _confirm(RecordFile(str(folder), *identity))
        assert len(list(folder.iterdir())) == count + 1
    assert all(path.is_file() for path in folder.iterdir())
    assert (folder / ".lock").stat().st_size == 0
    _confirm(RecordFile(str(folder), *identities[0]), OTHER_KEY)
    assert len(list(folder.iterdir())) == len(identities) + 1
    for identity in identities[1:]:
        assert _state(RecordFile(str(folder), *identity)) == (KEY, True)


def test_the_file_s_name_tells_what_it_is_the_record_of(record: RecordFile, folder: Path) -> None:
    _confirm(record)
    assert _file(folder).name == f"{API},{SID},{NUMBER}.json"


def test_earlier_record_stays_gone_after_a_power_cut(
    record: RecordFile, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No power cut can be had here, so that the folder is written out in time must do.
    synced: list[os.stat_result] = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(os.fstat(file)))
    with record.exclusive(5), record.registering(KEY):
        assert any(os.path.samestat(each, folder.stat()) for each in synced)


# --- what is no record ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "identity",
    [
        pytest.param((API, SID, OTHER), id="number"),
        pytest.param((API, "HXAP16OTHER", NUMBER), id="sid"),
        pytest.param(("api.eu.kaleyra.io", SID, NUMBER), id="host"),
    ],
)
def test_a_record_copied_to_another_identity_does_not_count(
    identity: tuple[str, str, str], record: RecordFile, folder: Path, tmp_path: Path
) -> None:
    _confirm(record)
    copy = RecordFile(str(tmp_path / "copy"), *identity)
    _confirm(copy, OTHER_KEY)
    shutil.copy(_file(folder), _file(tmp_path / "copy"))
    with pytest.raises(InvalidRecord, match="another number, account or API host"):
        copy.read()


def _make_pipe(path: Path, record: bytes) -> None:
    path.unlink()
    os.mkfifo(path)


def _make_socket(path: Path, record: bytes) -> None:
    path.unlink()
    # In the folder itself, since a socket's path must be short.
    earlier = os.getcwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path.name)
    finally:
        os.chdir(earlier)


def _link_to_itself_moved(path: Path, to: Path) -> None:
    shutil.move(path, to)
    path.symlink_to(to)


_IN_PLACE_OF_A_RECORD = [
    pytest.param(lambda path, record: path.write_bytes(b""), id="empty"),
    pytest.param(lambda path, record: path.write_bytes(b"\n"), id="newline"),
    pytest.param(lambda path, record: path.write_bytes(bytes(range(256))), id="binary"),
    pytest.param(lambda path, record: path.write_bytes(b"\0" * len(record)), id="zeros-as-after-a-power-cut"),
    pytest.param(lambda path, record: path.write_bytes(record[: len(record) // 2]), id="half"),
    pytest.param(lambda path, record: path.write_bytes(record * 2), id="twice"),
    pytest.param(lambda path, record: path.write_bytes(record + b"x"), id="something-behind"),
    pytest.param(lambda path, record: path.write_bytes(record + b" " * 5000 + b"x"), id="something-behind-many-blanks"),
    pytest.param(lambda path, record: path.write_bytes(b"x" * 10_000_000), id="huge"),
    pytest.param(lambda path, record: path.write_bytes(b"[" * 4000), id="deeply-nested"),
    pytest.param(lambda path, record: path.write_bytes(record.decode().encode("utf-16")[:-9]), id="utf-16-cut-off"),
    pytest.param(lambda path, record: (path.unlink(), path.mkdir()), id="folder"),
    pytest.param(_make_pipe, id="pipe"),
    pytest.param(_make_socket, id="socket"),
    pytest.param(lambda path, record: (path.unlink(), path.symlink_to("/dev/zero")), id="link-to-a-device"),
    pytest.param(lambda path, record: (path.unlink(), path.symlink_to("nowhere")), id="link-to-nothing"),
    pytest.param(lambda path, record: (path.unlink(), path.symlink_to(path)), id="link-to-itself"),
    pytest.param(lambda path, record: _link_to_itself_moved(path, path.parent.parent / "moved"), id="link-to-the-record"),
]


class _Held(BaseException):
    """No OSError, as TimeoutError is one, which would pass for a file that cannot be read."""


@pytest.fixture
def in_place(record: RecordFile, folder: Path, request: pytest.FixtureRequest) -> Iterator[None]:
    """Something else stands in the place of a good record. Nothing waits for a pipe for ever."""
    _confirm(record)
    path = _file(folder)
    request.param(path, path.read_bytes())

    def give_up(*dummy: object) -> None:
        raise _Held

    earlier = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(20)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, earlier)


@pytest.mark.parametrize("in_place", _IN_PLACE_OF_A_RECORD, indirect=True)
def test_anything_in_its_place_is_unreadable(in_place: None, record: RecordFile) -> None:
    with pytest.raises(InvalidRecord, match="."):
        record.read()


@pytest.mark.parametrize("in_place", _IN_PLACE_OF_A_RECORD, indirect=True)
def test_anything_in_its_place_allows_a_registration(in_place: None, record: RecordFile, folder: Path) -> None:
    _confirm(record, OTHER_KEY)
    assert _state(record) == (OTHER_KEY, True)
    assert _file(folder).is_file() and not _file(folder).is_symlink()


_FIELDS = ("format", "api", "sid", "phone_number", "fingerprint", "state", "since")
_THIRD_KEY = ":".join(["c2"] * 32)


@pytest.mark.parametrize(
    "changes",
    [
        *(pytest.param({name: ...}, id=f"without-{name}") for name in _FIELDS),
        *(pytest.param({name: None}, id=f"{name}-null") for name in _FIELDS),
        *(pytest.param({name: [1]}, id=f"{name}-list") for name in _FIELDS),
        pytest.param({"format": 3}, id="format-to-come"),
        pytest.param({"possible": ...}, id="without-possible"),
        pytest.param({"possible": KEY}, id="possible-no-list"),
        pytest.param({"possible": [KEY, 1]}, id="possible-a-number"),
        pytest.param({"possible": [KEY, ""]}, id="possible-empty"),
        pytest.param({"format": "1"}, id="format-as-text"),
        pytest.param({"sid": SID.lower()}, id="sid-in-small-letters"),
        pytest.param({"phone_number": int(NUMBER)}, id="number-as-integer"),
        pytest.param({"state": "CONFIRMED"}, id="state-in-capitals"),
        pytest.param({"state": "done"}, id="state-unknown"),
        pytest.param({"state": True}, id="state-true"),
        pytest.param({"fingerprint": KEY.upper()}, id="fingerprint-in-capitals"),
        pytest.param({"fingerprint": KEY.replace(":", "")}, id="fingerprint-without-colons"),
        pytest.param({"fingerprint": KEY + "\n"}, id="fingerprint-and-newline"),
        pytest.param({"fingerprint": ""}, id="fingerprint-empty"),
        pytest.param({"since": "yesterday"}, id="since-a-word"),
        pytest.param({"since": "2026-01-01T00:00:00"}, id="since-without-zone"),
        pytest.param({"since": "2026-13-01T00:00:00+00:00"}, id="since-month-13"),
        pytest.param({"since": 1767225600}, id="since-a-number"),
    ],
)
def test_a_record_of_another_form_does_not_count(
    changes: dict[str, Any], record: RecordFile, folder: Path, edit_record: Callable[..., None]
) -> None:
    _confirm(record)
    edit_record(_file(folder), changes)
    with pytest.raises(InvalidRecord, match="its content|another number"):
        record.read()


def test_a_record_that_was_only_written_anew_counts(record: RecordFile, folder: Path, edit_record: Callable[..., None]) -> None:
    # Else the tests of changed ones would prove nothing.
    _confirm(record)
    edit_record(_file(folder), {})
    assert _state(record) == (KEY, True)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(KEY[:2], "a1", id="another-key"),
        pytest.param("unconfirmed", "confirmed", id="another-state"),
        pytest.param("+00:00", "+01:00", id="another-time"),
        pytest.param(', "checksum": "', ', "c": "', id="no-checksum"),
    ],
)
def test_valid_but_changed_record_does_not_count(old: str, new: str, record: RecordFile, folder: Path) -> None:
    with pytest.raises(OutcomeUnknown), record.exclusive(5), record.registering(KEY):
        raise OutcomeUnknown("?")
    content = _file(folder).read_text()
    assert old in content
    _file(folder).write_text(content.replace(old, new, 1))
    with pytest.raises(InvalidRecord, match="its content"):
        record.read()


@given(
    edits=st.lists(
        st.tuples(st.sampled_from(["change", "insert", "delete", "cut"]), st.integers(0, 340), st.integers(0, 255)), min_size=1, max_size=3
    )
)
def test_damaged_record_is_unreadable_or_unchanged(
    edits: list[tuple[str, int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "spoiled-bytes"
    record = RecordFile(str(folder), API, SID, NUMBER)
    _confirm(record)
    written = record.read()
    path = _file(folder)
    content = bytearray(path.read_bytes())
    for what, place, byte in edits:
        if what == "cut":
            del content[place:]
        else:
            content[place : place + (what != "insert")] = b"" if what == "delete" else bytes([byte])
    path.write_bytes(content)
    with contextlib.suppress(InvalidRecord):
        assert record.read() == written


_JSON = st.recursive(
    st.one_of(
        *(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.just(KEY)),
        st.datetimes().map(lambda when: f"{when.isoformat()}+23:59"),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=5,
)


@given(name=st.sampled_from([*_FIELDS, "checksum", "new"]), value=_JSON, signed=st.booleans())
def test_wrong_field_is_unreadable_or_as_written(
    name: str, value: object, signed: bool, tmp_path_factory: pytest.TempPathFactory, edit_record: Callable[..., None]
) -> None:
    folder = tmp_path_factory.getbasetemp() / "spoiled-fields"
    record = RecordFile(str(folder), API, SID, NUMBER)
    _confirm(record)
    written = record.read()
    path = _file(folder)
    if signed:
        edit_record(path, {name: value})
    else:
        path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
    try:
        known = record.read()
    except InvalidRecord:
        return
    if not signed:
        assert known == written
    fields = json.loads(path.read_text())
    assert (fields["api"], fields["sid"], fields["phone_number"]) == (API, SID, NUMBER)
    assert known and known.fingerprint == fields["fingerprint"]
    assert known.confirmed == (fields["state"] == "confirmed")
    assert known.is_older_than(10) in (True, False)


# --- how a registration can end ---------------------------------------------------------------------------------------

_DEFINITE = [Rejected("no"), InvalidInput("no"), MissingLibrary("no")]


@pytest.mark.parametrize("error", _DEFINITE, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("confirmed", [True, False], ids=["confirmed", "unconfirmed"])
def test_after_a_refusal_the_earlier_record_is_back(
    error: Exception, confirmed: bool, record: RecordFile, folder: Path
) -> None:
    _confirm(record)
    if not confirmed:
        with pytest.raises(OutcomeUnknown), record.exclusive(5), record.registering(KEY):
            raise OutcomeUnknown("?")
    content = _file(folder).read_bytes()
    with pytest.raises(type(error)), record.exclusive(5), record.registering(OTHER_KEY):
        assert _state(record) == (OTHER_KEY, False)
        raise error
    assert _file(folder).read_bytes() == content  # its age, too, is what it was
    assert _state(record) == (KEY, confirmed)


@pytest.mark.parametrize("error", _DEFINITE, ids=lambda error: type(error).__name__)
def test_after_a_refusal_no_record_stays_none(error: Exception, record: RecordFile, folder: Path) -> None:
    with pytest.raises(type(error)), record.exclusive(5), record.registering(KEY):
        raise error
    assert record.read() is None
    assert [path.name for path in folder.iterdir()] == [".lock"]


@pytest.mark.parametrize("in_place", _IN_PLACE_OF_A_RECORD, indirect=True)
def test_after_a_refusal_unreadable_does_not_count(in_place: None, record: RecordFile) -> None:
    with pytest.raises(Rejected), record.exclusive(5), record.registering(OTHER_KEY):
        raise Rejected("no")
    try:
        assert record.read() is None
    except InvalidRecord:
        pass


@pytest.mark.parametrize(
    "error", [OutcomeUnknown("?"), KeyboardInterrupt(), SystemExit(1), RuntimeError(), GeneratorExit()], ids=lambda error: type(error).__name__
)
@pytest.mark.parametrize("earlier", [True, False], ids=["another-before", "none-before"])
def test_after_anything_else_the_record_stays_unconfirmed(error: BaseException, earlier: bool, record: RecordFile, folder: Path) -> None:
    if earlier:
        _confirm(record)
    with pytest.raises(type(error)), record.exclusive(5), record.registering(OTHER_KEY):
        raise error
    assert _state(record) == (OTHER_KEY, False)
    assert len(list(folder.iterdir())) == 2


def test_leftover_of_a_kill_is_gone_after_the_next_run(record: RecordFile, folder: Path) -> None:
    _confirm(record)
    Path(f"{_file(folder)}.new").write_text("half a rec" * 100)
    _confirm(record, OTHER_KEY)
    assert _state(record) == (OTHER_KEY, True)
    assert len(list(folder.iterdir())) == 2


def test_at_no_moment_is_there_half_a_record(record: RecordFile, folder: Path, start: Callable[..., Any]) -> None:
    code = """
say("ready")
while True:
    for each in (key, other_key):
        with record.exclusive(5), record.registering(each):
            pass
"""
    for dummy in range(3):
        process = start(_PREPARED + code, str(folder), NUMBER)
        assert process.stdout.readline() == "ready\n"
        until = time.monotonic() + 0.3
        while time.monotonic() < until:
            known = record.read()  # never InvalidRecord, while it is written as fast as can be ...
            assert known is None or known.fingerprint in (KEY, OTHER_KEY)
        process.kill()
        process.wait()
        assert record.read()  # ... nor after the kill
    _confirm(record)
    assert len(list(folder.iterdir())) == 2


# --- which keys a number may carry ------------------------------------------------------------------------------------


def _leave_unconfirmed(record: RecordFile, fingerprint: str) -> None:
    with pytest.raises(OutcomeUnknown), record.exclusive(5), record.registering(fingerprint):
        raise OutcomeUnknown("?")


def _possible(record: RecordFile) -> tuple[str, ...] | None:
    known = record.read()
    assert known
    return known.possible_fingerprints


def test_a_confirmed_record_names_one_key(record: RecordFile) -> None:
    _leave_unconfirmed(record, OTHER_KEY)
    _confirm(record)
    known = record.read()
    assert known and known.possible_fingerprints == (KEY,)
    assert known.may_carry(KEY) and not known.may_carry(OTHER_KEY)


def test_unconfirmed_record_keeps_every_possible_key(record: RecordFile) -> None:
    _confirm(record)
    _leave_unconfirmed(record, OTHER_KEY)
    assert _possible(record) == (OTHER_KEY, KEY)
    _leave_unconfirmed(record, _THIRD_KEY)
    assert _possible(record) == (_THIRD_KEY, OTHER_KEY, KEY)
    _leave_unconfirmed(record, KEY)
    assert _possible(record) == (KEY, _THIRD_KEY, OTHER_KEY)


def test_after_a_refusal_possible_keys_are_as_before(record: RecordFile) -> None:
    _confirm(record)
    _leave_unconfirmed(record, OTHER_KEY)
    with pytest.raises(Rejected), record.exclusive(5), record.registering(_THIRD_KEY):
        raise Rejected("no")
    assert _possible(record) == (OTHER_KEY, KEY)


def test_it_could_be_any_key_where_none_was_on_record(record: RecordFile, folder: Path) -> None:
    _leave_unconfirmed(record, KEY)
    known = record.read()
    assert known and known.possible_fingerprints is None and known.may_carry(OTHER_KEY)
    _leave_unconfirmed(record, OTHER_KEY)
    assert _possible(record) is None
    _confirm(record)
    assert _possible(record) == (KEY,)
    _file(folder).write_text("spoiled")
    _leave_unconfirmed(record, OTHER_KEY)
    assert _possible(record) is None


def test_more_keys_than_a_record_holds_are_any_key(record: RecordFile) -> None:
    _confirm(record)
    for number in range(16):
        _leave_unconfirmed(record, ":".join([f"{number:02x}"] * 32))
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
def test_a_record_of_format_1_is_read(state: str, checksum: str, possible: tuple[str, ...] | None, record: RecordFile, folder: Path) -> None:
    _confirm(record, OTHER_KEY)
    _file(folder).write_text(_FORMAT_1 % (state, checksum))
    assert _state(record) == (KEY, state == "confirmed")
    assert _possible(record) == possible
    _leave_unconfirmed(record, OTHER_KEY)
    assert _possible(record) == (possible and (OTHER_KEY, KEY))


# --- folders that cannot be used --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "cause"),
    [
        pytest.param(lambda folder: folder.write_text(""), "File exists|Not a directory", id="file"),
        pytest.param(lambda folder: folder.symlink_to("/dev/null"), "File exists|Not a directory", id="device"),
        pytest.param(lambda folder: folder.symlink_to("nowhere"), "File exists|No such file", id="link-to-nothing"),
        pytest.param(lambda folder: (folder.mkdir(), (folder / ".lock").mkdir()), "Is a directory", id="folder-for-the-lock"),
        pytest.param(lambda folder: (folder.mkdir(), (folder / ".lock").symlink_to("/etc/hosts")), "symbolic links", id="link-for-the-lock"),
    ],
)
def test_cache_path_of_another_kind_is_named(
    make: Callable[[Path], object], cause: str, record: RecordFile, folder: Path
) -> None:
    make(folder)
    with pytest.raises(RecordError, match=rf"^The record cannot be written to cache_path {folder}: .*({cause})"), record.exclusive(5):
        pytest.fail("the body ran")


def test_what_cannot_be_written_is_told_without_writing(run: Callable[..., str]) -> None:
    with tempfile.TemporaryDirectory() as parent:
        os.chmod(parent, 0o755)
        closed = Path(parent, "closed")
        closed.mkdir(0o555)
        Path(parent, "file").write_text("")
        code = """
if os.geteuid() == 0:
    from support.privileges import drop_capabilities
    drop_capabilities()
for path in sys.argv[3:]:
    try:
        RecordFile(path, "api.in.kaleyra.io", "HXAP16TESTING97IN", sys.argv[2]).require_writable()
        say("fine")
    except RecordError as exc:
        say(exc)
"""
        paths = [str(closed), f"{closed}/a/b", f"{parent}/file", f"{parent}/file/a", tempfile.gettempdir()]
        lines = run(_PREPARED + code, "", NUMBER, *paths).splitlines()
        assert [line.partition(": ")[2].partition(". ")[0] for line in lines] == [
            *(f"{closed} cannot be written", f"{closed} cannot be written"),
            *(f"{parent}/file is not a directory", f"{parent}/file is not a directory"),
            "",
        ]
        assert lines[-1] == "fine"
        assert sorted(path.name for path in Path(parent).rglob("*")) == ["closed", "file"]


def test_missing_folders_are_made(tmp_path: Path) -> None:
    record = RecordFile(str(tmp_path / "a" / "b" / "c"), API, SID, NUMBER)
    _confirm(record)
    assert _state(record) == (KEY, True)


# --- side by side -----------------------------------------------------------------------------------------------------

_HOLD = "with record.exclusive(5):\n    say('holding')\n    time.sleep(float(sys.argv[3]))\n    say('done')\n"


def test_process_that_waits_too_long_says_for_whom(record: RecordFile, folder: Path, start: Callable[..., Any]) -> None:
    process = start(_PREPARED + _HOLD, str(folder), NUMBER, "60")
    assert process.stdout.readline() == "holding\n"
    began = time.monotonic()
    with pytest.raises(RecordError) as caught, record.exclusive(0.3):
        pytest.fail("the body ran")
    assert 0.3 <= time.monotonic() - began < 5
    assert NUMBER in str(caught.value) and str(folder) in str(caught.value) and "0.3 seconds" in str(caught.value)


def test_a_kill_frees_the_lock(record: RecordFile, folder: Path, start: Callable[..., Any]) -> None:
    process = start(_PREPARED + _HOLD, str(folder), NUMBER, "60")
    assert process.stdout.readline() == "holding\n"
    process.kill()
    process.wait()
    with record.exclusive(0):
        pass


def test_numbers_do_not_wait_for_each_other(folder: Path, start: Callable[..., Any]) -> None:
    process = start(_PREPARED + _HOLD, str(folder), NUMBER, "60")
    assert process.stdout.readline() == "holding\n"
    for identity in ((API, SID, OTHER), (API, "HXAP16OTHER", NUMBER), ("api.eu.kaleyra.io", SID, NUMBER)):
        with RecordFile(str(folder), *identity).exclusive(0):
            pass


def test_reading_does_not_wait(record: RecordFile, folder: Path, start: Callable[..., Any]) -> None:
    _confirm(record)
    process = start(_PREPARED + _HOLD, str(folder), NUMBER, "60")
    assert process.stdout.readline() == "holding\n"
    assert _state(record) == (KEY, True)  # check mode and unchanged runs are never held up


# --- age --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("age", "seconds", "older"),
    [
        pytest.param(100, 200, False, id="young"),
        pytest.param(100, 50, True, id="old"),
        pytest.param(100, 0, True, id="0-is-never-young-enough"),
        pytest.param(0, 0, True, id="0-even-for-a-new-one"),
        pytest.param(-3600, 10**9, True, id="from-the-future"),
        pytest.param(10**9, 10**9 + 1000, False, id="many-years"),
    ],
)
@pytest.mark.parametrize("hours", [0, 5.5, -8])
def test_a_record_ages(age: int, seconds: int, older: bool, hours: float) -> None:
    zone = datetime.timezone(datetime.timedelta(hours=hours))
    since = datetime.datetime.now(zone) - datetime.timedelta(seconds=age)
    assert Record(KEY, True, since).is_older_than(seconds) is older


@pytest.mark.parametrize("since", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"])
def test_no_date_is_too_far_away(since: str) -> None:
    assert Record(KEY, True, datetime.datetime.fromisoformat(since)).is_older_than(10**9) is True


def test_known_fingerprint_does_not_age(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    known = KnownKey(KEY)
    record = known.read()
    assert record == Record(KEY, True) and record.possible_fingerprints == (KEY,)
    assert record and not record.is_older_than(0)
    with known.exclusive(5), known.registering(OTHER_KEY):
        pass
    assert known.read() == record
    assert list(tmp_path.iterdir()) == []
