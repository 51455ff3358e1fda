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


@pytest.mark.parametrize("step", STEPS, ids=lambda step: f"{step[0]} {step[1] + 1}")
def test_killed_rotation_ends_with_one_new_key(world: World, step: tuple[str, int]) -> None:
    old = world.fingerprint(world.current)
    world.rotate(kill_after=step)

    # Whatever the numbers carry now, an endpoint that is restarted now still decrypts.
    served = {world.fingerprint(Path(path)) for path in world.endpoint.keys.read_text().splitlines()}
    assert set(world.carried()) <= served
    assert served >= {old}
    staged = world.fingerprint(world.next) if world.next.exists() else None

    assert world.rotate().rc == 0
    new = world.fingerprint(world.current)
    assert new != old and world.fingerprint(world.previous) == old
    assert staged in (None, new)
    assert world.carried() == [new, new] and world.files() == AFTER


def test_unplaced_key_is_removed_by_any_first_host(world: World) -> None:
    world.rotate(kill_after=("Create the next private key", 0))
    assert len(world.files()) == 3 and not world.next.exists()
    world.numbers.reverse()
    run = world.rotate()
    assert run.rc == 0 and world.files() == AFTER, run.output


def test_killed_removal_is_completed(world: World) -> None:
    assert world.rotate().rc == 0
    new = world.fingerprint(world.current)
    world.age(world.keys / "private.previous.pub.pem", 8 * DAY)
    world.rotate(kill_after=("Make the endpoint load the keys", 1))
    assert world.endpoint.keys.read_text().splitlines() == [str(world.current)]
    run = world.rotate(flows_encryption_keep_previous="0")
    assert run.rc == 0 and world.files() == {"private.pem", "private.pub.pem"}, run.output
    assert world.fingerprint(world.current) == new and world.carried() == [new, new]
