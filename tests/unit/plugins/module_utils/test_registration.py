# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The registration of one number: why it is registered, the same in check mode, and what its result and its record say afterwards."""

from __future__ import annotations

import datetime
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.kaleyra.whatsapp.plugins.module_utils import _batch
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._api import FlowsEncryptionApi
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._batch import register
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._errors import InvalidInput, KaleyraError
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._rate_limit import RateLimiter
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._registration import Registration
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._steps import Steps
from support.simulator.client import Simulator

NUMBER, OTHER = "+919876543210", "+14155550123"
SID, API_KEY = "HXAP16TESTING97IN", "A0b1C2d3E4+/f5G6=h7"
K1, K2 = "rsa-2048", "other-rsa-2048"
BROKEN = {"do": "answer", "status": 500, "headers": {"Retry-After": "0"}}
RESET, LOST = {"do": "reset"}, {"do": "reset", "apply": True}
REFUSED = {"do": "answer", "status": 401, "body": {"code": "RBC001", "message": "Incorrect SID or API key."}}

Params = Callable[..., "dict[str, Any]"]
Named = Callable[[str], str]


def _real(params: dict[str, Any]) -> dict[str, Any]:
    return register(params, check_mode=False)


def _check(params: dict[str, Any]) -> dict[str, Any]:
    return register(params, check_mode=True)


def _failed(params: dict[str, Any], *, check_mode: bool = False) -> dict[str, Any]:
    """The result of a failure, as the module returns it."""
    try:
        result = register(params, check_mode=check_mode)
    except KaleyraError as exc:
        return {**exc.details, "failed": True, "msg": str(exc)}
    assert result["failed"] and result["changed"] is False
    return result


def _files(folder: Path) -> dict[str, bytes | None]:
    """All that is below a folder, and its content."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.fixture
def bring_about(params: Params, simulator: Simulator, public_pem: Named, edit_record: Callable[..., None]) -> Callable[[str], None]:
    """Leave a record in some state, by real runs as far as they can."""

    def prepare(state: str) -> None:
        if state == "absent":
            return
        wanted = {**params(), "business_public_key": public_pem(K2 if "other" in state.split("-") else K1)}
        if "unconfirmed" in state:
            simulator.faults({NUMBER: [RESET]})
            assert _failed(wanted)["outcome"] == "unknown"
            return
        _real(wanted)
        (record,) = Path(wanted["cache_path"]).glob("*.json")
        now, days = datetime.datetime.now(datetime.timezone.utc), datetime.timedelta(days=2)
        if "old" in state:
            edit_record(record, {"since": (now - days).isoformat()})
        elif "future" in state:
            edit_record(record, {"since": (now + days).isoformat()})
        elif state == "of-another-number":
            edit_record(record, {"phone_number": OTHER})
        elif state == "junk":
            record.write_text("junk")

    return prepare


_DAY = 86_400
# State of the record, force, cache_valid_time, known_fingerprint -> reason, known key, state of the record in the diff.
_ROWS: list[Any] = []
for _force, _valid in ((False, None), (True, 0)):
    _met = "forced" if _force else "up_to_date"
    _ROWS += [
        ("absent", _force, _valid, None, "absent", None, "absent"),
        ("unconfirmed", _force, _valid, None, "unconfirmed", None, "unconfirmed"),
        ("unconfirmed-other", _force, _valid, None, "unconfirmed", None, "unconfirmed"),
        ("junk", _force, _valid, None, "unreadable", None, "unreadable"),
        ("of-another-number", _force, _valid, None, "unreadable", None, "unreadable"),
        ("other", _force, _valid, None, "different", K2, "confirmed"),
        ("other-old", _force, _valid, None, "different", K2, "confirmed"),
        ("confirmed", _force, 0, None, "expired", K1, "expired"),
        ("confirmed", _force, None, None, _met, K1, "confirmed"),
        ("confirmed", _force, _DAY, None, _met, K1, "confirmed"),
        ("confirmed-old", _force, None, None, _met, K1, "confirmed"),
        ("confirmed-old", _force, _DAY, None, "expired", K1, "expired"),
        ("confirmed-old", _force, 3 * _DAY, None, _met, K1, "confirmed"),
        ("confirmed-future", _force, None, None, _met, K1, "confirmed"),
        ("confirmed-future", _force, 3 * _DAY, None, "expired", K1, "expired"),
    ]
    # The fingerprint that the caller knows replaces the record, and does not age.
    for _state in ("absent", "confirmed", "other-old", "unconfirmed", "junk"):
        _ROWS += [(_state, _force, _valid, K1, _met, K1, "confirmed"), (_state, _force, _valid, K2, "different", K2, "confirmed")]


@pytest.mark.parametrize("row", _ROWS, ids=str)
def test_check_mode_predicts_the_real_run(
    row: Any, bring_about: Callable[[str], None], params: Params, simulator: Simulator, fingerprint: Named, tmp_path: Path
) -> None:
    state, force, valid, known, reason, previous, recorded = row
    bring_about(state)
    given = params(force=force, cache_valid_time=valid, known_fingerprint=known and fingerprint(known).upper().replace(":", ""))
    files, count = _files(tmp_path), simulator.count()

    predicted = _check(given)
    assert (_files(tmp_path), simulator.count()) == (files, count)
    assert len(predicted["warnings"]) == (reason == "unreadable")
    facts = {
        "changed": reason != "up_to_date",
        "reason": reason,
        "previous_fingerprint": previous and fingerprint(previous),
        "fingerprint": fingerprint(K1),
        "phone_number": NUMBER,
        "warnings": predicted["warnings"],
        "diff": {
            "before": {"phone_number": NUMBER, "fingerprint": previous and fingerprint(previous), "record": recorded},
            "after": {"phone_number": NUMBER, "fingerprint": fingerprint(K1), "record": "confirmed"},
        },
    }
    assert predicted == {**facts, "attempts": 0}

    done = _real(given)
    assert {name: done[name] for name in facts} == facts
    assert done["attempts"] == simulator.count() - count == int(done["changed"])
    if done["changed"]:
        assert (done["http_status"], done["code"], done["message"]) == (200, "WA-200", "Request Processed Successfully")
        assert simulator.registered()[SID][NUMBER] == fingerprint(K1)
    if known or not done["changed"]:
        assert _files(tmp_path) == files
    else:
        assert _real(params())["reason"] == "up_to_date"


def test_each_number_account_and_api_has_its_record(params: Params, simulator: Simulator) -> None:
    _real(params())
    for given in ({"phone_number": OTHER}, {"sid": "HXAP16OTHER"}, {"api_url": simulator.url + "/mirror"}):
        assert _check(params(**given))["reason"] == "absent"
    for given in ({"phone_number": "91 98765-43210"}, {"api_url": simulator.url + "/"}, {"api_key": "another"}):
        assert _check(params(**given))["reason"] == "up_to_date"


URL = "https://gateway.example"


@pytest.mark.parametrize(
    ("given", "environment", "api"),
    [
        ({}, {"KALEYRA_API_URL": URL}, "gateway.example"),
        ({}, {"KALEYRA_POD": "in"}, "api.in.kaleyra.io"),
        ({"api_url": URL}, {"KALEYRA_POD": "in"}, "gateway.example"),
        ({"api_url": URL}, {"KALEYRA_API_URL": "https://evil.example"}, "gateway.example"),
        ({"pod": "in"}, {"KALEYRA_API_URL": URL}, "api.in.kaleyra.io"),
        ({"api_url": ""}, {"KALEYRA_API_URL": URL, "KALEYRA_POD": ""}, "gateway.example"),
        ({}, {}, "Set exactly one of pod and api_url"),
        ({}, {"KALEYRA_POD": "", "KALEYRA_API_URL": ""}, "Set exactly one of pod and api_url"),
        ({}, {"KALEYRA_POD": "in", "KALEYRA_API_URL": URL}, "Set exactly one of pod and api_url"),
        ({"pod": "in", "api_url": URL}, {}, "Set exactly one of pod and api_url"),
        ({}, {"KALEYRA_POD": "moon"}, "is not one of in, sg, eu, na"),
        ({}, {"KALEYRA_API_URL": "http://evil.example"}, "unencrypted"),
    ],
)
def test_environment_gives_a_missing_pod_or_api_url(
    given: dict[str, str], environment: dict[str, str], api: str, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    try:
        registration = Registration(params(**{"api_url": None, **given}), RateLimiter())
    except InvalidInput as exc:
        assert api in str(exc)
    else:
        assert registration.account.api == api


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"timeout": 0}, "timeout is 0, but must be from 1 to 86400"),
        ({"timeout": -1}, "timeout is -1, but must be from 1 to 86400"),
        ({"timeout": 10**11}, "timeout is 100000000000, but must be from 1 to 86400"),  # more than the system's timers take
        ({"retries": -1}, "retries is -1, but must be from 0 to 1000"),
        ({"cache_valid_time": -1}, "cache_valid_time is -1, but must be 0 or more"),
        ({"api_url": "http://10.0.0.1"}, "unencrypted"),
        ({"api_url": None, "pod": "moon"}, "is not one of"),
        ({"sid": "../x"}, "is not an account SID"),
        ({"api_key": "SECRET key"}, "not possible in an HTTP header"),
        ({"phone_number": "0049123456"}, "is not a number in E.164"),
        ({"business_public_key": "junk"}, "no PEM"),
        ({"business_public_key": "PRIVATE rsa-2048"}, "a PRIVATE key"),
        ({"business_public_key": "PUBLIC ec"}, "of the type E"),
        ({"business_public_key": "PUBLIC rsa-1024"}, "RSA with 1024 bits"),
        ({"business_public_key": None, "business_public_key_path": "/nowhere/public.pem"}, "cannot be read"),
        ({"known_fingerprint": "junk"}, "not a SHA-256 fingerprint"),
        ({"cache_path": "/dev/null"}, "cannot be written to cache_path /dev/null: /dev/null is not a directory"),
        ({"api_url": "https://127.0.0.1:1", "ca_path": "/nowhere/ca.pem"}, "ca_path /nowhere/ca.pem cannot be used"),
    ],
    ids=str,
)
def test_bad_input_changes_and_sends_nothing(
    bad: dict[str, Any], said: str, params: Params, simulator: Simulator, public_pem: Named, private_key: Callable[[str], Path], tmp_path: Path
) -> None:
    label, dummy, kind = (bad.get("business_public_key") or "").partition(" ")
    if kind:
        bad = {"business_public_key": public_pem(kind) if label == "PUBLIC" else private_key(kind).read_text()}
    for earlier in (False, True):
        if earlier:
            _real(params(business_public_key=public_pem(K2)))
        files, count = _files(tmp_path), simulator.count()
        for check_mode in (False, True):
            result = _failed(params(**bad), check_mode=check_mode)
            assert said in result["msg"] and "outcome" not in result and result.get("attempts", 0) == 0
            assert "SECRET" not in result["msg"] and API_KEY not in result["msg"]
            assert (_files(tmp_path), simulator.count()) == (files, count)


@pytest.mark.parametrize("library", ["requests", "cryptography"])
def test_missing_library_keeps_the_earlier_record(
    library: str, params: Params, simulator: Simulator, public_pem: Named, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _real(params(business_public_key=public_pem(K2)))
    files, count = _files(tmp_path), simulator.count()
    monkeypatch.setitem(sys.modules, {"cryptography": "cryptography.exceptions"}.get(library, library), None)
    result = _failed(params())
    assert result["msg"].startswith(f"The Python library {library} cannot be imported by {sys.executable} ")
    assert f"{sys.executable} -m pip install {library}" in result["msg"]
    assert result["attempts"] == 0 and (_files(tmp_path), simulator.count()) == (files, count)


_REFUSAL = {"outcome": "rejected", "http_status": 401, "code": "RBC001", "message": "Incorrect SID or API key."}


@pytest.mark.parametrize(
    ("faults", "said", "facts", "then"),
    [
        ([REFUSED], "The number keeps the key it had", {"attempts": 1, **_REFUSAL}, "up_to_date"),
        ([BROKEN, LOST], "may or may not", {"attempts": 2, "outcome": "unknown"}, "unconfirmed"),
    ],
    ids=["rejected", "unknown"],
)
def test_failure_returns_all_facts_and_leaves_a_true_record(
    faults: list[Any], said: str, facts: dict[str, Any], then: str, params: Params, simulator: Simulator, public_pem: Named, fingerprint: Named
) -> None:
    """Many more orders of refusals and losses are in tests/crash/test_ambiguity.py."""
    _real(params(business_public_key=public_pem(K2)))
    simulator.faults({NUMBER: faults})
    result = _failed(params(retries=1))
    assert said in result["msg"]
    assert {name: value for name, value in result.items() if name not in ("diff", "warnings", "failed", "msg")} == {
        "changed": False,
        "phone_number": NUMBER,
        "fingerprint": fingerprint(K1),
        "previous_fingerprint": fingerprint(K2),
        "reason": "different",
        **facts,
    }
    assert _check(params(business_public_key=public_pem(K2)))["reason"] == then


def test_unrecorded_success_is_a_warning(params: Params, simulator: Simulator, fingerprint: Named, monkeypatch: pytest.MonkeyPatch) -> None:
    options = params()
    send = FlowsEncryptionApi.set_public_key

    def send_then_lose_the_folder(api: FlowsEncryptionApi, *given: str) -> Steps[dict[str, Any]]:
        facts = yield from send(api, *given)
        shutil.rmtree(options["cache_path"])
        return facts

    with monkeypatch.context() as patch:
        patch.setattr(FlowsEncryptionApi, "set_public_key", send_then_lose_the_folder)
        result = _real(options)
    assert result["changed"] is True and result["attempts"] == 1
    assert len(result["warnings"]) == 1 and "The key is registered, but not on record" in result["warnings"][0]
    assert simulator.registered()[SID][NUMBER] == fingerprint(K1)
    assert _real(options)["reason"] == "absent"


def test_known_fingerprint_leaves_the_disk_alone(params: Params, simulator: Simulator, fingerprint: Named) -> None:
    for force in (False, True):
        result = _real(params(cache_path="/dev/null", known_fingerprint=fingerprint(K1), force=force))
        assert (result["changed"], result["warnings"]) == (force, [])
    simulator.faults({NUMBER: [RESET, REFUSED]})
    for outcome in ("unknown", "rejected"):
        assert _failed(params(cache_path="/dev/null", known_fingerprint=fingerprint(K2)))["outcome"] == outcome


_WITHOUT_ANSIBLE = """
import json, sys, threading

class NoAnsible:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "ansible":
            raise ImportError(f"{name} is not here")

sys.meta_path.insert(0, NoAnsible())
try:
    import ansible.module_utils.basic
except ImportError:
    pass
else:
    raise AssertionError
"""
_REGISTER = """
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._batch import register
params, fingerprint = json.loads(sys.argv[1]), sys.argv[2]
for given, check_mode in (({}, True), ({}, False), ({"known_fingerprint": fingerprint}, False)):
    assert not register({**params, **given}, check_mode=check_mode, progress=print)["changed"]
assert threading.active_count() == 1 and not {"requests", "cryptography"} & sys.modules.keys()
assert register({**params, "force": True}, check_mode=False)["changed"]
"""


def test_core_needs_no_ansible_and_an_unchanged_run_no_library(
    params: Params, simulator: Simulator, fingerprint: Named, run: Callable[..., str]
) -> None:
    core = sorted(path.stem for path in Path(str(_batch.__file__)).parent.glob("*.py") if path.stem not in ("__init__", "_module"))
    assert "_batch" in core and len(core) >= 9
    options = params(phone_numbers=[NUMBER, OTHER])
    _real(options)
    imports = "".join(f"import ansible_collections.kaleyra.whatsapp.plugins.module_utils.{name}\n" for name in core)
    assert run(_WITHOUT_ANSIBLE + imports + _REGISTER, json.dumps(options), fingerprint(K1)) == ""
    assert simulator.count() == 4
