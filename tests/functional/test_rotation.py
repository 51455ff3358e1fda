# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rotation through real runs: an endpoint of another making, keys made by openssl's own tasks, runs, plays and key pairs that meet."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._errors import OutcomeUnknown
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._record import RecordFile
from support.endpoint.client import Phone
from support.keys import KeyPair, fingerprint_of, openssl, public_of
from support.playbook_runs import SID, WA_400, Playbooks, new_number
from support.processes import register_all
from support.rotation import AFTER, DAY, World
from support.simulator.client import Simulator

ROLE = {"ansible.builtin.include_role": {"name": "kaleyra.whatsapp.flows_encryption", "tasks_from": "rotate"}}
PLAY = {"hosts": "all", "gather_facts": False, "tasks": [ROLE]}


@pytest.fixture
def make_world(playbooks: Playbooks, simulator: Simulator, tmp_path: Path) -> Iterator[Callable[..., World]]:
    with contextlib.ExitStack() as stack:

        def make(name: str = "one", **options: str) -> World:
            (tmp_path / name).mkdir()
            world = World(playbooks, simulator, tmp_path / name, **options)
            stack.enter_context(world.endpoint)
            world.register()
            return world

        yield make


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world()


def inventory_of(*worlds: World, **variables: Any) -> dict[str, Any]:
    return {"all": {"hosts": {number: {**world.variables, **variables} for world in worlds for number in world.numbers}}}


def assert_nothing_lost(world: World) -> None:
    readable = {world.fingerprint(path) for path in (world.current, world.next, world.previous) if path.exists()}
    served = {world.fingerprint(Path(path)) for path in world.endpoint.keys.read_text().splitlines() if Path(path).exists()}
    assert set(world.carried()) <= readable & served


def assert_rotated(world: World, old: str) -> None:
    new = world.fingerprint(world.current)
    assert new != old and world.carried() == [new, new] and world.fingerprint(world.previous) == old
    assert world.files() == AFTER


def test_rotation_in_four_runs(world: World) -> None:
    """Check, real, check, real: the first two announce a rotation, the last two find nothing to do."""
    old, requests, files = world.fingerprint(world.current), world.simulator.count(), world.files()
    # From the folder that the run is started in, not that of the collection's playbook.
    world.variables["flows_encryption_private_key_path"] = os.path.relpath(world.current, world.playbooks.inputs)

    checked = world.rotate("--check", "--diff")
    assert checked.rc == 0, checked.output
    assert "A rotation begins" in checked.text
    assert (world.files(), world.simulator.count(), world.carried()) == (files, requests, [old, old])

    done = world.rotate("--diff")
    assert done.rc == 0, done.output
    assert_rotated(world, old)
    assert "The next key is promoted" in done.text
    assert (world.keys / "private.pub.pem").read_text() == public_of(world.current)
    assert (world.keys / "private.previous.pub.pem").read_text() == public_of(world.previous)
    assert {path.stat().st_mode & 0o777 for path in (world.current, world.previous)} == {0o600}

    requests, carried = world.simulator.count(), world.carried()
    for args in (["--check", "--diff"], []):
        again = world.rotate(*args)
        assert again.rc == 0 and again.changed() == 0, again.output
        assert "The previous key is kept until" in again.text
        assert (world.files(), world.simulator.count(), world.carried()) == (AFTER, requests, carried)


@pytest.mark.slow
def test_promotion_waits_for_endpoint_and_numbers(world: World) -> None:
    """One run after the other, each with something else that is missing."""
    old, requests = world.fingerprint(world.current), world.simulator.count()
    first, second = world.numbers

    # The endpoint holds the current key alone. The key's module fails once, as if another run had just removed the file that it has found.
    once = f"""if mkdir {world.folder}/once; then echo '{{"failed": true, "msg": "No such file"}}'; exit 1; fi"""
    script = world.playbooks.interpreter.read_text()
    world.playbooks.interpreter.write_text(script.replace("\n", f"\ncase $1 in *_openssl_privatekey.py) {once} ;; esac\n", 1))
    run = world.rotate(**world.deploy_nothing(), ansible_pipelining=False)
    world.playbooks.interpreter.write_text(script)
    assert run.failed() == {first, second}, run.output
    assert "HTTP 421" in run.text and "No key was registered in this run." in run.text
    assert (world.simulator.count(), world.carried()) == (requests, [old, old])
    next_key = world.fingerprint(world.next)

    world.simulator.faults({second: [WA_400]})
    run = world.rotate()
    assert run.failed() == {second}, run.output
    assert "not promoted yet" in run.text and f"without the key in this run: {second}" in run.text
    # Both keys are still served.
    assert {world.fingerprint(Path(path)) for path in world.endpoint.keys.read_text().splitlines()} == {old, next_key}
    # A check meanwhile finds nothing wrong.
    check = world.playbooks.run("kaleyra.whatsapp.flows_check", world.inventory())
    assert check.rc == 0 and "2 numbers: 1 ok, 1 in rotation." in check.text and "holds the next key" in check.text, check.output

    # Outside the run, while its record is in doubt about a third key.
    record = RecordFile(str(world.folder / "records"), world.simulator.url.partition("://")[2], SID, second)
    with pytest.raises(OutcomeUnknown), record.registering(":".join(["ab"] * 32)):
        raise OutcomeUnknown("no answer")
    run = world.rotate("--limit", first, flows_encryption_keep_previous=0)
    assert run.rc == 0 and "this run is limited" in run.text, run.output
    assert f"remove the records of those that no longer exist): {second}" in run.text
    assert world.carried() == [next_key, old] and world.fingerprint(world.current) == old
    assert_nothing_lost(world)

    run = world.rotate()
    assert run.rc == 0 and "continues with the existing next key" in run.text, run.output
    assert_rotated(world, old)
    assert world.fingerprint(world.current) == next_key


@pytest.mark.slow
def test_previous_key_is_removed_after_its_time(world: World, key: KeyPair, other_key: KeyPair) -> None:
    """But not while a number may carry it: by its record, or as it is read back, whatever its record says."""
    world.previous.write_text(other_key.private)
    world.previous.chmod(0o600)
    public = world.keys / "private.previous.pub.pem"
    public.write_text(other_key.public)
    world.age(public, 8 * DAY)
    world.age(world.current, 0)
    world.simulator.configure(kaleyra_get="data")
    elsewhere, (first, second) = new_number(), world.numbers
    register_all(world.simulator.url, world.folder / "records", [elsewhere], key.public)
    world.simulator.hold({elsewhere: other_key.public})
    (record,) = (world.folder / "records").glob(f"*{first}.json")
    confirmed = record.read_text()
    record.write_text("spoiled")
    options: dict[str, Any] = {"flows_encryption_read_back": "kaleyra"}

    world.numbers = [second]
    run = world.rotate(**options)
    assert run.rc == 0 and "The previous key is not removed yet" in run.text and world.files() == AFTER, run.output
    assert first in run.text and elsewhere in run.text
    record.write_text(confirmed)
    world.simulator.hold({elsewhere: key.public})

    world.numbers = [first, second]
    for args in (["--check"], []):
        run = world.rotate(*args, **options)
        assert run.rc == 0 and f"The previous key {'would be' if args else 'is'} removed." in run.text, run.output
    assert world.files() == {"private.pem", "private.pub.pem"}
    assert world.endpoint.keys.read_text().splitlines() == [str(world.current)]
    for args in (["--check"], []):
        run = world.rotate(*args, **options)
        assert run.rc == 0 and run.changed() == 0 and "No rotation begins" in run.text, run.output
    assert world.carried() == [world.fingerprint(world.current)] * 2


@pytest.mark.slow
def test_key_made_elsewhere_rotates_without_files(world: World) -> None:
    old = world.fingerprint(world.current)
    elsewhere = world.folder / "elsewhere.pem"
    openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", elsewhere)
    new, files = world.fingerprint(elsewhere), world.files()
    keys = {
        "flows_encryption_public_key": public_of(elsewhere),
        "flows_encryption_previous_public_key": public_of(world.current),
        "flows_encryption_private_key_path": "",
        **world.deploy_nothing(),
    }
    run = world.rotate(**keys)
    assert run.failed() == set(world.numbers) and world.carried() == [old, old], run.output
    world.endpoint.hold([world.current, elsewhere])
    world.endpoint.reload()
    for args, changed in ((["--check"], 2), ([], 2), (["--check"], 0), ([], 0)):
        run = world.rotate(*args, **keys)
        assert run.rc == 0 and run.changed() == changed, run.output
    assert world.carried() == [new, new] and world.files() == files


@pytest.mark.slow
def test_no_message_is_lost_under_load(make_world: Callable[..., World]) -> None:
    """Phones keep the public key that they know until the endpoint answers 421; also while the previous key is removed."""
    world = make_world(passphrase="19910213")
    world.variables["flows_encryption_private_key_passphrase"] = 19910213  # as YAML reads it without quotes
    pems: dict[str, str] = {}

    def registered_now() -> str:
        for path in world.keys.glob("*.pub.pem"):
            if path.read_text():
                pems[fingerprint_of(path.read_text())] = path.read_text()
        return pems[world.carried()[0]]

    with Phone(world.endpoint.url, registered_now) as cached, Phone(world.endpoint.url, registered_now) as other:
        assert world.rotate().rc == 0
        assert cached.fetched == 0  # the endpoint held the key that it knows all the time
        sent = cached.sent
        run = world.rotate(flows_encryption_retire_previous=True)
        assert run.rc == 0, run.output
        other.send("one more")
    assert cached.lost == other.lost == []
    assert sent > 20 and cached.fetched == other.fetched == 1


@pytest.mark.slow
def test_two_plays_rotate_once(world: World) -> None:
    """Also where each would begin a rotation by its options, and each host of the first does the steps by itself; the second has batches."""
    old, requests = world.fingerprint(world.current), world.simulator.count()
    plays = [{**PLAY, "strategy": "ansible.builtin.free"}, {**PLAY, "serial": 1}]
    run = world.playbooks.run(plays, inventory_of(world, flows_encryption_rotate_after=0, flows_encryption_keep_previous=0))
    assert run.rc == 0, run.output
    new = world.fingerprint(world.current)
    assert new != old and world.carried() == [new, new] and world.files() == {"private.pem", "private.pub.pem"}
    assert world.simulator.count() == requests + 2


def test_two_runs_at_once_lose_no_key(world: World, simulator: Simulator, tmp_path: Path) -> None:
    old = world.fingerprint(world.current)
    (tmp_path / "other").mkdir()
    playbooks = [world.playbooks, Playbooks(tmp_path / "other", simulator.url)]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        runs = list(pool.map(lambda each: each.run([PLAY], inventory_of(world)), playbooks))
    assert any(run.rc == 0 for run in runs), "\n".join(run.output for run in runs)
    assert_nothing_lost(world)
    for run in runs:
        assert run.rc == 0 or "Another run has changed them" in run.text, run.output
    if world.files() != AFTER:  # each was stopped by the other
        assert world.rotate().rc == 0
    assert_rotated(world, old)


@pytest.mark.slow
def test_failing_host_holds_back_its_own_pair(make_world: Callable[..., World], simulator: Simulator) -> None:
    """In batches, the second one of two pairs: one host is refused, and the key host of others cannot be reached. Paths are the play's."""
    worlds = good, refused, unreachable = make_world("good"), make_world("refused"), make_world("unreachable")
    old = [world.fingerprint(world.current) for world in worlds]
    simulator.faults({refused.numbers[1]: [WA_400]})
    inventory = inventory_of(*worlds)
    for variables in inventory["all"]["hosts"].values():
        variables["path_of_key"] = variables.pop("flows_encryption_private_key_path")
    for number in unreachable.numbers:
        inventory["all"]["hosts"][number]["flows_encryption_key_host"] = "gone"
    inventory["all"]["hosts"]["gone"] = {"ansible_connection": "ssh"}
    # What hosts did in an earlier play with another pair's path (check mode) excuses nobody.
    path = {"vars": {"flows_encryption_private_key_path": str(good.current)}}
    earlier = {**PLAY, "hosts": ",".join(refused.numbers), "tasks": [{**ROLE, **path}], "check_mode": True, "ignore_errors": True}
    play = {**PLAY, "hosts": "all:!gone", "serial": [2, 4], "vars": {"flows_encryption_private_key_path": "{{ path_of_key }}"}}
    run = good.playbooks.run([earlier, play], inventory)
    assert run.failed() == {refused.numbers[1], *unreachable.numbers}, run.output
    assert_rotated(good, old[0])
    assert refused.fingerprint(refused.current) == old[1] and refused.next.exists()
    assert f"without the key in this run: {refused.numbers[1]}" in run.text and "The key host gone cannot be reached" in run.text
    assert_nothing_lost(refused)
    assert unreachable.carried() == [old[2]] * 2 and unreachable.files() == {"private.pem", "private.pub.pem"}


@pytest.mark.slow
def test_loop_over_two_pairs_of_one_host(make_world: Callable[..., World], simulator: Simulator, tmp_path: Path) -> None:
    """What the first pair's run has found, and its failure, do not count for the second one."""
    worlds = one, two = make_world("one"), make_world("two")
    old = [world.fingerprint(world.current) for world in worlds]
    simulator.faults({one.numbers[1]: [WA_400]})
    pairs = [{**world.variables, "flows_encryption_phone_numbers": world.numbers} for world in worlds]
    tasks = tmp_path / "rotate_pair.yml"
    rescue = {"ansible.builtin.debug": {"msg": "The pair was not rotated."}}
    tasks.write_text(json.dumps([{"block": [{**ROLE, "vars": {name: f"{{{{ pair.{name} }}}}" for name in pairs[0]}}], "rescue": [rescue]}]))
    loop = {"loop": pairs, "loop_control": {"loop_var": "pair", "label": ""}}
    include = {"name": "Rotate each pair", "ansible.builtin.include_tasks": str(tasks), **loop}
    run = one.playbooks.run([{**PLAY, "tasks": [include]}], {"all": {"hosts": {"shop": {"ansible_connection": "local"}}}})
    assert run.rc == 0 and run.recap["shop"]["rescued"] == 1 and "WA-400" in run.text, run.output
    assert one.carried() == [one.fingerprint(one.next), old[0]]
    assert one.fingerprint(one.current) == old[0] and one.next.exists()
    assert_nothing_lost(one)
    assert_rotated(two, old[1])
