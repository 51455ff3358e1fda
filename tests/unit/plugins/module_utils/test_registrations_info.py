# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the records, and the keys that are read back, say about the numbers."""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._errors import InvalidInput, KaleyraError, OutcomeUnknown, RecordError, SomeFailed
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._record import RecordFile
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._registrations_info import read_registrations
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
    """Read the registrations, with the options that matter to the test."""

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


def _leave_unconfirmed(folder: Path, number: str, key: str = KEY) -> None:
    record = RecordFile(str(folder), API, SID, number)
    with contextlib.suppress(OutcomeUnknown), record.exclusive(5), record.registering(key):
        raise OutcomeUnknown("?")


def _states(result: dict[str, Any]) -> dict[str, str]:
    return {each["phone_number"]: each["state"] for each in result["numbers"]}


def test_confirmed_record_is_returned_in_full(folder: Path, ask: Ask) -> None:
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
    assert (result["changed"], result["fingerprint"], "drifted" in result["summary"]) == (False, None, False)


def test_time_is_in_utc_and_age_in_any_zone(folder: Path, ask: Ask, edit_record: Callable[..., None]) -> None:
    _confirm(folder, NUMBERS[3])
    hour_ago = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0) - datetime.timedelta(hours=1)
    in_india = hour_ago.astimezone(datetime.timezone(datetime.timedelta(hours=5, minutes=30))).isoformat()
    for number, since in zip(NUMBERS, (in_india, "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59")):
        edit_record(_confirm(folder, number), {"since": since})
    old, first, last, recent = ask()["numbers"]
    assert old["since"] == hour_ago.isoformat().replace("+00:00", "Z")
    # Both ages are of the same moment, so this holds however slow the machine is.
    assert old["age"] >= 3600 and old["age"] - recent["age"] <= 3600
    # What UTC cannot express stays as it was written.
    assert (first["since"], last["since"]) == ("0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59")
    assert last["age"] < 0 < first["age"]


def test_each_state_is_returned(folder: Path, ask: Ask) -> None:
    for number in (NUMBERS[1], NUMBERS[3]):
        _confirm(folder, number)
    _leave_unconfirmed(folder, NUMBERS[1], OTHER_KEY)
    path = _confirm(folder, NUMBERS[2])
    path.write_text("junk")
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    for check_mode in (True, False):
        result = ask(phone_numbers=NUMBERS[:4], check_mode=check_mode)
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
    for name in ("since", "age"):
        assert [each[name] is None for each in result["numbers"]] == [True, False, True, False]
    assert {(each["api"], each["sid"]) for each in (unconfirmed, unreadable, confirmed)} == {(API, SID)}
    assert (absent["api"], absent["sid"]) == (None, None)
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()} == before


@pytest.mark.parametrize("given", [KEY, KEY.upper(), KEY.replace(":", "")])
def test_all_but_the_expected_key_is_different(given: str, folder: Path, ask: Ask) -> None:
    _confirm(folder, NUMBERS[0])
    _confirm(folder, NUMBERS[1], OTHER_KEY)
    _leave_unconfirmed(folder, NUMBERS[2])
    _confirm(folder, NUMBERS[3]).write_text("junk")
    _confirm(folder, NUMBERS[4], OTHER_KEY)
    result = ask(fingerprint=given, phone_numbers=NUMBERS[:6])
    assert [each["as_expected"] for each in result["numbers"]] == [True, False, False, False, False, False]
    assert result["summary"]["different"] == NUMBERS[1:6]
    assert list(result["summary"]["by_fingerprint"].items()) == [(OTHER_KEY, 2), (KEY, 1)]  # the most frequent first
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


def test_filters_by_api_account_and_number(folder: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("KALEYRA_POD", "eu"), ("KALEYRA_SID", OTHER_SID)):
        monkeypatch.setenv(name, value)  # which is no filter
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
    spelled = f"{NUMBERS[0][1:3]} {NUMBERS[0][3:7]}-{NUMBERS[0][7:]}"
    assert _states(ask(pod="in", phone_numbers=["", NUMBERS[0], spelled, NUMBERS[2]])) == {NUMBERS[0]: "confirmed", NUMBERS[2]: "absent"}


def test_number_is_returned_for_each_account(folder: Path, ask: Ask) -> None:
    for api, sid in ((API, OTHER_SID), (OTHER_API, SID), (API, SID)):
        _confirm(folder, NUMBERS[0], api=api, sid=sid)
    result = ask(phone_numbers=NUMBERS[:1], fingerprint=OTHER_KEY)
    assert [(each["api"], each["sid"]) for each in result["numbers"]] == [(OTHER_API, SID), (API, SID), (API, OTHER_SID)]
    assert result["summary"]["different"] == NUMBERS[:1]


def test_missing_folder_has_no_records(folder: Path, ask: Ask) -> None:
    result = ask()
    assert result["numbers"] == []
    assert result["summary"] == {"numbers": 0, "by_state": dict.fromkeys(result["summary"]["by_state"], 0), "by_fingerprint": {}, "different": None}
    assert _states(ask(phone_numbers=NUMBERS[:1])) == {NUMBERS[0]: "absent"}
    assert not folder.exists()


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"fingerprint": "junk"}, InvalidInput, "^fingerprint 'junk' is not a SHA-256 fingerprint"),
        ({"pod": "in", "api_url": "https://api.example.com"}, InvalidInput, r"^Set at most one of pod and api_url\.$"),
        ({"phone_numbers": ["shop"]}, InvalidInput, "'shop' is not a number"),
        ({"read_back": "kaleyra", "phone_numbers": NUMBERS[:1]}, InvalidInput, "needs the account"),
        ({"cache_path": "/dev/null"}, RecordError, "cache_path /dev/null cannot be read: Not a directory"),
        ({"cache_path": "nul\0"}, RecordError, "cannot be read: .*embedded null"),
    ],
    ids=str,
)
def test_unusable_option_is_named(given: dict[str, Any], error: type[KaleyraError], message: str, ask: Ask) -> None:
    with pytest.raises(error, match=message):
        ask(**given)


_NO_RECORDS = [
    *(".lock", "notes.json", "\udcff,x,+919876543210.json", f"{API},{SID}.json", f",{SID},{NUMBERS[0]}.json"),
    *(f"{API},{SID},{name}" for name in (f"{NUMBERS[0]}.json.new", f"{NUMBERS[0]} (copy).json", f"{NUMBERS[0]}.JSON", f"{NUMBERS[0]},x.json")),
    *(f"{API},{SID},{name}.json" for name in (NUMBERS[0][1:], "+0123456789", "+123")),
    # A record's name has percent-encoded what needs it, and nothing else.
    *(f"{api},{SID},{NUMBERS[1]}.json" for api in ("[::1]", f"%61{API[1:]}", "%FF", "%")),
]


def test_only_names_of_records_are_read(folder: Path, ask: Ask) -> None:
    apis = [API, "[2001:db8::1]:8443", f"{API}/mirror/of", f"{API}_mirror", "api.example~", "<b>&\"'"]
    for api in apis:
        content = _confirm(folder, NUMBERS[1], api=api).read_bytes()
    for name in _NO_RECORDS:
        (folder / name).write_bytes(content)
    assert [(each["phone_number"], each["api"], each["state"]) for each in ask()["numbers"]] == [
        (NUMBERS[1], api, "confirmed") for api in sorted(apis)
    ]


def test_record_removed_meanwhile_is_absent(folder: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _confirm(folder, NUMBERS[0])
    monkeypatch.setattr(os, "listdir", lambda folder: path.unlink() or [path.name])  # type: ignore[func-returns-value]
    assert _states(ask(phone_numbers=NUMBERS[:1])) == {NUMBERS[0]: "absent"}


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


def test_unknown_held_key_is_a_warning_or_fails(folder: Path, ask_meta: Ask, simulator: Simulator) -> None:
    _confirm(folder, NUMBERS[0])
    _confirm(folder, NUMBERS[1])
    simulator.faults({"*": [{"do": "answer", "status": 401, "body": {"error": {"code": 190, "message": "expired"}}, "always": True}]})
    result = ask_meta()
    assert [each["drifted"] for each in result["numbers"]] == [None, None] and result["summary"]["drifted"] == []
    assert len(result["warnings"]) == 1 and "and 1 more" in result["warnings"][0] and "Meta's error 190 (expired)" in result["warnings"][0]
    with pytest.raises(SomeFailed, match="2 of 2 numbers could not be read"):
        ask_meta(read_back_required=True)


def test_kaleyra_is_asked_with_the_given_account(
    ask: Ask, simulator: Simulator, public_pem: Callable[[str], str], fingerprint: Callable[[str], str]
) -> None:
    simulator.configure(kaleyra_get="data")
    simulator.hold({NUMBERS[0]: public_pem("rsa-2048")})
    account = {"api_url": simulator.url, "sid": "HXAP16TESTING97IN", "api_key": "A0b1C2d3E4+/f5G6=h7"}
    (number,) = ask(phone_numbers=NUMBERS[:1], read_back="kaleyra", **account)["numbers"]
    assert (number["state"], number["held_fingerprint"]) == ("absent", fingerprint("rsa-2048"))
