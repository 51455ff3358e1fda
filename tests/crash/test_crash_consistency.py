# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The record never lies, whatever happens to the processes, the disk and the files.

How many rounds, and which random ones, is said by the environment: ``STRESS_ROUNDS`` (4) and ``FIRE_SEED`` (random, printed).
"""

from __future__ import annotations

import collections
import contextlib
import errno
import functools
import json
import os
import random
import resource
import shutil
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
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._record import RecordFile
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._registration import make_plan
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.playbook_runs import BIN, COLLECTIONS, MODULE, Playbooks
from support.privileges import drop_capabilities, fill, mount_tmpfs
from support.processes import API_KEY, SID, Child, Key, in_child, options, register
from support.simulator.client import Simulator

ROUNDS = int(os.environ.get("STRESS_ROUNDS", "4"))
SEED = int(os.environ.get("FIRE_SEED") or random.SystemRandom().randrange(2**32))
# Far apart, so that no single mishap turns one into the other.
NUMBER, OTHER_NUMBER = "+919876543210", "+14155550123"

APPLIED: dict[str, Any] = {
    "do": "answer",
    "status": 200,
    "apply": True,
    "body": {"code": "WA-200", "message": "Request Processed Successfully", "data": {"success": True}, "error": {}},
}
REFUSED: dict[str, Any] = {"do": "answer", "status": 401, "body": {"code": "RBC001", "message": "Incorrect SID or API key."}}
LOST: dict[str, Any] = {"do": "reset", "apply": True}


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Its own for each test, so that one test alone can be repeated."""
    print(f"FIRE_SEED={SEED} STRESS_ROUNDS={ROUNDS}")
    return random.Random(f"{SEED} {request.node.name}")


@pytest.fixture(scope="module")
def _fire_simulator() -> Iterator[Simulator]:
    # With a latency as of a near server, so that kills find requests that are under way.
    with Simulator({SID: API_KEY}, latency=0.02) as simulator:
        yield simulator


@pytest.fixture
def simulator(_fire_simulator: Simulator) -> Simulator:
    _fire_simulator.reset()
    return _fire_simulator


@pytest.fixture
def slow_simulator() -> Iterator[Simulator]:
    """Slow enough for all forks to have a request under way at once: Ansible starts some dozens of tasks a second."""
    with Simulator({SID: API_KEY}, latency=0.4) as simulator:
        yield simulator


@pytest.fixture(scope="module")
def keys() -> list[Key]:
    return [Key.make() for dummy in range(2)]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "records"


class World:
    """One number's registrations by the core, in this process or in others."""

    def __init__(self, simulator: Simulator, cache: Path, keys: list[Key]) -> None:
        self.simulator = simulator
        self.cache = cache
        self.keys = keys

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


def assert_no_lie(cache: Path, held: dict[str, str]) -> collections.Counter[str]:
    """No record may claim a key that the API does not hold. Returns how many records are in which state."""
    states: collections.Counter[str] = collections.Counter()
    lies = {}
    for number, fields in records(cache).items():
        states[fields["state"]] += 1
        if fields["state"] == "confirmed" and fields["fingerprint"] != held.get(number):
            lies[number] = (fields["fingerprint"], held.get(number))
    assert not lies, f"on record, and held: {lies}"
    return states


def litter(cache: Path) -> set[str]:
    return {path.name for path in cache.iterdir() if path.suffix != ".json" and path.name != ".lock"}


# --- kills ------------------------------------------------------------------------------------------------------------

NUMBERS, FORKS = 300, 20


def processes_with(mark: str) -> list[int]:
    """Processes that have this in their environment: Ansible's workers leave the group of the one that started them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark.encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


def kill_all(process: subprocess.Popen[bytes], mark: str) -> int:
    """SIGKILL to the group, and to all that came of it; returns how many they were."""
    killed = set()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    while found := set(processes_with(mark)):
        killed |= found
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.poll()  # a zombie has no environment, but let us not leave one
        time.sleep(0.005)
    process.wait()
    return len(killed | {process.pid})


def test_runs_that_are_killed_leave_no_lie_and_one_clean_run_puts_all_right(
    tmp_path: Path, slow_simulator: Simulator, cache: Path, keys: list[Key], rng: random.Random
) -> None:
    simulator = slow_simulator
    playbooks = Playbooks(tmp_path, simulator.url)
    numbers = [f"+{919_600_000_000 + n}" for n in range(NUMBERS)]
    arguments = {
        "api_url": "{{ api_url }}",
        "sid": "{{ sid }}",
        "api_key": "{{ api_key }}",
        "phone_number": "{{ inventory_hostname }}",
        "business_public_key": "{{ public_key }}",
        "cache_path": str(cache),
        "retries": 0,
    }
    play = [{"hosts": "all", "gather_facts": False, "tasks": [{"name": "Register", MODULE: arguments}]}]
    # One order for all rounds would leave the same numbers untouched every time.
    play[0]["order"] = "{{ order }}"
    inventory = {"all": {"hosts": {number: {"ansible_connection": "local"} for number in numbers}}}

    def variables(key: int, order: str = "inventory") -> dict[str, Any]:
        account = {"api_url": simulator.url, "sid": SID, "api_key": API_KEY}
        return {**account, "public_key": keys[key].public, "order": order}

    def run_and_kill(key: int, order: str, after: int, wait: float) -> tuple[int, int]:
        """Kill the run once so many requests have come and some time has passed; return requests and processes killed."""
        for name, document in (("play", play), ("inventory", inventory), ("variables", variables(key, order))):
            (playbooks.inputs / f"fire-{name}.yml").write_text(json.dumps(document))
        mark = f"UNDER_FIRE={uuid.uuid4()}"
        before = simulator.count()
        process = subprocess.Popen(
            [
                *(BIN / "ansible-playbook", "-f", str(FORKS), "-i", "fire-inventory.yml"),
                *("-e", "@fire-variables.yml", "fire-play.yml"),
            ],
            cwd=playbooks.inputs,
            env={
                "PATH": f"{BIN}:{os.environ['PATH']}",
                "LANG": "C.UTF-8",
                "HOME": str(playbooks.home),
                "TMPDIR": str(playbooks.temporary),
                "ANSIBLE_CONFIG": str(playbooks.inputs / "ansible.cfg"),
                "ANSIBLE_HOME": str(playbooks.home / ".ansible"),
                "ANSIBLE_COLLECTIONS_PATH": COLLECTIONS,
                **dict([mark.split("=")]),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            # By what has happened rather than by the clock: a slow machine would be killed before it did anything.
            while simulator.count() - before < after and process.poll() is None:
                time.sleep(0.01)
            time.sleep(wait)
        finally:
            killed = kill_all(process, mark)
        return simulator.count() - before, killed

    kills = under_way = 0
    for number in range(ROUNDS):
        key = number % 2
        order = rng.choice(["inventory", "reverse_inventory", "shuffle"])
        sent, killed = run_and_kill(key, order, rng.randrange(1, NUMBERS - FORKS), rng.uniform(0, 0.08))
        kills += killed
        states = assert_no_lie(cache, simulator.registered()[SID])
        under_way += states["unconfirmed"]
        print(f"round {number}: K{key + 1}, {order}, {killed} processes killed after {sent} requests; {dict(states)}, litter {len(litter(cache))}")
    print(f"{ROUNDS} rounds, {kills} processes killed, {under_way} registrations found under way")

    wanted = rng.randrange(2)
    run = playbooks.run(play, inventory, "-f", str(FORKS), variables=variables(wanted))
    assert run.rc == 0, run.output
    held = simulator.registered()[SID]
    assert set(held) == set(numbers) and set(held.values()) == {keys[wanted].fingerprint}
    assert assert_no_lie(cache, held) == {"confirmed": NUMBERS}
    print("clean run:", collections.Counter(outcome.result["reason"] for outcome in run.of("Register")))

    before = simulator.count()
    run = playbooks.run(play, inventory, "-f", str(FORKS), variables=variables(wanted))
    assert run.rc == 0 and run.changed() == 0, run.output
    assert simulator.count() == before


def test_a_list_that_is_killed_leaves_no_lie_and_one_clean_run_puts_all_right(
    slow_simulator: Simulator, cache: Path, keys: list[Key], rng: random.Random
) -> None:
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
        after = rng.randrange(1, NUMBERS - FORKS)
        while slow_simulator.count() - before < after:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.08))
        child.kill()
        states = assert_no_lie(cache, slow_simulator.registered()[SID])
        under_way += states["unconfirmed"]
        print(f"round {number}: killed after {slow_simulator.count() - before} requests; {dict(states)}, litter {len(litter(cache))}")
    assert under_way, "no kill hit anything"

    wanted = rng.randrange(2)
    result = register(all_of_them(wanted))
    assert "failed" not in result, result["msg"]
    held = slow_simulator.registered()[SID]
    assert set(held) == set(numbers) and set(held.values()) == {keys[wanted].fingerprint}
    assert assert_no_lie(cache, held) == {"confirmed": NUMBERS}
    before = slow_simulator.count()
    assert register(all_of_them(wanted))["changed"] is False
    assert slow_simulator.count() == before


def test_processes_that_are_killed_at_random_leave_no_lie(world: World, rng: random.Random) -> None:
    numbers = [f"+{919_610_000_000 + n}" for n in range(5)]
    states: collections.Counter[str] = collections.Counter()
    kills = 0

    def register_for_ever(seed: float) -> None:
        mine = random.Random(seed)
        while True:
            world.register(mine.randrange(2), mine.choice(numbers), force=mine.random() < 0.2)

    for dummy in range(10 * ROUNDS):
        # Answers, refusals and losses in any order; without an order left, the API answers as it should.
        world.simulator.faults({"*": rng.choices([APPLIED, APPLIED, REFUSED, LOST], k=20)})
        children = [Child(functools.partial(register_for_ever, rng.random())) for dummy in range(4)]
        time.sleep(rng.uniform(0.02, 0.15))
        for child in children:
            child.kill()
            kills += 1
        states += assert_no_lie(world.cache, world.held())
    print(f"{10 * ROUNDS} rounds, {kills} kills, states of records after them: {dict(states)}")
    assert states["confirmed"] and states["unconfirmed"], "no kill hit anything"

    world.simulator.faults({})
    for number in numbers:
        assert "failed" not in world.register(0, number)
        assert world.register(0, number)["reason"] == "up_to_date"
    assert assert_no_lie(world.cache, world.held()) == {"confirmed": len(numbers)}


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


@pytest.mark.parametrize("fault", [None, REFUSED, LOST], ids=["success", "refusal", "loss"])
def test_a_kill_before_any_step_of_the_record_leaves_no_lie(world: World, rng: random.Random, fault: Any) -> None:
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
        assert_no_lie(world.cache, world.held())
        current = rng.randrange(2)
    print(f"killed {kills} times, once before each of {total} lines")
    # A run that finds nothing on record has a line or two less.
    assert kills >= total - 3


def test_a_kill_leaves_no_litter_once_the_number_is_registered(world: World) -> None:
    world.register(0)

    def killed_before_the_new_record_has_its_place() -> None:
        os.replace = lambda *dummy: os.kill(os.getpid(), signal.SIGKILL)
        world.register(1)

    assert in_child(killed_before_the_new_record_has_its_place) is None
    assert litter(world.cache) != set()
    assert world.register(1)["changed"]
    assert litter(world.cache) == set()


# --- a full disk ------------------------------------------------------------------------------------------------------


def _cannot_mount(folder: Path) -> str | None:
    reason: str | None = in_child(lambda: mount_tmpfs(folder, "64k"))
    return reason


def _on_a_small_disk(folder: Path) -> Callable[[], None]:
    """Put the folder on a disk of its own; what is returned fills it up."""
    assert mount_tmpfs(folder, "64k") is None
    return lambda: fill(folder)


def _under_a_limit(_folder: Path) -> Callable[[], None]:
    """The same without any rights: no file of this process may grow any more."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


Disk = Callable[[Path], Callable[[], None]]


@pytest.fixture(params=["tmpfs", "limit"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Disk:
    """A disk that can be filled up; to be used in a child. Both kinds, so that one remains where nothing can be mounted."""
    if request.param == "limit":
        return _under_a_limit
    probe = tmp_path / "probe"
    probe.mkdir()
    if (cause := _cannot_mount(probe)) is not None:
        pytest.skip(f"no tmpfs can be mounted here ({cause}): only RLIMIT_FSIZE stands for the full disk, in the test beside")
    return _on_a_small_disk


def _says(disk: Disk) -> str:
    return os.strerror(errno.ENOSPC if disk is _on_a_small_disk else errno.EFBIG)


def test_on_a_full_disk_it_fails_before_anything_is_sent_and_names_cache_path(world: World, disk: Disk) -> None:
    world.cache.mkdir()

    def work() -> dict[str, Any]:
        make_full = disk(world.cache)
        first = world.register(0)
        stood = world.record().read_bytes()
        make_full()
        return {
            "first": first,
            "other key": world.register(1),
            "other number": world.register(1, OTHER_NUMBER),
            "same key": world.register(0),
            "untouched": world.record().read_bytes() == stood,
            "litter": sorted(litter(world.cache) - {"filler"}),
        }

    seen = in_child(work)
    assert seen["first"]["reason"] == "absent" and "failed" not in seen["first"]
    for name in ("other key", "other number"):
        assert seen[name]["failed"] and not seen[name]["changed"] and seen[name]["attempts"] == 0
        assert "cache_path" in seen[name]["msg"] and str(world.cache) in seen[name]["msg"] and _says(disk) in seen[name]["msg"]
        assert "outcome" not in seen[name]
    # What needs no writing still works.
    assert seen["same key"]["reason"] == "up_to_date" and "failed" not in seen["same key"]
    assert seen["untouched"] and seen["litter"] == []
    assert world.simulator.count() == 1


@pytest.mark.parametrize("answer", ["success", "refusal"])
def test_a_disk_that_fills_up_while_the_request_is_under_way_costs_a_warning_and_another_registration(
    world: World, disk: Disk, answer: str
) -> None:
    world.cache.mkdir()

    def work() -> dict[str, Any]:
        make_full = disk(world.cache)
        first = world.register(0)

        def post_and_fill(*args: Any, **kwargs: Any) -> Any:
            came = post(*args, **kwargs)
            make_full()
            return came

        world.simulator.faults({NUMBER: [REFUSED] if answer == "refusal" else []})
        with mock.patch.object(_api, "post", post_and_fill):
            second = world.register(1)
        checked = {str(key): register(world.params(key), check_mode=True) for key in (0, 1)}
        record = json.loads(world.record().read_bytes())
        return {"first": first, "second": second, "checked": checked, "record": record, "litter": sorted(litter(world.cache) - {"filler"})}

    seen = in_child(work)
    assert "failed" not in seen["first"]
    if answer == "success":
        assert "failed" not in seen["second"] and seen["second"]["changed"]
        (warning,) = seen["second"]["warnings"]
        assert "cache_path" in warning and _says(disk) in warning
    else:
        assert seen["second"]["failed"] and seen["second"]["outcome"] == "rejected"
    # The earlier record could not be put back, or the new one not be confirmed: neither key counts.
    assert seen["record"]["state"] == "unconfirmed"
    for plan in seen["checked"].values():
        assert plan["changed"] and plan["reason"] == "unconfirmed"
    assert seen["litter"] == []
    assert world.held()[NUMBER] == world.keys[1 if answer == "success" else 0].fingerprint


# --- folders that are not to be written -------------------------------------------------------------------------------


def _without_rights(work: Callable[[], Any]) -> Any:
    """Do it without what lets root past the modes of files."""

    def robbed() -> Any:
        drop_capabilities()
        return work()

    return in_child(robbed)


def _assert_nothing_was_done(world: World, result: dict[str, Any], requests: int) -> None:
    assert result["failed"] and not result["changed"] and result["attempts"] == 0
    assert f"cache_path {world.cache}" in result["msg"]
    assert world.simulator.count() == requests


def test_in_a_read_only_folder_it_fails_before_anything_is_sent_and_what_is_up_to_date_passes(world: World) -> None:
    world.register(0)
    stood = world.record().read_bytes()
    world.cache.chmod(0o500)
    try:
        seen = _without_rights(lambda: [world.register(1), world.register(1, OTHER_NUMBER), world.register(0)])
    finally:
        world.cache.chmod(0o700)
    for result in seen[:2]:
        _assert_nothing_was_done(world, result, requests=1)
        assert f"{world.cache} cannot be written" in result["msg"]
    assert seen[2]["reason"] == "up_to_date" and "failed" not in seen[2]
    assert world.record().read_bytes() == stood and litter(world.cache) == set()


def test_below_a_read_only_folder_it_fails_before_anything_is_sent(world: World, tmp_path: Path) -> None:
    above = tmp_path / "above"
    above.mkdir(mode=0o500)
    world.cache = above / "not" / "there"
    _assert_nothing_was_done(world, _without_rights(lambda: world.register(0)), requests=0)


@pytest.mark.parametrize("mode", [0o755, 0o700], ids=oct)
def test_in_a_folder_of_somebody_else_it_fails_before_anything_is_sent(world: World, mode: int) -> None:
    if os.getuid() == 0:
        world.register(0)
        for path in (world.cache, *world.cache.iterdir()):
            os.chown(path, 12345, 12345)
        world.cache.chmod(mode)
        requests = 1
    else:
        world.cache = Path("/usr/lib" if mode == 0o755 else "/root")  # they are somebody else's for sure
        requests = 0
    _assert_nothing_was_done(world, _without_rights(lambda: world.register(1)), requests)


def test_a_record_that_may_not_be_read_is_a_warning_and_a_registration(world: World) -> None:
    world.register(0)
    world.record().chmod(0)
    result = _without_rights(lambda: world.register(0))
    assert "failed" not in result and result["reason"] == "unreadable" and result["attempts"] == 1
    assert os.strerror(errno.EACCES) in result["warnings"][0]
    assert world.register(0)["reason"] == "up_to_date"


# --- what else can stand in the record's, the folder's and the lock's place -------------------------------------------


@pytest.mark.parametrize("refused", [False, True], ids=["accepted", "refused"])
@pytest.mark.parametrize("points_to", ["record", "text", "nothing", "itself", "folder"])
def test_a_link_in_the_records_place_is_not_followed(world: World, tmp_path: Path, points_to: str, refused: bool) -> None:
    world.register(0)
    record, target = world.record(), tmp_path / "target"
    if points_to == "record":  # a true one, even so
        shutil.copy(record, target)
    elif points_to == "text":
        target.write_text("precious\n")
    elif points_to == "folder":
        target.mkdir()
    before = target.read_bytes() if target.is_file() else None
    record.unlink()
    record.symlink_to(record if points_to == "itself" else target)
    world.simulator.faults({NUMBER: [REFUSED] if refused else []})
    result = world.register(0)
    assert (result["reason"], result["attempts"], len(result["warnings"])) == ("unreadable", 1, 1)
    assert result.get("outcome") == ("rejected" if refused else None)
    assert (target.read_bytes() if target.is_file() else None) == before
    assert target.exists() == (points_to not in ("nothing", "itself"))
    assert litter(world.cache) == set()
    world.simulator.faults({})
    # After a refusal nothing is on record, and the next run registers.
    assert world.register(0)["reason"] == ("absent" if refused else "up_to_date")
    assert stat.S_ISREG(world.record().lstat().st_mode)


def test_a_link_in_the_new_records_place_is_not_followed(world: World, tmp_path: Path) -> None:
    world.register(0)
    precious = tmp_path / "precious"
    precious.write_text("precious\n")
    Path(f"{world.record()}.new").symlink_to(precious)
    assert "failed" not in world.register(1)
    assert precious.read_text() == "precious\n"
    assert world.register(1)["reason"] == "up_to_date" and litter(world.cache) == set()


def test_a_link_to_a_folder_is_a_folder(world: World, tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    world.cache.symlink_to(real)
    assert world.register(0)["reason"] == "absent"
    world.cache = real
    assert world.register(0)["reason"] == "up_to_date"


@pytest.mark.parametrize("place", ["a dangling link", "a link to itself", "a file", "a link to a file"])
def test_without_a_folder_in_the_folders_place_it_fails_before_anything_is_sent(world: World, tmp_path: Path, place: str) -> None:
    file = tmp_path / "file"
    file.write_text("precious\n")
    targets = {"a dangling link": tmp_path / "nothing", "a link to itself": world.cache, "a link to a file": file}
    if place in targets:
        world.cache.symlink_to(targets[place])
    else:
        world.cache.write_text("precious\n")
    _assert_nothing_was_done(world, world.register(0), requests=0)
    assert not (tmp_path / "nothing").exists() and file.read_text() == "precious\n"


@pytest.mark.parametrize("place", ["a link to a file", "a dangling link", "a folder", "a pipe"])
def test_what_is_no_file_in_the_locks_place_sends_nothing_and_holds_nobody(world: World, tmp_path: Path, place: str) -> None:
    world.cache.mkdir()
    lock, target = world.cache / ".lock", tmp_path / "target"
    if place == "a folder":
        lock.mkdir()
    elif place == "a pipe":
        os.mkfifo(lock)
    else:
        lock.symlink_to(target)
        if place == "a link to a file":
            target.write_text("precious\n")
    result = in_child(lambda: world.register(0))
    if place == "a pipe" and "failed" not in result:
        # A pipe that the system can lock does as well as a file: nothing is read from it or written to it.
        assert world.register(0)["reason"] == "up_to_date"
        return
    _assert_nothing_was_done(world, result, requests=0)
    assert not target.exists() or target.read_text() == "precious\n"


@pytest.mark.parametrize("refused", [False, True], ids=["accepted", "refused"])
@pytest.mark.parametrize("place", ["a pipe", "a socket", "a device"])
def test_what_is_no_file_in_the_records_place_is_a_warning_and_a_registration(world: World, place: str, refused: bool) -> None:
    world.register(0)
    record = world.record()
    record.unlink()
    if place == "a pipe":
        os.mkfifo(record)
    elif place == "a socket":
        os.mknod(record, 0o600 | stat.S_IFSOCK)
    else:
        try:
            os.mknod(record, 0o600 | stat.S_IFCHR, os.makedev(1, 5))  # /dev/zero: reading it never comes to an end
        except PermissionError:
            pytest.skip("only root can make a device")
    world.simulator.faults({NUMBER: [REFUSED] if refused else []})
    result = in_child(lambda: world.register(0))
    assert (result["reason"], result["attempts"], len(result["warnings"])) == ("unreadable", 1, 1)
    assert result.get("outcome") == ("rejected" if refused else None)
    world.simulator.faults({})
    assert world.register(0)["reason"] == ("absent" if refused else "up_to_date")


def test_an_empty_folder_in_the_records_place_is_a_warning_and_a_registration(world: World) -> None:
    world.register(0)
    record = world.record()
    record.unlink()
    record.mkdir()
    result = world.register(0)
    assert (result["reason"], result["attempts"], len(result["warnings"])) == ("unreadable", 1, 1)
    assert "failed" not in result and world.register(0)["reason"] == "up_to_date"


def test_a_folder_with_something_in_it_in_the_records_place_sends_nothing_and_stays(world: World) -> None:
    # Nothing that this module has made: somebody has to look at it.
    world.register(0)
    record = world.record()
    record.unlink()
    record.mkdir()
    (record / "precious").write_text("precious\n")
    checked = register(world.params(0), check_mode=True)
    assert checked["reason"] == "unreadable" and len(checked["warnings"]) == 1
    _assert_nothing_was_done(world, world.register(0), requests=1)
    assert (record / "precious").read_text() == "precious\n" and litter(world.cache) == set()


# --- records that are spoiled -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, keys: list[Key]) -> dict[str, bytes]:
    """Records as they are written: the first key's in both states, and another number's."""
    cache = tmp_path_factory.mktemp("written")
    made = {}
    for name, number in (("confirmed", NUMBER), ("unconfirmed", NUMBER), ("other number", OTHER_NUMBER)):
        file = RecordFile(str(cache), "api.in.kaleyra.io", SID, number)
        try:
            with file.exclusive(5), file.registering(keys[0].fingerprint):
                if name == "unconfirmed":
                    raise InterruptedError
        except InterruptedError:
            pass
        (path,) = cache.glob(f"*{number}.json")
        made[name] = path.read_bytes()
    return made


class Spoiled:
    """What a run would do with such bytes as the number's record."""

    def __init__(self, cache: Path) -> None:
        self.file = RecordFile(str(cache), "api.in.kaleyra.io", SID, NUMBER)
        self._content = b""
        self.file._content = lambda: self._content  # type: ignore[method-assign]

    def reason(self, content: bytes, fingerprint: str, cache_valid_time: int | None = None) -> str:
        self._content = content
        plan = make_plan(self.file, fingerprint, force=False, cache_valid_time=cache_valid_time)
        assert plan.changed == (plan.reason != "up_to_date")
        assert (plan.warning is not None) == (plan.reason == "unreadable")
        return plan.reason


@st.composite
def spoils(draw: st.DrawFn, whole: bytes, others: list[bytes]) -> bytes:
    content = bytearray(whole)
    for dummy in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(0, len(content) - 1)))
        kind = draw(st.sampled_from(["flip", "cut", "end", "insert", "repeat", "swap", "splice"]))
        if kind == "flip" and content:
            content[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "cut":
            del content[at : at + draw(st.integers(1, 16))]
        elif kind == "end":
            del content[at:]
        elif kind == "insert":
            content[at:at] = draw(st.binary(min_size=1, max_size=16))
        elif kind == "repeat":
            content[at:at] = content[at : at + draw(st.integers(1, 64))]
        elif kind == "swap":
            content = bytearray(draw(st.sampled_from(others)))
        elif kind == "splice":
            content[at:] = draw(st.sampled_from(others))[at:]
    return bytes(content)


PROPERTY = settings(
    database=None, deadline=None, max_examples=50 * ROUNDS, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@PROPERTY
@given(data=st.data())
def test_a_spoiled_record_never_counts_for_a_key_that_was_not_on_record(
    data: st.DataObject, tmp_path: Path, keys: list[Key], written: dict[str, bytes]
) -> None:
    spoiled = Spoiled(tmp_path)
    content = data.draw(spoils(written["confirmed"], [written["other number"]]))
    assert spoiled.reason(content, keys[1].fingerprint) != "up_to_date"
    # Those of other numbers and of what is under way count for no key at all.
    content = data.draw(spoils(written["other number"], [written["other number"]]))
    assert spoiled.reason(content, keys[0].fingerprint) != "up_to_date"


def _single_spoils(whole: bytes) -> Iterator[bytes]:
    """Each bit flipped, each byte replaced by each digit, each short stretch cut out, and every length that is too short."""
    for at in range(len(whole)):
        for byte in {*(whole[at] ^ 1 << bit for bit in range(8)), *b"0123456789"} - {whole[at]}:
            yield whole[:at] + bytes([byte]) + whole[at + 1 :]
        for end in range(at + 1, min(at + 24, len(whole))):
            yield whole[:at] + whole[end:]
        # The newline at the end apart, which says nothing.
        if at < len(whole) - 1:
            yield whole[:at]


def test_no_single_mishap_makes_an_unconfirmed_record_count(tmp_path: Path, keys: list[Key], written: dict[str, bytes]) -> None:
    spoiled = Spoiled(tmp_path)
    assert spoiled.reason(written["unconfirmed"], keys[0].fingerprint) == "unconfirmed"
    lies = {c for c in _single_spoils(written["unconfirmed"]) if spoiled.reason(c, keys[0].fingerprint) == "up_to_date"}
    assert lies == set()


def test_no_single_mishap_makes_another_numbers_record_count(tmp_path: Path, keys: list[Key], written: dict[str, bytes]) -> None:
    spoiled = Spoiled(tmp_path)
    whole = written["other number"]
    assert spoiled.reason(whole, keys[0].fingerprint) == "unreadable"
    lies = {c for c in _single_spoils(whole) if spoiled.reason(c, keys[0].fingerprint) == "up_to_date"}
    assert lies == set()


def test_no_single_mishap_makes_an_old_record_count_again(
    tmp_path: Path, keys: list[Key], written: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    _shift_clock(monkeypatch, days=400)
    spoiled = Spoiled(tmp_path)
    assert spoiled.reason(written["confirmed"], keys[0].fingerprint, 86400 * 90) == "expired"
    lies = {c for c in _single_spoils(written["confirmed"]) if spoiled.reason(c, keys[0].fingerprint, 86400 * 90) == "up_to_date"}
    assert lies == set()


def _shift_clock(monkeypatch: pytest.MonkeyPatch, **time_passed: float) -> None:
    """Let the records' clock go ahead of the real one."""
    import datetime
    import types

    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:  # type: ignore[override]
            return datetime.datetime.now(tz) + datetime.timedelta(**time_passed)

    monkeypatch.setattr(_record, "datetime", types.SimpleNamespace(datetime=Clock, timezone=datetime.timezone))


@settings(PROPERTY, max_examples=8 * ROUNDS)
@given(data=st.data())
def test_a_spoiled_record_in_its_place_is_never_a_failure(
    data: st.DataObject, world: World, keys: list[Key], tmp_path: Path
) -> None:
    if not world.cache.exists():
        world.register(0)
        world.register(0, OTHER_NUMBER)
    other = world.record(OTHER_NUMBER).read_bytes()
    record = world.record()
    assert "failed" not in world.register(0)
    record.write_bytes(data.draw(spoils(record.read_bytes(), [other])))
    wanted = data.draw(st.integers(0, 1))
    sent = world.simulator.count()
    result = world.register(wanted)
    assert "failed" not in result
    assert world.simulator.count() - sent == result["attempts"]
    # Either the very same meaning, or a registration; a warning where it could not be read.
    assert (result["reason"] == "up_to_date") == (result["attempts"] == 0)
    assert wanted == 0 or result["attempts"] == 1
    assert bool(result["warnings"]) == (result["reason"] == "unreadable")
    assert world.held()[NUMBER] == keys[wanted].fingerprint
    world.register(0)


# --- two processes on one number --------------------------------------------------------------------------------------


def test_two_processes_on_one_number_leave_what_the_api_holds_however_cache_path_is_spelled(
    world: World, tmp_path: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.cache.mkdir()
    link = tmp_path / "link"
    link.symlink_to(world.cache)
    monkeypatch.chdir(tmp_path)
    spellings = [str(world.cache), f"{world.cache}/", f"./{world.cache.name}", world.cache.name, f"{link}", f"{world.cache}/../{link.name}//"]
    states: collections.Counter[str] = collections.Counter()
    for dummy in range(8 * ROUNDS):
        answers = [{**rng.choices([APPLIED, LOST, REFUSED], [6, 1, 1])[0], "delay": rng.uniform(0, 0.04)} for dummy in range(2)]
        world.simulator.faults({NUMBER: answers})
        pauses = rng.uniform(0, 0.01), rng.uniform(0, 0.01)

        def work(key: int, spelling: str, pause: float) -> Callable[[], Any]:
            def registration() -> Any:
                time.sleep(pause)
                return world.register(key, cache_path=spelling)

            return registration

        children = [Child(work(key, rng.choice(spellings), pauses[key])) for key in (0, 1)]
        results = [child.wait() for child in children]
        for result in results:
            assert "failed" not in result or result["outcome"] in ("unknown", "rejected"), result
        fields = records(world.cache).get(NUMBER)
        state = fields["state"] if fields else "absent"
        states[state] += 1
        if fields:
            assert_no_lie(world.cache, world.held())
        if state == "confirmed":
            # Nobody's success is forgotten: what is on record is the key of one who succeeded, or what was there before.
            assert fields is not None and fields["fingerprint"] in {key.fingerprint for key in world.keys}
    print(f"{8 * ROUNDS} rounds of two processes: {dict(states)}")
    assert states["confirmed"]
    assert litter(world.cache) == set()


def test_many_processes_with_the_same_key_send_one_request(world: World) -> None:
    children = [Child(lambda: world.register(0)) for dummy in range(8)]
    results = [child.wait() for child in children]
    assert sorted(result["reason"] for result in results) == ["absent"] + ["up_to_date"] * 7
    assert world.simulator.count() == 1


@pytest.mark.parametrize("spelling", ["{}", "{}/", "./records", "records", "link", "link/../records"])
def test_a_process_waits_for_the_one_that_registers_the_same_number(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spelling: str
) -> None:
    world.cache.mkdir()
    (tmp_path / "link").symlink_to(world.cache)
    monkeypatch.chdir(tmp_path)
    world.simulator.faults({NUMBER: [{**APPLIED, "delay": 0.4}]})
    first = Child(lambda: world.register(0))
    while world.simulator.count() < 1:
        time.sleep(0.01)
    # Its request comes after the first one's answer, or else its short answer would be followed by the first one's record.
    second = in_child(lambda: world.register(1, cache_path=spelling.format(world.cache)))
    assert (second["reason"], second["previous_fingerprint"]) == ("different", world.keys[0].fingerprint)
    assert "failed" not in first.wait()
    assert records(world.cache)[NUMBER]["fingerprint"] == world.held()[NUMBER] == world.keys[1].fingerprint
