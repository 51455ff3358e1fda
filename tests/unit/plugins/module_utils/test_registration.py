# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import datetime
import itertools
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
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._errors import KaleyraError
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._steps import Steps
from support.simulator.client import Simulator

NUMBER, OTHER = "+919876543210", "+14155550123"
SID, API_KEY = "HXAP16TESTING97IN", "A0b1C2d3E4+/f5G6=h7"
K1, K2 = "rsa-2048", "other-rsa-2048"

Params = Callable[..., dict[str, Any]]
Named = Callable[[str], str]

# For processes of their own: the options as JSON are the first argument.
_PREPARED = """
import json, sys
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._batch import register
params = json.loads(sys.argv[1])
"""


def _real(params: dict[str, Any]) -> dict[str, Any]:
    return register(params, check_mode=False)


def _check(params: dict[str, Any]) -> dict[str, Any]:
    return register(params, check_mode=True)


def _failed(params: dict[str, Any], *, check_mode: bool = False) -> dict[str, Any]:
    """The result of what cannot be done, as the module returns it."""
    try:
        result = register(params, check_mode=check_mode)
    except KaleyraError as exc:
        return {**exc.details, "failed": True, "msg": str(exc)}
    assert result["failed"] and result["changed"] is False
    return result


def _files(folder: Path) -> dict[str, bytes | None]:
    """All that is below a folder, and what is in it."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def _record(params: dict[str, Any]) -> Path:
    (path,) = Path(params["cache_path"]).glob("*.json")
    return path


# --- what is to be done -----------------------------------------------------------------------------------------------


class World:
    """A number in some state, brought about by real runs as far as these can."""

    def __init__(self, params: Params, simulator: Simulator, public_pem: Named, edit_record: Callable[..., None]) -> None:
        self.params, self.simulator, self.public_pem, self.edit_record = params, simulator, public_pem, edit_record

    def bring_about(self, state: str) -> None:
        wanted = self.params()
        if state == "absent":
            return
        if state == "unconfirmed":
            self.simulator.faults({NUMBER: [{"do": "reset"}]})
            assert _failed(wanted)["outcome"] == "unknown"
            return
        if state == "unconfirmed-other":
            self.simulator.faults({NUMBER: [{"do": "reset"}]})
            assert _failed({**wanted, "business_public_key": self.public_pem(K2)})["outcome"] == "unknown"
            return
        _real({**wanted, "business_public_key": self.public_pem(K2)} if "other" in state else wanted)
        record, days = _record(wanted), datetime.timedelta(days=2)
        if "old" in state:
            self.edit_record(record, {"since": (datetime.datetime.now(datetime.timezone.utc) - days).isoformat()})
        if "future" in state:
            self.edit_record(record, {"since": (datetime.datetime.now(datetime.timezone.utc) + days).isoformat()})
        if state == "of-another-number":
            self.edit_record(record, {"phone_number": OTHER})
        if state == "junk":
            record.write_text("junk")


@pytest.fixture
def world(params: Params, simulator: Simulator, public_pem: Named, edit_record: Callable[..., None]) -> World:
    return World(params, simulator, public_pem, edit_record)


_DAY = 86_400


def _rows() -> list[Any]:
    """State of the record, force, cache_valid_time, known_fingerprint -> reason, key that is known, how it is told of the record."""
    rows: list[tuple[str, bool, int | None, str | None, str, str | None, str]] = []
    for force, valid in itertools.product((False, True), (None, 0, _DAY)):
        # What is not known to be so is registered again whatever else is asked for.
        rows += [
            ("absent", force, valid, None, "absent", None, "absent"),
            ("unconfirmed", force, valid, None, "unconfirmed", None, "unconfirmed"),
            ("unconfirmed-other", force, valid, None, "unconfirmed", None, "unconfirmed"),
            ("junk", force, valid, None, "unreadable", None, "unreadable"),
            ("of-another-number", force, valid, None, "unreadable", None, "unreadable"),
            ("other", force, valid, None, "different", K2, "confirmed"),
            ("other-old", force, valid, None, "different", K2, "confirmed"),
        ]
        # What the caller knows takes the place of the record, and does not age.
        for state in ("absent", "confirmed", "other-old", "unconfirmed", "junk"):
            rows.append((state, force, valid, K1, "forced" if force else "up_to_date", K1, "confirmed"))
            rows.append((state, force, valid, K2, "different", K2, "confirmed"))
    for force in (False, True):
        met = "forced" if force else "up_to_date"
        rows += [
            ("confirmed", force, None, None, met, K1, "confirmed"),
            ("confirmed", force, _DAY, None, met, K1, "confirmed"),
            ("confirmed", force, 0, None, "expired", K1, "expired"),
            ("confirmed-old", force, None, None, met, K1, "confirmed"),
            ("confirmed-old", force, _DAY, None, "expired", K1, "expired"),
            ("confirmed-old", force, 3 * _DAY, None, met, K1, "confirmed"),
            ("confirmed-future", force, None, None, met, K1, "confirmed"),
            ("confirmed-future", force, 3 * _DAY, None, "expired", K1, "expired"),
        ]
    names = {K1: "k1", K2: "k2"}
    return [
        pytest.param(*row, id=f"{row[0]}{'-force' if row[1] else ''}-valid-{row[2]}-known-{names.get(row[3] or '')}")
        for row in rows
    ]


@pytest.mark.parametrize(("state", "force", "valid", "known", "reason", "previous", "told"), _rows())
def test_check_mode_says_what_the_real_run_then_does(
    state: str,
    force: bool,
    valid: int | None,
    known: str | None,
    reason: str,
    previous: str | None,
    told: str,
    world: World,
    fingerprint: Named,
    tmp_path: Path,
) -> None:
    world.bring_about(state)
    params = world.params(force=force, cache_valid_time=valid, known_fingerprint=known and fingerprint(known))
    files, count = _files(tmp_path), world.simulator.count()

    foreseen = _check(params)
    assert (_files(tmp_path), world.simulator.count()) == (files, count)
    assert foreseen["reason"] == reason
    assert foreseen["changed"] is (reason != "up_to_date")
    assert foreseen["previous_fingerprint"] == (previous and fingerprint(previous))
    assert foreseen["fingerprint"] == fingerprint(K1)
    assert foreseen["phone_number"] == NUMBER
    assert foreseen["attempts"] == 0
    assert len(foreseen["warnings"]) == (reason == "unreadable")
    assert foreseen["diff"] == {
        "before": {"phone_number": NUMBER, "fingerprint": foreseen["previous_fingerprint"], "record": told},
        "after": {"phone_number": NUMBER, "fingerprint": fingerprint(K1), "record": "confirmed"},
    }

    done = _real(params)
    for name in ("changed", "reason", "diff", "previous_fingerprint", "fingerprint", "phone_number", "warnings"):
        assert done[name] == foreseen[name], name
    assert done["attempts"] == world.simulator.count() - count == int(done["changed"])
    if done["changed"]:
        assert (done["http_status"], done["code"], done["message"]) == (200, "WA-200", "Request Processed Successfully")
        assert world.simulator.registered()[SID][NUMBER] == fingerprint(K1)
    if known or not done["changed"]:
        assert _files(tmp_path) == files
    else:
        assert _real(world.params())["reason"] == "up_to_date"


def test_the_key_can_come_from_a_file(params: Params, public_pem: Named, fingerprint: Named, tmp_path: Path) -> None:
    path = tmp_path / "public.pem"
    path.write_text(public_pem(K1).replace("\n", "\r\n"))
    result = _real(params(business_public_key=None, business_public_key_path=str(path)))
    assert result["fingerprint"] == fingerprint(K1)


def test_each_number_account_and_api_has_its_record(params: Params, simulator: Simulator) -> None:
    _real(params())
    assert _check(params(phone_number="91 98765-43210"))["reason"] == "up_to_date"
    assert _check(params(phone_number=OTHER))["reason"] == "absent"
    assert _check(params(sid="HXAP16OTHER"))["reason"] == "absent"
    assert _check(params(api_url=simulator.url + "/mirror"))["reason"] == "absent"
    assert _check(params(api_url=simulator.url + "/"))["reason"] == "up_to_date"
    assert _check(params(api_key="another"))["reason"] == "up_to_date"


def test_known_fingerprint_is_forgiven_its_spelling(params: Params, fingerprint: Named, simulator: Simulator) -> None:
    result = _real(params(known_fingerprint=fingerprint(K1).upper().replace(":", "")))
    assert (result["changed"], result["previous_fingerprint"], simulator.count()) == (False, fingerprint(K1), 0)


# --- pod and api_url --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "environment", "said"),
    [
        pytest.param({}, {"KALEYRA_API_URL": "URL"}, None, id="url-from-the-environment"),
        pytest.param({"api_url": "URL"}, {"KALEYRA_POD": "in"}, None, id="url-given-against-a-pod-in-the-environment"),
        pytest.param({"api_url": "URL"}, {"KALEYRA_API_URL": "https://evil.example"}, None, id="url-given-against-another"),
        pytest.param({"api_url": ""}, {"KALEYRA_API_URL": "URL", "KALEYRA_POD": ""}, None, id="empty-is-not-given"),
        pytest.param({}, {}, "exactly one of", id="none"),
        pytest.param({}, {"KALEYRA_POD": "", "KALEYRA_API_URL": ""}, "exactly one of", id="none-but-empty"),
        pytest.param({}, {"KALEYRA_POD": "in", "KALEYRA_API_URL": "URL"}, "exactly one of", id="both-in-the-environment"),
        pytest.param({"pod": "in", "api_url": "URL"}, {}, "exactly one of", id="both-given"),
        pytest.param({}, {"KALEYRA_POD": "moon"}, "is not one of in, sg, eu, na", id="unknown-pod-in-the-environment"),
        pytest.param({}, {"KALEYRA_API_URL": "http://evil.example"}, "unencrypted", id="http-in-the-environment"),
    ],
)
def test_environment_names_pod_or_api_url(
    given: dict[str, str],
    environment: dict[str, str],
    said: str | None,
    params: Params,
    simulator: Simulator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value.replace("URL", simulator.url))
    options = params(**{"api_url": None, **{name: value.replace("URL", simulator.url) for name, value in given.items()}})
    if said is None:
        _real(options)
        assert simulator.count() == 1
    else:
        assert said in _failed(options)["msg"]
        assert simulator.count() == 0


def test_a_pod_given_wins_over_a_url_in_the_environment(params: Params, simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KALEYRA_API_URL", simulator.url)
    _real(params())
    assert _check(params(api_url=None, pod="in"))["reason"] == "absent"  # that of another API
    assert _check(params(api_url=None))["reason"] == "up_to_date"


# --- bad input --------------------------------------------------------------------------------------------------------

_BAD_INPUT = [
    pytest.param({"timeout": 0}, "timeout is 0, but must be from 1 to 86400", id="timeout"),
    pytest.param({"timeout": -1}, "timeout is -1, but must be from 1 to 86400", id="timeout-negative"),
    # More than the system's timers take.
    pytest.param({"timeout": 10**11}, "timeout is 100000000000, but must be from 1 to 86400", id="timeout-of-ages"),
    pytest.param({"retries": -1}, "retries is -1, but must be from 0 to 1000", id="retries"),
    pytest.param({"cache_valid_time": -1}, "cache_valid_time is -1, but must be 0 or more", id="cache-valid-time"),
    pytest.param({"api_url": "http://10.0.0.1"}, "unencrypted", id="api-url"),
    pytest.param({"api_url": None, "pod": "moon"}, "is not one of", id="pod"),
    pytest.param({"sid": "../x"}, "is not an account SID", id="sid"),
    pytest.param({"api_key": "SECRET key"}, "not possible in an HTTP header", id="api-key"),
    pytest.param({"phone_number": "0049123456"}, "is not a number in E.164", id="phone-number"),
    pytest.param({"business_public_key": "junk"}, "no PEM", id="junk"),
    pytest.param({"business_public_key": "PRIVATE"}, "a PRIVATE key", id="private-key"),
    pytest.param({"business_public_key": "PUBLIC ec"}, "of the type E", id="ec"),
    pytest.param({"business_public_key": "PUBLIC rsa-1024"}, "RSA with 1024 bits", id="rsa-1024"),
    pytest.param({"business_public_key": None, "business_public_key_path": "/nowhere/public.pem"}, "cannot be read", id="path"),
    pytest.param({"known_fingerprint": "junk"}, "not a SHA-256 fingerprint", id="known-fingerprint"),
]


@pytest.mark.parametrize("check_mode", [False, True], ids=["real", "check"])
@pytest.mark.parametrize("earlier", [False, True], ids=["none-before", "another-before"])
@pytest.mark.parametrize(("bad", "said"), _BAD_INPUT)
def test_bad_input_is_refused_and_leaves_no_trace(
    bad: dict[str, Any],
    said: str,
    earlier: bool,
    check_mode: bool,
    params: Params,
    simulator: Simulator,
    public_pem: Named,
    private_key: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    if earlier:
        _real(params(business_public_key=public_pem(K2)))
    files, count = _files(tmp_path), simulator.count()
    text = bad.get("business_public_key")
    if text == "PRIVATE":
        bad = {"business_public_key": private_key(K1).read_text()}
    elif text and text.startswith("PUBLIC "):
        bad = {"business_public_key": public_pem(text[7:])}
    message = _failed(params(**bad), check_mode=check_mode)["msg"]
    assert said in message
    assert "SECRET" not in message and API_KEY not in message
    assert simulator.count() == count
    assert _files(tmp_path) == files


def test_the_least_that_options_can_be_is_allowed(params: Params) -> None:
    assert _real(params(timeout=1, retries=0, cache_valid_time=0))["changed"] is True


def test_a_ca_path_that_cannot_be_used_leaves_no_record(params: Params) -> None:
    # An https address where nobody needs to be: the trust store comes first.
    options = params(api_url="https://127.0.0.1:1", ca_path="/nowhere/ca.pem")
    result = _failed(options)
    assert "ca_path" in result["msg"] and result["attempts"] == 0
    assert list(Path(options["cache_path"]).glob("*.json")) == []


# --- failures ---------------------------------------------------------------------------------------------------------

RESET = {"do": "reset"}
REFUSED = {"do": "answer", "status": 401, "body": {"code": "RBC001", "message": "Incorrect SID or API key."}}


def test_a_refusal_tells_all_facts(params: Params, simulator: Simulator, public_pem: Named, fingerprint: Named) -> None:
    _real(params(business_public_key=public_pem(K2)))
    simulator.faults({NUMBER: [REFUSED]})
    result = _failed(params())
    assert "The number keeps the key it had" in result["msg"]
    assert {name: value for name, value in result.items() if name not in ("diff", "warnings", "failed", "msg")} == {
        "changed": False,
        "phone_number": NUMBER,
        "fingerprint": fingerprint(K1),
        "previous_fingerprint": fingerprint(K2),
        "reason": "different",
        "attempts": 1,
        "outcome": "rejected",
        "http_status": 401,
        "code": "RBC001",
        "message": "Incorrect SID or API key.",
    }


def test_an_unknown_outcome_tells_all_facts(params: Params, simulator: Simulator, fingerprint: Named) -> None:
    simulator.faults({NUMBER: [{"do": "answer", "status": 500, "headers": {"Retry-After": "0"}}, RESET]})
    assert "may or may not" in _failed(params(retries=0))["msg"]
    simulator.faults({NUMBER: [{"do": "answer", "status": 500, "headers": {"Retry-After": "0"}}, RESET]})
    result = _failed(params(retries=1))
    assert "may or may not" in result["msg"]
    assert {name: value for name, value in result.items() if name not in ("diff", "warnings", "failed", "msg")} == {
        "changed": False,
        "phone_number": NUMBER,
        "fingerprint": fingerprint(K1),
        "previous_fingerprint": None,
        "reason": "unconfirmed",
        "attempts": 2,
        "outcome": "unknown",
    }


@pytest.mark.parametrize(
    ("story", "reason", "count"),
    [
        # (key, what the API does), ... -> why the last run registers, and how many requests there were in all
        pytest.param([(K1, None), (K2, RESET), (K1, None)], "unconfirmed", 3, id="answer-lost-then-back"),
        pytest.param([(K1, None), (K2, {**RESET, "apply": True}), (K1, None)], "unconfirmed", 3, id="applied-and-answer-lost-then-back"),
        pytest.param([(K1, None), (K2, RESET), (K2, None)], "unconfirmed", 3, id="answer-lost-then-again"),
        pytest.param([(K1, None), (K2, {**RESET, "apply": True}), (K2, None)], "unconfirmed", 3, id="applied-and-answer-lost-then-again"),
        pytest.param([(K1, None), (K2, REFUSED), (K1, None)], "up_to_date", 2, id="refused-then-back"),
        pytest.param([(K1, None), (K2, REFUSED), (K2, None)], "different", 3, id="refused-then-again"),
        pytest.param([(K1, RESET), (K2, REFUSED), (K1, None)], "unconfirmed", 3, id="unknown-then-refused"),
        pytest.param([(K1, REFUSED), (K1, None)], "absent", 2, id="refused-at-first"),
        pytest.param([(K1, None), (K2, None), (K1, None)], "different", 3, id="there-and-back"),
        pytest.param([(K1, None), (K1, None)], "up_to_date", 1, id="twice"),
    ],
)
def test_record_is_true_whatever_the_answer(
    story: list[tuple[str, dict[str, Any] | None]],
    reason: str,
    count: int,
    params: Params,
    simulator: Simulator,
    public_pem: Named,
    fingerprint: Named,
) -> None:
    for key, fault in story[:-1]:
        simulator.faults({NUMBER: [fault] if fault else []})
        assert ("failed" in _real(params(business_public_key=public_pem(key)))) == (fault is not None)
    simulator.faults({})
    key, dummy = story[-1]
    assert _real(params(business_public_key=public_pem(key)))["reason"] == reason
    assert simulator.count() == count
    assert simulator.registered() == {SID: {NUMBER: fingerprint(key)}}
    assert _check(params(business_public_key=public_pem(key)))["changed"] is False


def test_unrecorded_success_is_a_warning(
    params: Params, simulator: Simulator, fingerprint: Named, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = params()
    send = FlowsEncryptionApi.set_public_key

    # Between the answer and the record there is no time to spoil the folder from outside.
    def send_then_lose_the_folder(api: FlowsEncryptionApi, *given: str) -> Steps[dict[str, Any]]:
        facts = yield from send(api, *given)
        shutil.rmtree(options["cache_path"])
        return facts

    monkeypatch.setattr(FlowsEncryptionApi, "set_public_key", send_then_lose_the_folder)
    result = _real(options)
    assert result["changed"] is True and result["attempts"] == 1
    assert len(result["warnings"]) == 1 and "The key is registered, but not on record" in result["warnings"][0]
    assert simulator.registered()[SID][NUMBER] == fingerprint(K1)
    monkeypatch.undo()
    assert _real(options)["reason"] == "absent"


def test_unusable_folder_fails_before_sending(params: Params, simulator: Simulator, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = _failed(params(cache_path=str(tmp_path / "file")))
    assert simulator.count() == 0
    assert "cache_path" in result["msg"] and result["attempts"] == 0 and result["phone_number"] == NUMBER
    assert "outcome" not in result


def test_known_fingerprint_keeps_off_the_disk(params: Params, simulator: Simulator, fingerprint: Named, tmp_path: Path) -> None:
    folder = tmp_path / "file"
    folder.write_text("no folder, so that any use of it would fail")
    for force in (False, True):
        result = _real(params(cache_path=str(folder), known_fingerprint=fingerprint(K1), force=force))
        assert (result["changed"], result["warnings"]) == (force, [])
    simulator.faults({NUMBER: [RESET, REFUSED]})
    for outcome in ("unknown", "rejected"):
        assert _failed(params(cache_path=str(folder), known_fingerprint=fingerprint(K2)))["outcome"] == outcome


# --- side by side -----------------------------------------------------------------------------------------------------

_REGISTER = """
result = register(params, check_mode=False)
print(json.dumps({"reason": result["reason"], "changed": result["changed"]}))
"""


def _all(processes: list[Any]) -> list[dict[str, Any]]:
    answers = []
    for process in processes:
        stdout, stderr = process.communicate(timeout=300)
        assert process.returncode == 0, stderr
        answers.append(json.loads(stdout))
    return answers


def test_processes_that_want_the_same_key_send_it_once(params: Params, simulator: Simulator, start: Callable[..., Any]) -> None:
    simulator.faults({NUMBER: [{"do": "answer", "status": 500, "headers": {"Retry-After": "0"}, "delay": 0.3}]})
    results = _all([start(_PREPARED + _REGISTER, json.dumps(params(retries=1))) for dummy in range(3)])
    assert sorted(result["changed"] for result in results) == [False, False, True]
    assert {result["reason"] for result in results} == {"absent", "up_to_date"}
    assert simulator.count() == 2


# --- what it needs ----------------------------------------------------------------------------------------------------

_WITHOUT_ANSIBLE = """
import sys

class NoAnsible:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "ansible":
            raise ImportError(f"{name} is not here")

sys.meta_path.insert(0, NoAnsible())
"""


def test_the_core_needs_no_ansible(params: Params, simulator: Simulator, fingerprint: Named, run: Callable[..., str]) -> None:
    folder = Path(str(_batch.__file__)).parent
    core = sorted(path.stem for path in folder.glob("*.py") if path.stem not in ("__init__", "_module"))
    assert "_batch" in core and len(core) >= 9
    imports = "".join(f"import ansible_collections.kaleyra.whatsapp.plugins.module_utils.{name}\n" for name in core)
    run(_WITHOUT_ANSIBLE + imports + _PREPARED + _REGISTER, json.dumps(params()))
    assert simulator.registered() == {SID: {NUMBER: fingerprint(K1)}}
    with pytest.raises(AssertionError, match="ansible.* is not here"):  # the hook works
        run(_WITHOUT_ANSIBLE + "import ansible.module_utils.basic")


_WHICH_LIBRARIES = """
result = register(params, check_mode=sys.argv[2] == "check")
print(result["reason"], *(name for name in ("requests", "cryptography") if name in sys.modules))
"""


def test_libraries_are_imported_only_where_they_are_needed(params: Params, run: Callable[..., str], fingerprint: Named) -> None:
    def reason_and_libraries(mode: str, **given: Any) -> list[str]:
        return run(_PREPARED + _WHICH_LIBRARIES, json.dumps(params(**given)), mode).split()

    assert reason_and_libraries("check") == ["absent", "requests", "cryptography"]
    assert reason_and_libraries("real") == ["absent", "requests", "cryptography"]
    assert reason_and_libraries("check") == ["up_to_date"]
    assert reason_and_libraries("real") == ["up_to_date"]
    assert reason_and_libraries("real", known_fingerprint=fingerprint(K1)) == ["up_to_date"]


_WITHOUT_A_LIBRARY = """
sys.modules[sys.argv[2]] = None
result = register(params, check_mode=False)
print(json.dumps([result["msg"], result["attempts"]]))
"""


@pytest.mark.parametrize("library", ["requests", "cryptography"])
@pytest.mark.parametrize("earlier", [True, False], ids=["another-before", "none-before"])
def test_missing_library_leaves_the_earlier_record(
    library: str, earlier: bool, params: Params, simulator: Simulator, public_pem: Named, run: Callable[..., str]
) -> None:
    options = params()
    folder = Path(options["cache_path"])
    if earlier:
        _real({**options, "business_public_key": public_pem(K2)})
    records = {path: path.read_bytes() for path in folder.glob("*.json*")}
    count = simulator.count()
    message, attempts = json.loads(run(_PREPARED + _WITHOUT_A_LIBRARY, json.dumps(options), library))
    assert attempts == 0
    assert message.startswith(f"The Python library {library} cannot be imported by {sys.executable} ")
    assert f"{sys.executable} -m pip install {library}" in message
    assert simulator.count() == count
    assert {path: path.read_bytes() for path in folder.glob("*.json*")} == records
