# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rotations that meet: several runs, plays, batches and key pairs, hosts that fail, records in doubt, other time zones."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._errors import OutcomeUnknown
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._record import RecordFile
from support.playbook_runs import SID, WA_400, Playbooks, Run
from support.rotation import AFTER, World
from support.simulator.client import Simulator

ROLE = {"ansible.builtin.include_role": {"name": "kaleyra.whatsapp.flows_encryption", "tasks_from": "rotate"}}
PLAY = {"hosts": "all", "gather_facts": False, "tasks": [ROLE]}


@pytest.fixture
def make_world(playbooks: Playbooks, simulator: Simulator, tmp_path: Path) -> Iterator[Callable[[str], World]]:
    worlds: list[World] = []

    def make(name: str) -> World:
        (tmp_path / name).mkdir()
        world = World(playbooks, simulator, tmp_path / name)
        world.endpoint.__enter__()
        worlds.append(world)
        world.register()
        return world

    yield make
    for world in worlds:
        world.endpoint.__exit__(None, None, None)


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


def test_two_plays_rotate_once(make_world: Callable[[str], World]) -> None:
    """Also where each of them would begin a rotation by its options."""
    world = make_world("one")
    old = world.fingerprint(world.current)
    run = world.playbooks.run([PLAY, PLAY], inventory_of(world, flows_encryption_rotate_after=0, flows_encryption_keep_previous=0))
    assert run.rc == 0, run.output
    new = world.fingerprint(world.current)
    assert new != old and world.carried() == [new, new] and world.files() == {"private.pem", "private.pub.pem"}
    assert len(run.of("Create the next private key")) == 1


def test_two_runs_at_once(make_world: Callable[[str], World], simulator: Simulator, tmp_path: Path) -> None:
    world = make_world("one")
    old = world.fingerprint(world.current)
    (tmp_path / "other").mkdir()
    other = Playbooks(tmp_path / "other", simulator.url)
    runs: list[Run] = []
    threads = [
        threading.Thread(target=lambda books=books: runs.append(books.run([PLAY], inventory_of(world)))) for books in (world.playbooks, other)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(runs) == 2 and any(run.rc == 0 for run in runs), "\n".join(run.output for run in runs)
    assert_nothing_lost(world)
    for run in runs:
        assert run.rc == 0 or "Another run has changed them" in run.text, run.output
    assert world.rotate().rc == 0
    assert_rotated(world, old)


def test_serial_two_pairs(make_world: Callable[[str], World]) -> None:
    """Each batch has the hosts of one key pair, whose path is a variable of the play."""
    worlds = [make_world("one"), make_world("two")]
    old = [world.fingerprint(world.current) for world in worlds]
    inventory = inventory_of(*worlds)
    for variables in inventory["all"]["hosts"].values():
        variables["path_of_key"] = variables.pop("flows_encryption_private_key_path")
    play = {**PLAY, "serial": 2, "vars": {"flows_encryption_private_key_path": "{{ path_of_key }}"}}
    run = worlds[0].playbooks.run([play], inventory)
    assert run.rc == 0, run.output
    for world, fingerprint in zip(worlds, old, strict=True):
        assert_rotated(world, fingerprint)


def test_refused_host_holds_back_its_own_pair(make_world: Callable[[str], World], simulator: Simulator) -> None:
    one, two = make_world("one"), make_world("two")
    old = [one.fingerprint(one.current), two.fingerprint(two.current)]
    simulator.faults({two.numbers[1]: [WA_400]})
    # What the hosts of the second pair did in an earlier play with the first one's path (check mode) excuses nobody.
    path = {"vars": {"flows_encryption_private_key_path": str(one.current)}}
    earlier = {**PLAY, "hosts": ",".join(two.numbers), "tasks": [{**ROLE, **path}], "check_mode": True, "ignore_errors": True}
    run = one.playbooks.run([earlier, PLAY], inventory_of(one, two))
    assert run.failed() == {two.numbers[1]}, run.output
    assert_rotated(one, old[0])
    assert two.fingerprint(two.current) == old[1] and two.next.exists()
    assert f"without the key in this run: {two.numbers[1]}" in run.text
    assert_nothing_lost(two)


@pytest.mark.slow
def test_loop_over_two_pairs_of_one_host(make_world: Callable[[str], World], simulator: Simulator, tmp_path: Path) -> None:
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


def test_unreachable_key_host(make_world: Callable[[str], World]) -> None:
    one, two = make_world("one"), make_world("two")
    old = [one.fingerprint(one.current), two.fingerprint(two.current)]
    inventory = inventory_of(one, two)
    for number in two.numbers:
        inventory["all"]["hosts"][number]["flows_encryption_key_host"] = "gone"
    inventory["all"]["hosts"]["gone"] = {"ansible_host": "127.0.0.1", "ansible_port": 1, "ansible_connection": "ssh"}
    run = one.playbooks.run([{**PLAY, "hosts": "all:!gone"}], inventory)
    assert run.failed() == set(two.numbers), run.output
    assert "The key host gone cannot be reached" in run.text
    assert_rotated(one, old[0])
    assert two.carried() == [old[1]] * 2 and two.files() == {"private.pem", "private.pub.pem"}


def test_unconfirmed_record_of_a_third_key(make_world: Callable[[str], World], simulator: Simulator) -> None:
    world = make_world("one")
    old, third = world.fingerprint(world.current), ":".join(["ab"] * 32)
    record = RecordFile(str(world.folder / "records"), simulator.url.partition("://")[2], SID, world.numbers[1])
    with pytest.raises(OutcomeUnknown), record.registering(third):
        raise OutcomeUnknown("no answer")
    everyone, world.numbers = world.numbers, world.numbers[:1]
    run = world.rotate(flows_encryption_keep_previous=0)
    assert run.rc == 0 and f"those that no longer exist): {everyone[1]}" in run.text, run.output
    world.numbers = everyone
    assert world.fingerprint(world.current) == old
    assert_nothing_lost(world)
