# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rotations that are killed after a step and run again: the same end, with one new key and not two."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.playbook_runs import Playbooks
from support.rotation import AFTER, DAY, World
from support.simulator.client import Simulator


@pytest.fixture
def world(playbooks: Playbooks, simulator: Simulator, tmp_path: Path) -> Iterator[World]:
    made = World(playbooks, simulator, tmp_path)
    with made.endpoint:
        made.register()
        yield made


# Steps after which the whole run is killed, and how many of their results come before; the module's own steps are killed between any two
# calls of the system in tests/unit/plugins/module_utils/test_key_files.py.
STEPS = [
    ("Create the next private key", 0),
    ("Stage the next key pair", 0),
    ("List the private keys", 0),
    ("Register the public key of each number", 0),
    ("Register the public key of each number", 1),
    ("Promote the next key", 0),
    ("List the private keys", 1),
    ("Remove the other names of the current key", 0),
]


@pytest.mark.parametrize("steps", [STEPS[::2], STEPS[1::2]], ids=["from-create", "from-stage"])
def test_killed_rotation_ends_with_one_new_key(world: World, steps: list[tuple[str, int]]) -> None:
    """Each run begins where the one before was killed, and is killed two steps later."""
    old, staged = world.fingerprint(world.current), set()
    for step in steps:
        world.rotate(kill_after=step)
        # Whatever the numbers carry now, an endpoint that is restarted now still decrypts.
        served = {world.fingerprint(Path(path)) for path in world.endpoint.keys.read_text().splitlines()}
        assert {old, *world.carried()} <= served
        staged |= {world.fingerprint(world.next)} if world.next.exists() else set()
        # A key that was created, but not staged, is used by whichever host comes first.
        world.numbers.reverse()

    run = world.rotate()
    assert run.rc == 0, run.output
    new = world.fingerprint(world.current)
    assert new != old and world.fingerprint(world.previous) == old
    assert staged == {new}
    assert world.carried() == [new, new] and world.files() == AFTER

    if steps[0] == STEPS[0]:
        return
    # The removal of the previous key, too, is completed.
    world.age(world.keys / "private.previous.pub.pem", 8 * DAY)
    world.rotate(kill_after=("Make the endpoint load the keys", 1))
    assert world.endpoint.keys.read_text().splitlines() == [str(world.current)]
    run = world.rotate(flows_encryption_keep_previous="0")
    assert run.rc == 0 and world.files() == {"private.pem", "private.pub.pem"}, run.output
    assert world.fingerprint(world.current) == new and world.carried() == [new, new]
