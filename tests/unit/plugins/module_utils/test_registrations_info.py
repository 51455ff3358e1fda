# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import datetime
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._errors import InvalidInput, OutcomeUnknown, RecordError, SomeFailed
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._record import Record, RecordFile
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._registrations_info import read_registrations
from hypothesis import example, given
from hypothesis import strategies as st
from support.simulator.client import Simulator, waba_numbers

TOKEN = "EAAtoken"
API, OTHER_API = "api.in.kaleyra.io", "api.eu.kaleyra.io"
SID, OTHER_SID = "HXAP16TESTING97IN", "HXAP16TESTING98IN"
NUMBERS = [f"+9198765432{i:02}" for i in range(10)]
KEY, OTHER_KEY = ":".join(["a0"] * 32), ":".join(["b1"] * 32)

Ask = Callable[..., "dict[str, Any]"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def ask(folder: Path) -> Ask:
    """Ask for the read_registrations, with the options that matter to the test."""

    def ask_for(check_mode: bool = False, **given: Any) -> dict[str, Any]:
        names = ("pod", "api_url", "sid", "phone_numbers", "fingerprint", "business_public_key", "business_public_key_path", "api_key", "timeout")
        more = ("retries", "validate_certs", "ca_path", "meta_access_token", "meta_waba_ids", "meta_phone_number_ids", "meta_api_url")
        read_back = {"read_back": "none", "read_back_required": False, "concurrency": 8, "max_requests_per_second": None}
        options = {**dict.fromkeys((*names, *more)), **read_back, "cache_path": str(folder)}
        assert given.keys() <= options.keys()
        return read_registrations({**options, **given}, check_mode=check_mode)

    return ask_for


def _confirm(folder: Path, number: str, key: str = KEY, *, api: str = API, sid: str = SID) -> Path:
    record = RecordFile(str(folder), api, sid, number)
    with record.exclusive(5), record.registering(key):
        pass
    return Path(record.path)


def _leave_unconfirmed(folder: Path, number: str, key: str = KEY) -> Path:
    record = RecordFile(str(folder), API, SID, number)
    with contextlib.suppress(OutcomeUnknown), record.exclusive(5), record.registering(key):
        raise OutcomeUnknown("?")
    return Path(record.path)


def _states(result: dict[str, Any]) -> dict[str, str]:
    return {each["phone_number"]: each["state"] for each in result["numbers"]}


# --- what it tells ----------------------------------------------------------------------------------------------------


def test_confirmed_record_is_told_in_full(folder: Path, ask: Ask) -> None:
    before = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
    _confirm(folder, NUMBERS[0])
    result = ask()
    (number,) = result["numbers"]
    since = datetime.datetime.strptime(number.pop("since"), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=datetime.timezone.utc)
    after = datetime.datetime.now(datetime.timezone.utc)
    assert before <= since <= after
    assert 0 <= number.pop("age") <= (after - since).total_seconds()
    assert number == {
        "phone_number": NUMBERS[0],
        "api": API,
        "sid": SID,
        "state": "confirmed",
        "fingerprint": KEY,
        "possible_fingerprints": [KEY],
        "as_expected": None,
        "msg": None,
    }
    assert result["changed"] is False
    assert result["fingerprint"] is None
    assert "drifted" not in result["summary"]


def test_age_counts_whatever_the_time_zone(folder: Path, ask: Ask, edit_record: Callable[..., None]) -> None:
    _confirm(folder, NUMBERS[0])
    path = _confirm(folder, NUMBERS[1])
    hour_ago = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0) - datetime.timedelta(hours=1)
    edit_record(path, {"since": hour_ago.astimezone(datetime.timezone(datetime.timedelta(hours=5, minutes=30))).isoformat()})
    recent, old = ask()["numbers"]
    assert old["since"] == hour_ago.isoformat().replace("+00:00", "Z")
    # Both ages are of the same moment, so this holds however slow the machine is.
    assert old["age"] >= 3600 and old["age"] - recent["age"] <= 3600


@pytest.mark.parametrize("since", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"])
def test_time_beyond_utc_is_told_as_written(
    since: str, folder: Path, ask: Ask, edit_record: Callable[..., None]
) -> None:
    edit_record(_confirm(folder, NUMBERS[0]), {"since": since})
    (number,) = ask()["numbers"]
    assert number["since"] == since
    assert (number["age"] < 0) == since.startswith("9999")


def test_each_state_is_told(folder: Path, ask: Ask) -> None:
    for number in (NUMBERS[1], NUMBERS[3]):
        _confirm(folder, number)
    _leave_unconfirmed(folder, NUMBERS[1], OTHER_KEY)
    path = _confirm(folder, NUMBERS[2])
    path.write_text("junk")
    result = ask(phone_numbers=NUMBERS[:4])
    # Sorted by number.
    assert [(each["phone_number"], each["state"], each["fingerprint"]) for each in result["numbers"]] == [
        (NUMBERS[0], "absent", None),
        (NUMBERS[1], "unconfirmed", OTHER_KEY),
        (NUMBERS[2], "unreadable", None),
        (NUMBERS[3], "confirmed", KEY),
    ]
    assert result["summary"] == {
        "numbers": 4,
        "by_state": {"confirmed": 1, "unconfirmed": 1, "unreadable": 1, "absent": 1},
        # Which key the unconfirmed one carries is not known.
        "by_fingerprint": {KEY: 1},
        "different": None,
    }
    absent, unconfirmed, unreadable, confirmed = result["numbers"]
    assert [each["possible_fingerprints"] for each in result["numbers"]] == [None, [OTHER_KEY, KEY], None, [KEY]]
    assert str(path) in unreadable["msg"] and "cache_path" in unreadable["msg"] and "its content is invalid" in unreadable["msg"]
    assert [each["msg"] for each in (absent, unconfirmed, confirmed)] == [None] * 3
    assert [each["since"] is None for each in result["numbers"]] == [True, False, True, False]
    assert [each["age"] is None for each in result["numbers"]] == [True, False, True, False]
    assert {(each["api"], each["sid"]) for each in (unconfirmed, unreadable, confirmed)} == {(API, SID)}
    assert (absent["api"], absent["sid"]) == (None, None)


def test_reading_changes_nothing(folder: Path, ask: Ask) -> None:
    _leave_unconfirmed(folder, NUMBERS[0])
    (folder / "left.json.new").write_text("by a killed process")
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    for result in (ask(), ask(check_mode=True)):
        assert _states(result) == {NUMBERS[0]: "unconfirmed"}
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()} == before


def test_keys_are_counted_most_frequent_first(folder: Path, ask: Ask) -> None:
    for number, key in zip(NUMBERS, [KEY, OTHER_KEY, OTHER_KEY]):
        _confirm(folder, number, key)
    assert list(ask()["summary"]["by_fingerprint"].items()) == [(OTHER_KEY, 2), (KEY, 1)]


# --- against what is expected -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [KEY, KEY.upper(), KEY.replace(":", "")])
def test_all_but_the_expected_key_is_different(given: str, folder: Path, ask: Ask) -> None:
    _confirm(folder, NUMBERS[0])
    _confirm(folder, NUMBERS[1], OTHER_KEY)
    _leave_unconfirmed(folder, NUMBERS[2])
    _confirm(folder, NUMBERS[3]).write_text("junk")
    result = ask(fingerprint=given, phone_numbers=NUMBERS[:5])
    assert [each["as_expected"] for each in result["numbers"]] == [True, False, False, False, False]
    assert result["summary"]["different"] == NUMBERS[1:5]
    assert result["fingerprint"] == KEY


def test_key_can_be_given_for_its_fingerprint(
    folder: Path, ask: Ask, tmp_path: Path, public_pem: Callable[[str], str], fingerprint: Callable[[str], str]
) -> None:
    _confirm(folder, NUMBERS[0], fingerprint("rsa-2048"))
    _confirm(folder, NUMBERS[1], fingerprint("other-rsa-2048"))
    path = tmp_path / "public.pem"
    path.write_text(public_pem("rsa-2048"))
    for result in (ask(business_public_key=path.read_text()), ask(business_public_key_path=str(path))):
        assert result["fingerprint"] == fingerprint("rsa-2048")
        assert result["summary"]["different"] == [NUMBERS[1]]


def test_bad_fingerprint_names_its_option(ask: Ask) -> None:
    with pytest.raises(InvalidInput, match="^fingerprint 'junk' is not a SHA-256 fingerprint"):
        ask(fingerprint="junk")


def test_pod_beside_api_url_is_refused(ask: Ask) -> None:
    with pytest.raises(InvalidInput, match=r"^Set at most one of pod and api_url\.$"):
        ask(pod="in", api_url="https://api.example.com")


# --- which numbers ----------------------------------------------------------------------------------------------------


def test_filters_by_api_account_and_number(folder: Path, ask: Ask) -> None:
    _confirm(folder, NUMBERS[0])
    _confirm(folder, NUMBERS[1], sid=OTHER_SID)
    _confirm(folder, NUMBERS[2], api=OTHER_API)
    _confirm(folder, NUMBERS[3], api=f"{OTHER_API}:8443/mirror")
    # An empty string and an empty list count as not given.
    for every in (ask(), ask(pod="", api_url="", sid="", phone_numbers=[], fingerprint="", business_public_key="")):
        assert list(_states(every)) == NUMBERS[:4]
    assert list(_states(ask(pod="in"))) == NUMBERS[:2]
    assert list(_states(ask(api_url=f"https://{OTHER_API}/"))) == [NUMBERS[2]]
    assert list(_states(ask(api_url=f"https://{OTHER_API}:8443/mirror"))) == [NUMBERS[3]]
    assert list(_states(ask(sid=OTHER_SID))) == [NUMBERS[1]]
    assert list(_states(ask(pod="in", sid=SID))) == [NUMBERS[0]]
    (absent,) = ask(pod="in", sid=SID, phone_numbers=[NUMBERS[1]])["numbers"]
    assert (absent["state"], absent["api"], absent["sid"]) == ("absent", API, SID)
    assert _states(ask(pod="in", phone_numbers=["", NUMBERS[0], NUMBERS[2]])) == {NUMBERS[0]: "confirmed", NUMBERS[2]: "absent"}


def test_environment_is_no_filter(folder: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    _confirm(folder, NUMBERS[0])
    monkeypatch.setenv("KALEYRA_POD", "eu")
    monkeypatch.setenv("KALEYRA_SID", OTHER_SID)
    assert list(_states(ask())) == [NUMBERS[0]]


def test_numbers_are_normalised(folder: Path, ask: Ask) -> None:
    _confirm(folder, NUMBERS[0])
    spelled = NUMBERS[0][1:]
    assert _states(ask(phone_numbers=[spelled, f"+{spelled[:2]} {spelled[2:6]}-{spelled[6:]}"])) == {NUMBERS[0]: "confirmed"}
    with pytest.raises(InvalidInput, match="'shop' is not a number"):
        ask(phone_numbers=["shop"])


def test_number_is_told_for_each_account(folder: Path, ask: Ask) -> None:
    for api, sid in ((API, OTHER_SID), (OTHER_API, SID), (API, SID)):
        _confirm(folder, NUMBERS[0], api=api, sid=sid)
    result = ask(phone_numbers=NUMBERS[:1], fingerprint=OTHER_KEY)
    assert [(each["api"], each["sid"]) for each in result["numbers"]] == [(OTHER_API, SID), (API, SID), (API, OTHER_SID)]
    assert result["summary"]["different"] == NUMBERS[:1]


# --- what is no record ------------------------------------------------------------------------------------------------


def test_missing_folder_is_no_records(folder: Path, ask: Ask) -> None:
    result = ask()
    assert result["numbers"] == []
    assert result["summary"] == {"numbers": 0, "by_state": dict.fromkeys(result["summary"]["by_state"], 0), "by_fingerprint": {}, "different": None}
    assert _states(ask(phone_numbers=NUMBERS[:1])) == {NUMBERS[0]: "absent"}
    assert not folder.exists()


def test_unreadable_folder_is_an_error(folder: Path, ask: Ask, tmp_path: Path) -> None:
    folder.write_text("a file")
    with pytest.raises(RecordError, match=f"cache_path {folder} cannot be read: Not a directory"):
        ask()
    with pytest.raises(RecordError, match="cannot be read: .*embedded null"):
        ask(cache_path="nul\0")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(RecordError, match="cannot be read"):
        ask(cache_path=str(tmp_path / "loop"))


@pytest.mark.parametrize(
    "name",
    [
        ".lock",
        "notes.json",
        f"{API},{SID},{NUMBERS[0]}.json.new",
        f"{API},{SID},{NUMBERS[0]} (copy).json",
        f"{API},{SID},{NUMBERS[0]}.JSON",
        f"{API},{SID},{NUMBERS[0][1:]}.json",
        f"{API},{SID},+0123456789.json",
        f"{API},{SID},+123.json",
        f"{API},{SID}.json",
        f"{API},{SID},{NUMBERS[0]},x.json",
        f"[::1],{SID},{NUMBERS[0]}.json",  # a record's name has these percent-encoded
        f"%61{API[1:]},{SID},{NUMBERS[1]}.json",  # and no other
        f"%FF,{SID},{NUMBERS[0]}.json",
        f"%,{SID},{NUMBERS[0]}.json",
        f",{SID},{NUMBERS[0]}.json",
        "\udcff,x,+919876543210.json",
    ],
)
def test_other_file_names_are_ignored(name: str, folder: Path, ask: Ask) -> None:
    content = _confirm(folder, NUMBERS[1]).read_bytes()
    (folder / name).write_bytes(content)
    assert [(each["phone_number"], each["state"]) for each in ask()["numbers"]] == [(NUMBERS[1], "confirmed")]


def test_any_api_name_is_read_from_the_file_name(folder: Path, ask: Ask) -> None:
    apis = ["[2001:db8::1]:8443", f"{API}/mirror/of", f"{API}_mirror", "api.example~", "<b>&\"'"]
    for api in apis:
        _confirm(folder, NUMBERS[0], api=api)
    assert [(each["api"], each["state"]) for each in ask()["numbers"]] == [(api, "confirmed") for api in sorted(apis)]


@pytest.mark.parametrize(
    ("put", "why"),
    [
        pytest.param(lambda path, other: path.write_bytes(other.read_bytes()), "another number", id="record-of-another"),
        pytest.param(lambda path, other: path.symlink_to(other), "symbolic links", id="link-to-a-record"),
        pytest.param(lambda path, other: path.symlink_to("/dev/zero"), "symbolic links", id="link-to-a-device"),
        pytest.param(lambda path, other: path.mkdir(), "not a file", id="folder"),
        pytest.param(lambda path, other: os.mkfifo(path), "not a file", id="pipe"),
        pytest.param(lambda path, other: path.write_bytes(b"x" * 10_000_000), "too long", id="huge"),
        pytest.param(lambda path, other: path.write_bytes(b""), "content is invalid", id="empty"),
    ],
)
def test_no_record_is_told_with_the_reason(
    put: Callable[[Path, Path], Any], why: str, folder: Path, ask: Ask
) -> None:
    other = _confirm(folder, NUMBERS[0])
    put(folder / f"{API},{SID},{NUMBERS[1]}.json", other)
    good, bad = ask()["numbers"]
    assert good["state"] == "confirmed"
    assert (bad["phone_number"], bad["api"], bad["sid"], bad["state"]) == (NUMBERS[1], API, SID, "unreadable")
    assert why in bad["msg"] and NUMBERS[1] in bad["msg"]


def test_record_removed_meanwhile_is_not_told(folder: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _confirm(folder, NUMBERS[0])
    listdir = os.listdir

    def list_and_remove(folder: str) -> list[str]:
        names = listdir(folder)
        path.unlink()
        return names

    monkeypatch.setattr(os, "listdir", list_and_remove)
    assert _states(ask(phone_numbers=NUMBERS[:1])) == {NUMBERS[0]: "absent"}


_PARTS = st.one_of(
    st.sampled_from([API, SID, NUMBERS[0], f"{API},{SID},{NUMBERS[1]}", f"{API},{SID},{NUMBERS[2]}.json", ",", "%", "%2F", "%00", ".json", ".new"]),
    st.text(max_size=5),
)
_NAMES = st.lists(_PARTS, min_size=1, max_size=4).map("".join)


@given(files=st.lists(st.tuples(_NAMES, st.one_of(st.binary(max_size=40), st.none(), st.just(...))), max_size=5))
@example(files=[(f"{API},{SID},{NUMBERS[2]}.json", b"null")])
def test_junk_in_the_folder_breaks_nothing(files: list[tuple[str, Any]], tmp_path_factory: pytest.TempPathFactory, ask: Ask) -> None:
    folder = tmp_path_factory.mktemp("junk")
    good = _confirm(folder, NUMBERS[0]).read_bytes()
    for name, content in files:
        with contextlib.suppress(OSError, ValueError):  # names that no file can have
            path = folder / name
            if path.parent != folder or path.exists():
                continue
            if content is None:
                path.mkdir()
            else:
                path.write_bytes(good if content is ... else content)
    result = ask(cache_path=str(folder))
    states = {(each["api"], each["sid"], each["phone_number"]): each["state"] for each in result["numbers"]}
    assert states.pop((API, SID, NUMBERS[0])) == "confirmed"
    # A copy of the good one is that of another number wherever it stands.
    assert set(states.values()) <= {"unreadable"}
    for identity in states:
        assert Path(RecordFile(str(folder), *identity).path).exists()


# --- speed ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_many_records_take_little_more_than_reading(folder: Path, ask: Ask) -> None:
    """Against what cannot be done without, on the same machine and in turn: reading and parsing each file."""
    folder.mkdir()
    record = RecordFile(str(folder), API, SID, NUMBERS[0])
    for i in range(10_000):
        record = RecordFile(str(folder), API, SID, f"+9198{i:08}")
        Path(record.path).write_bytes(record._dump(Record(KEY, True)))

    def seconds(work: Callable[[], Any]) -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    def bare() -> None:
        for path in folder.iterdir():
            json.loads(path.read_bytes())

    pairs = [(seconds(ask), seconds(bare)) for dummy in range(3)]
    # Less than twice as long was seen; a linear search for each number, or a library's import, would be far beyond this.
    assert min(mine / least for mine, least in pairs) < 5, pairs
    assert ask()["summary"]["by_state"]["confirmed"] == 10_000


# --- what is read back ------------------------------------------------------------------------------------------------


@pytest.fixture
def ask_meta(ask: Ask, simulator: Simulator) -> Ask:
    """The same with Meta's answers for the first six numbers."""
    simulator.configure(access_token=TOKEN, wabas={"1001": waba_numbers(NUMBERS[:6])})
    options = {"read_back": "meta", "meta_access_token": TOKEN, "meta_waba_ids": ["1001"], "meta_api_url": f"{simulator.url}/v23.0", "retries": 0}
    return lambda **given: ask(**{**options, **given})


def test_held_key_stands_beside_the_record(
    folder: Path, ask_meta: Ask, simulator: Simulator, public_pem: Callable[[str], str], fingerprint: Callable[[str], str]
) -> None:
    pem, key, other_key = public_pem("rsa-2048"), fingerprint("rsa-2048"), fingerprint("other-rsa-2048")
    for number, recorded in zip(NUMBERS, (key, other_key, key, key)):
        _confirm(folder, number, recorded)
    _leave_unconfirmed(folder, NUMBERS[4], other_key)
    simulator.hold({NUMBERS[0]: pem, NUMBERS[1]: pem, NUMBERS[2]: {"pem": pem, "status": "MISMATCH"}, NUMBERS[4]: pem, NUMBERS[5]: pem})
    result = ask_meta(phone_numbers=NUMBERS[:7], fingerprint=key)
    told = {each["phone_number"]: each for each in result["numbers"]}
    rows = [(each["state"], each["held_fingerprint"], each["held_status"], each["drifted"], each["as_expected"]) for each in told.values()]
    assert rows == [
        ("confirmed", key, "valid", False, True),
        ("drifted", key, "valid", True, True),
        ("drifted", key, "mismatch", True, False),
        ("drifted", None, None, True, False),
        # What it may have carried before is not known.
        ("unconfirmed", key, "valid", False, True),
        ("absent", key, "valid", False, True),
        ("absent", None, None, None, False),
    ]
    assert result["summary"]["drifted"] == NUMBERS[1:4]
    assert result["summary"]["by_state"] == {"confirmed": 1, "unconfirmed": 1, "unreadable": 0, "absent": 2, "drifted": 3}
    # Whoever asks whether a number may still carry a key is answered from both.
    assert [each["possible_fingerprints"] for each in told.values()][1:3] == [[other_key, key], [key]]
    assert result["summary"]["different"] == [NUMBERS[2], NUMBERS[3], NUMBERS[6]]
    assert "in none of the WhatsApp Business Accounts" in told[NUMBERS[6]]["read_back_msg"]
    assert [warning for warning in result["warnings"] if NUMBERS[6] in warning] == result["warnings"] != []
    assert simulator.methods() == {"GET": 7}  # one look-up, and none for the number that is not listed


def test_unknown_held_key_is_told_or_fails(folder: Path, ask_meta: Ask, simulator: Simulator) -> None:
    _confirm(folder, NUMBERS[0])
    _confirm(folder, NUMBERS[1])
    simulator.faults({"*": [{"do": "answer", "status": 401, "body": {"error": {"code": 190, "message": "expired"}}, "always": True}]})
    result = ask_meta()
    assert [each["drifted"] for each in result["numbers"]] == [None, None] and result["summary"]["drifted"] == []
    assert len(result["warnings"]) == 1 and "and 1 more" in result["warnings"][0] and "Meta's error 190 (expired)" in result["warnings"][0]
    with pytest.raises(SomeFailed, match="2 of 2 numbers could not be read"):
        ask_meta(read_back_required=True)


def test_kaleyra_is_asked_with_the_given_account(
    folder: Path, ask: Ask, simulator: Simulator, public_pem: Callable[[str], str], fingerprint: Callable[[str], str]
) -> None:
    simulator.configure(kaleyra_get="data")
    simulator.hold({NUMBERS[0]: public_pem("rsa-2048")})
    account = {"api_url": simulator.url, "sid": "HXAP16TESTING97IN", "api_key": "A0b1C2d3E4+/f5G6=h7"}
    (number,) = ask(phone_numbers=NUMBERS[:1], read_back="kaleyra", **account)["numbers"]
    assert (number["state"], number["held_fingerprint"]) == ("absent", fingerprint("rsa-2048"))
    with pytest.raises(InvalidInput, match="needs the account"):
        ask(phone_numbers=NUMBERS[:1], read_back="kaleyra")
