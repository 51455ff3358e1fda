# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""No confirmed record claims a key that the API does not hold, whatever happens to the processes, the disk and the files.

The environment sets how many rounds there are, and which random ones: ``STRESS_ROUNDS`` (4) and ``STRESS_SEED`` (random, printed).
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import errno
import functools
import json
import os
import random
import resource
import signal
import stat
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from ansible_collections.kaleyra.whatsapp.plugins.module_utils import _api, _record
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._http import post
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._record import Record, RecordFile
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._registration import make_plan
from support.playbook_runs import API_KEY, LOST, RBC001, SID, WA_200, Playbooks
from support.privileges import drop_capabilities
from support.processes import Child, Key, in_child, options, register
from support.simulator.client import Simulator

ROUNDS = int(os.environ.get("STRESS_ROUNDS", "4"))
SEED = int(os.environ.get("STRESS_SEED") or random.SystemRandom().randrange(2**32))
# Far apart, so that no single mishap turns one into the other.
NUMBER, OTHER_NUMBER = "+919876543210", "+14155550123"


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Its own for each test, so that one test alone can be repeated."""
    print(f"STRESS_SEED={SEED} STRESS_ROUNDS={ROUNDS}")
    return random.Random(f"{SEED} {request.node.name}")


@pytest.fixture(scope="module")
def _near_simulator() -> Iterator[Simulator]:
    # The latency of a server nearby, so that kills meet requests under way.
    with Simulator({SID: API_KEY}, latency=0.02) as simulator:
        yield simulator


@pytest.fixture
def simulator(_near_simulator: Simulator) -> Simulator:
    _near_simulator.reset()
    return _near_simulator


@pytest.fixture
def slow_simulator() -> Iterator[Simulator]:
    """So slow that all forks have a request under way at once: Ansible starts some dozens of tasks a second."""
    with Simulator({SID: API_KEY}, latency=0.4) as simulator:
        yield simulator


@pytest.fixture(scope="module")
def keys() -> list[Key]:
    return [Key.make() for dummy in range(2)]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "records"


@dataclasses.dataclass(frozen=True)
class World:
    """One number's registrations by the core, in this process or in others."""

    simulator: Simulator
    cache: Path
    keys: list[Key]

    def params(self, key: int, number: str | None = NUMBER, **given: Any) -> dict[str, Any]:
        return options(self.simulator.url, given.pop("cache_path", self.cache), number, self.keys[key].public, **given)

    def register(self, key: int, number: str = NUMBER, **given: Any) -> dict[str, Any]:
        return register(self.params(key, number, **given))

    def held(self) -> dict[str, str]:
        """Number -> key, 0 and 1 by their fingerprints, as the API has it."""
        return self.simulator.registered().get(SID, {})

    def record(self, number: str = NUMBER) -> Path:
        """Where its record stands."""
        (path,) = (path for path in self.cache.glob("*.json") if path.name.endswith(f"{number}.json"))
        return path


@pytest.fixture
def world(simulator: Simulator, cache: Path, keys: list[Key]) -> World:
    return World(simulator, cache, keys)


def records(cache: Path) -> dict[str, dict[str, Any]]:
    """What stands in the folder, read without the collection's own reader; a half-written record is an error here."""
    found = {}
    for path in cache.glob("*.json"):
        fields = json.loads(path.read_bytes())
        assert path.name.endswith(f",{fields['phone_number']}.json")
        found[fields["phone_number"]] = fields
    return found


def assert_records_true(cache: Path, held: dict[str, str]) -> collections.Counter[str]:
    """No confirmed record claims a key that the API does not hold. Returns how many records are in which state."""
    states: collections.Counter[str] = collections.Counter()
    wrong = {}
    for number, fields in records(cache).items():
        states[fields["state"]] += 1
        if fields["state"] == "confirmed" and fields["fingerprint"] != held.get(number):
            wrong[number] = (fields["fingerprint"], held.get(number))
    assert not wrong, f"on record, and held: {wrong}"
    return states


def leftovers(cache: Path) -> set[str]:
    return {path.name for path in cache.iterdir() if path.suffix != ".json" and path.name != ".lock"}


# --- kills ------------------------------------------------------------------------------------------------------------

NUMBERS, FORKS = 120, 20


def processes_with(mark: str) -> list[int]:
    """Processes that have this in their environment: Ansible's workers leave the group of the one that started them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark.encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


def kill_all(process: subprocess.Popen[bytes], mark: str) -> None:
    """SIGKILL to the group, and to all that came of it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    while found := processes_with(mark):
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.poll()  # a zombie has no environment, but let us not leave one
        time.sleep(0.005)
    process.wait()


def wait_for_requests(simulator: Simulator, rng: random.Random, before: int, is_over: Callable[[], bool] = lambda: False) -> None:
    """Wait for a random number of requests, and a moment longer: a slow machine, too, has done something by then."""
    after = before + rng.randrange(1, NUMBERS - FORKS)
    while simulator.count() < after and not is_over():
        time.sleep(0.01)
    time.sleep(rng.uniform(0, 0.08))


def assert_all_carry(simulator: Simulator, cache: Path, numbers: list[str], key: Key) -> None:
    held = simulator.registered()[SID]
    assert held == dict.fromkeys(numbers, key.fingerprint)
    assert assert_records_true(cache, held) == {"confirmed": len(numbers)}


def test_killed_runs_are_repaired_by_one_clean_run(
    tmp_path: Path, slow_simulator: Simulator, cache: Path, keys: list[Key], rng: random.Random
) -> None:
    simulator, playbooks = slow_simulator, Playbooks(tmp_path, slow_simulator.url)
    numbers = [f"+{919_600_000_000 + n}" for n in range(NUMBERS)]
    given: dict[str, Any] = {"business_public_key": "{{ public_key }}", "cache_path": str(cache), "retries": 0}
    task = playbooks.task("Register", phone_number="{{ inventory_hostname }}", **given)
    # One order for all rounds would leave the same numbers untouched every time.
    play = [{"hosts": "all", "gather_facts": False, "order": "{{ order }}", "tasks": [task]}]
    inventory = {"all": {"hosts": {number: {"ansible_connection": "local"} for number in numbers}}}
    for number in range(ROUNDS):
        before, mark = simulator.count(), str(uuid.uuid4())
        variables = {"public_key": keys[number % 2].public, "order": rng.choice(["inventory", "reverse_inventory", "shuffle"])}
        process = playbooks.start(play, inventory, "-f", str(FORKS), env={"RUN_TO_KILL": mark}, variables=variables)
        try:
            wait_for_requests(simulator, rng, before, is_over=lambda: process.poll() is not None)
        finally:
            kill_all(process, f"RUN_TO_KILL={mark}")
        states = assert_records_true(cache, simulator.registered()[SID])
        print(f"round {number}: killed after {simulator.count() - before} requests; {dict(states)}, {len(leftovers(cache))} leftovers")

    wanted = rng.choice(keys)
    run = playbooks.run(play, inventory, "-f", str(FORKS), variables={"public_key": wanted.public, "order": "inventory"})
    assert run.rc == 0, run.output
    assert_all_carry(simulator, cache, numbers, wanted)


def test_killed_list_is_repaired_by_one_clean_run(slow_simulator: Simulator, cache: Path, keys: list[Key], rng: random.Random) -> None:
    """As above, for many numbers in one process, whose threads have many requests under way."""
    world = World(slow_simulator, cache, keys)
    numbers = [f"+{919_620_000_000 + n}" for n in range(NUMBERS)]

    def all_of_them(key: int) -> dict[str, Any]:
        mixed = rng.sample(numbers, len(numbers))
        return world.params(key, None, phone_numbers=mixed, concurrency=FORKS, retries=2)

    under_way = 0
    for number in range(ROUNDS):
        params, before = all_of_them(number % 2), slow_simulator.count()
        child = Child(functools.partial(register, params))
        wait_for_requests(slow_simulator, rng, before)
        child.kill()
        states = assert_records_true(cache, slow_simulator.registered()[SID])
        under_way += states["unconfirmed"]
        print(f"round {number}: killed after {slow_simulator.count() - before} requests; {dict(states)}, {len(leftovers(cache))} leftovers")
    assert under_way, "no kill hit anything"

    wanted = rng.randrange(2)
    result = register(all_of_them(wanted))
    assert "failed" not in result, result["msg"]
    assert_all_carry(slow_simulator, cache, numbers, keys[wanted])
    before = slow_simulator.count()
    assert register(all_of_them(wanted))["changed"] is False
    assert slow_simulator.count() == before


def test_random_kills_leave_true_records(world: World, rng: random.Random) -> None:
    numbers = [f"+{919_610_000_000 + n}" for n in range(5)]
    states: collections.Counter[str] = collections.Counter()
    kills = 0

    def register_for_ever(seed: float) -> None:
        mine = random.Random(seed)
        while True:
            world.register(mine.randrange(2), mine.choice(numbers), force=mine.random() < 0.2)

    for dummy in range(10 * ROUNDS):
        # Answers, refusals and losses in any order; without an order left, the API answers as it should.
        world.simulator.faults({"*": rng.choices([WA_200, WA_200, RBC001, LOST], k=20)})
        children = [Child(functools.partial(register_for_ever, rng.random())) for dummy in range(4)]
        time.sleep(rng.uniform(0.02, 0.15))
        for child in children:
            child.kill()
            kills += 1
        states += assert_records_true(world.cache, world.held())
    print(f"{10 * ROUNDS} rounds, {kills} kills, states of records after them: {dict(states)}")
    assert states["confirmed"] and states["unconfirmed"], "no kill hit anything"

    world.simulator.faults({})
    for number in numbers:
        assert "failed" not in world.register(0, number)
        assert world.register(0, number)["reason"] == "up_to_date"
    assert assert_records_true(world.cache, world.held()) == {"confirmed": len(numbers)}


STEPWISE = ("registering", "_write", "_sync")


def _kill_at(step: int) -> Callable[[], int]:
    """SIGKILL to oneself before the step-th line of what changes the record; returns what tells the steps so far.

    Lines, because each has one system call at most; events by bytecode are not reliable in every Python.
    """
    steps = 0

    def trace(frame: Any, event: str, _argument: Any) -> Any:
        if frame.f_code.co_filename != _record.__file__ or frame.f_code.co_name not in STEPWISE:
            return None
        return count

    def count(_frame: Any, event: str, _argument: Any) -> Any:
        nonlocal steps
        if event == "line":
            steps += 1
            if steps == step:
                os.kill(os.getpid(), signal.SIGKILL)
        return count

    threading.settrace(trace)  # of the threads that do the work
    return lambda: steps


@pytest.mark.parametrize("fault", [None, RBC001, LOST], ids=["success", "refusal", "loss"])
def test_kill_before_any_line_leaves_true_records(world: World, rng: random.Random, fault: Any) -> None:
    def registration(key: int, step: int) -> Callable[[], Any]:
        def work() -> int:
            steps = _kill_at(step)
            world.register(key)
            return steps()

        return work

    in_child(lambda: world.register(0))
    world.simulator.faults({NUMBER: [fault] if fault else []})
    total = in_child(registration(1, 0))
    assert total > 15
    current = 1
    kills = 0
    for step in range(1, total + 1):
        world.simulator.faults({})
        assert "failed" not in in_child(lambda: world.register(current))
        world.simulator.faults({NUMBER: [fault] if fault else []})
        wanted = 1 - current
        kills += in_child(registration(wanted, step)) is None
        assert_records_true(world.cache, world.held())
        current = rng.randrange(2)
    print(f"killed {kills} times, once before each of {total} lines")
    # A run that finds nothing on record has a line or two less.
    assert kills >= total - 3


# --- folders that cannot be written -----------------------------------------------------------------------------------


def fill_disk(_folder: Path | None = None) -> None:
    """As on a full disk, no file of this process may grow any more. Python ignores the signal."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def make_read_only(folder: Path) -> None:
    folder.chmod(0o500)
    drop_capabilities()  # what lets root past the modes of files


def give_away(folder: Path, mode: int) -> None:
    for path in (folder, *folder.iterdir()):
        os.chown(path, 12345, 12345)
    folder.chmod(mode)
    drop_capabilities()


only_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")


@pytest.mark.parametrize(
    ("obstruct", "cause", "record_counts"),
    [
        pytest.param(fill_disk, os.strerror(errno.EFBIG), True, id="full-disk"),
        pytest.param(make_read_only, "records cannot be written", True, id="read-only"),
        pytest.param(functools.partial(give_away, mode=0o755), "", False, id="of-another-user", marks=only_root),
        pytest.param(functools.partial(give_away, mode=0o700), "", False, id="closed-by-another-user", marks=only_root),
    ],
)
def test_unwritable_folder_sends_nothing(world: World, obstruct: Callable[[Path], None], cause: str, record_counts: bool) -> None:
    world.register(0)
    before = world.record().read_bytes()

    def work() -> list[dict[str, Any]]:
        obstruct(world.cache)
        return [world.register(1), world.register(1, OTHER_NUMBER), world.register(0)]

    *others, same = in_child(work)
    world.cache.chmod(0o700)
    for result in others if record_counts else (*others, same):
        _assert_nothing_was_done(world, result, requests=1)
        assert cause in result["msg"] and "outcome" not in result
    if record_counts:  # what needs no writing still works
        assert same["reason"] == "up_to_date" and "failed" not in same
    assert world.record().read_bytes() == before and leftovers(world.cache) == set()


def _assert_nothing_was_done(world: World, result: dict[str, Any], requests: int) -> None:
    assert result["failed"] and not result["changed"] and result["attempts"] == 0
    assert f"cache_path {world.cache}" in result["msg"]
    assert world.simulator.count() == requests


@pytest.mark.parametrize("answer", ["success", "refusal"])
def test_disk_full_during_request_registers_again(world: World, answer: str) -> None:
    world.register(0)
    world.simulator.faults({NUMBER: [RBC001] if answer == "refusal" else []})

    def work() -> dict[str, Any]:
        def post_and_fill(*args: Any, **kwargs: Any) -> Any:
            came = post(*args, **kwargs)
            fill_disk()
            return came

        with mock.patch.object(_api, "post", post_and_fill):
            return world.register(1)

    result = in_child(work)
    if answer == "success":
        assert "failed" not in result and result["changed"]
        (warning,) = result["warnings"]
        assert "cache_path" in warning and os.strerror(errno.EFBIG) in warning
    else:
        assert result["failed"] and result["outcome"] == "rejected"
    # The earlier record could not be put back, or the new one not be confirmed: neither key counts.
    assert records(world.cache)[NUMBER]["state"] == "unconfirmed" and leftovers(world.cache) == set()
    for key in (0, 1):
        planned = register(world.params(key), check_mode=True)
        assert planned["changed"] and planned["reason"] == "unconfirmed"
    assert world.held()[NUMBER] == world.keys[1 if answer == "success" else 0].fingerprint


def test_unreadable_mode_is_a_warning(world: World) -> None:
    world.register(0)
    world.record().chmod(0)

    def work() -> dict[str, Any]:
        drop_capabilities()
        return world.register(0)

    result = in_child(work)
    assert "failed" not in result and result["reason"] == "unreadable" and result["attempts"] == 1
    assert os.strerror(errno.EACCES) in result["warnings"][0]
    assert world.register(0)["reason"] == "up_to_date"


# --- what else can stand in the record's place ------------------------------------------------------------------------


@pytest.mark.parametrize("refused", [False, True], ids=["accepted", "refused"])
@pytest.mark.parametrize("points_to", ["text", "nothing", "itself", "folder"])  # to a record: tests/unit
def test_link_as_record_is_not_followed(world: World, tmp_path: Path, points_to: str, refused: bool) -> None:
    world.register(0)
    record, target = world.record(), tmp_path / "target"
    if points_to == "text":
        target.write_text("precious\n")
    elif points_to == "folder":
        target.mkdir()
    before = target.read_bytes() if target.is_file() else None
    record.unlink()
    record.symlink_to(record if points_to == "itself" else target)
    world.simulator.faults({NUMBER: [RBC001] if refused else []})
    result = world.register(0)
    assert (result["reason"], result["attempts"], len(result["warnings"])) == ("unreadable", 1, 1)
    assert result.get("outcome") == ("rejected" if refused else None)
    assert (target.read_bytes() if target.is_file() else None) == before
    assert target.exists() == (points_to not in ("nothing", "itself"))
    assert leftovers(world.cache) == set()
    world.simulator.faults({})
    # After a refusal nothing is on record, and the next run registers.
    assert world.register(0)["reason"] == ("absent" if refused else "up_to_date")
    assert stat.S_ISREG(world.record().lstat().st_mode)


def test_link_as_new_record_is_not_followed(world: World, tmp_path: Path) -> None:
    world.register(0)
    precious = tmp_path / "precious"
    precious.write_text("precious\n")
    # No process of this collection leaves a link: somebody has to look at it.
    Path(f"{world.record()}.new").symlink_to(precious)
    _assert_nothing_was_done(world, world.register(1), requests=1)
    assert precious.read_text() == "precious\n" and world.register(0)["reason"] == "up_to_date"


def test_full_folder_as_record_sends_nothing(world: World) -> None:
    # Nothing that this module has made: somebody has to look at it.
    world.register(0)
    record = world.record()
    record.unlink()
    record.mkdir()
    (record / "precious").write_text("precious\n")
    checked = register(world.params(0), check_mode=True)
    assert checked["reason"] == "unreadable" and len(checked["warnings"]) == 1
    _assert_nothing_was_done(world, world.register(0), requests=1)
    assert (record / "precious").read_text() == "precious\n" and leftovers(world.cache) == set()


# --- damaged records --------------------------------------------------------------------------------------------------


def _single_damages(whole: bytes) -> Iterator[bytes]:
    """Each bit flipped, each byte replaced by each digit, each short stretch cut out, and every length that is too short."""
    for at in range(len(whole)):
        for byte in {*(whole[at] ^ 1 << bit for bit in range(8)), *b"0123456789"} - {whole[at]}:
            yield whole[:at] + bytes([byte]) + whole[at + 1 :]
        for end in range(at + 1, min(at + 24, len(whole))):
            yield whole[:at] + whole[end:]
        # The newline at the end apart, which says nothing.
        if at < len(whole) - 1:
            yield whole[:at]


@pytest.mark.parametrize(
    ("number", "confirmed", "since", "reason"),
    [
        pytest.param(NUMBER, False, None, "unconfirmed", id="unconfirmed"),
        pytest.param(OTHER_NUMBER, True, None, "unreadable", id="of-another-number"),
        pytest.param(NUMBER, True, "2025-01-31T10:20:30+00:00", "expired", id="old"),
    ],
)
def test_single_damage_makes_no_record_count(
    number: str, confirmed: bool, since: str | None, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of those that do not count as they are."""
    key = ":".join(["a0"] * 32)
    mine, written_for = (RecordFile(str(tmp_path), "api.in.kaleyra.io", SID, each) for each in (NUMBER, number))
    fields = json.loads(written_for._dump(Record(key, confirmed)))
    fields = {name: value for name, value in {**fields, "since": since or fields["since"]}.items() if name != "checksum"}
    whole = json.dumps({**fields, "checksum": _record._checksum(fields)}).encode() + b"\n"

    def reason_of(content: bytes) -> str:
        monkeypatch.setattr(mine, "_content", lambda: content)
        return make_plan(mine, key, force=False, cache_valid_time=86400 * 90).reason

    assert reason_of(whole) == reason
    assert [content for content in _single_damages(whole) if reason_of(content) == "up_to_date"] == []


# --- two processes on one number --------------------------------------------------------------------------------------


def test_two_processes_leave_what_the_api_holds(
    world: World, tmp_path: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.cache.mkdir()
    link = tmp_path / "link"
    link.symlink_to(world.cache)
    monkeypatch.chdir(tmp_path)
    spellings = [str(world.cache), f"{world.cache}/", f"./{world.cache.name}", world.cache.name, f"{link}", f"{world.cache}/../{link.name}//"]
    states: collections.Counter[str] = collections.Counter()

    def work(key: int, spelling: str, pause: float) -> dict[str, Any]:
        time.sleep(pause)
        return world.register(key, cache_path=spelling)

    for dummy in range(8 * ROUNDS):
        answers = [{**rng.choices([WA_200, LOST, RBC001], [6, 1, 1])[0], "delay": rng.uniform(0, 0.04)} for dummy in range(2)]
        world.simulator.faults({NUMBER: answers})
        children = [Child(functools.partial(work, key, rng.choice(spellings), rng.uniform(0, 0.01))) for key in (0, 1)]
        results = [child.wait() for child in children]
        for result in results:
            assert "failed" not in result or result["outcome"] in ("unknown", "rejected"), result
        fields = records(world.cache).get(NUMBER)
        state = fields["state"] if fields else "absent"
        states[state] += 1
        if fields:
            assert_records_true(world.cache, world.held())
        if state == "confirmed":
            # Nobody's success is forgotten: what is on record is the key of one who succeeded, or what was there before.
            assert fields is not None and fields["fingerprint"] in {key.fingerprint for key in world.keys}
    print(f"{8 * ROUNDS} rounds of two processes: {dict(states)}")
    assert states["confirmed"]
    assert leftovers(world.cache) == set()


def test_processes_with_one_key_send_one_request(world: World) -> None:
    children = [Child(lambda: world.register(0)) for dummy in range(8)]
    results = [child.wait() for child in children]
    assert sorted(result["reason"] for result in results) == ["absent"] + ["up_to_date"] * 7
    assert world.simulator.count() == 1


@pytest.mark.parametrize("spelling", ["{}", "link/../records"])
def test_process_waits_for_the_same_number(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spelling: str
) -> None:
    world.cache.mkdir()
    (tmp_path / "link").symlink_to(world.cache)
    monkeypatch.chdir(tmp_path)
    world.simulator.faults({NUMBER: [{**WA_200, "delay": 0.4}]})
    first = Child(lambda: world.register(0))
    while world.simulator.count() < 1:
        time.sleep(0.01)
    # Its request comes after the first one's answer, or else its short answer would be followed by the first one's record.
    second = in_child(lambda: world.register(1, cache_path=spelling.format(world.cache)))
    assert (second["reason"], second["previous_fingerprint"]) == ("different", world.keys[0].fingerprint)
    assert "failed" not in first.wait()
    assert records(world.cache)[NUMBER]["fingerprint"] == world.held()[NUMBER] == world.keys[1].fingerprint
