# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rotation through real runs: an endpoint of another making, a phone that keeps sending, keys made by openssl's own tasks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.endpoint.client import Phone
from support.keys import KeyPair, fingerprint_of, openssl
from support.playbook_runs import WA_400, Playbooks, new_number
from support.processes import register_all
from support.rotation import AFTER, DAY, World
from support.simulator.client import Simulator


@pytest.fixture
def world(playbooks: Playbooks, simulator: Simulator, tmp_path: Path) -> Iterator[World]:
    made = World(playbooks, simulator, tmp_path)
    with made.endpoint:
        made.register()
        yield made


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
    new = world.fingerprint(world.current)
    assert new != old and world.fingerprint(world.previous) == old
    assert world.carried() == [new, new]
    assert world.files() == AFTER
    assert "The next key is promoted" in done.text
    assert (world.keys / "private.pub.pem").read_text() == openssl("pkey", "-in", world.current, "-pubout")
    assert (world.keys / "private.previous.pub.pem").read_text() == openssl("pkey", "-in", world.previous, "-pubout")
    assert {path.stat().st_mode & 0o777 for path in (world.current, world.previous)} == {0o600}

    requests = world.simulator.count()
    for args in (["--check", "--diff"], []):
        again = world.rotate(*args)
        assert again.rc == 0 and again.changed() == 0, again.output
        assert "The previous key is kept until" in again.text
        assert (world.files(), world.simulator.count(), world.carried()) == (AFTER, requests, [new, new])


@pytest.mark.slow
def test_next_key_waits_for_an_endpoint_with_both(world: World) -> None:
    old, requests = world.fingerprint(world.current), world.simulator.count()
    # The current key alone, then the next one alone.
    run = world.rotate(**world.deploy_nothing())
    assert run.failed() == set(world.numbers), run.output
    assert "HTTP 421" in run.text and "No key was registered in this run." in run.text
    next_key = world.fingerprint(world.next)
    world.endpoint.hold([world.next])
    world.endpoint.reload()
    run = world.rotate(**world.deploy_nothing())
    assert run.failed() == set(world.numbers), run.output
    assert (world.simulator.count(), world.carried()) == (requests, [old, old])

    assert world.rotate().rc == 0
    assert world.carried() == [next_key, next_key] and world.fingerprint(world.current) == next_key


@pytest.mark.slow
def test_failed_number_leaves_the_rotation_to_resume(world: World) -> None:
    old = world.fingerprint(world.current)
    world.simulator.faults({world.numbers[0]: [WA_400]})
    run = world.rotate()
    assert run.failed() == {world.numbers[0]}, run.output
    next_key = world.fingerprint(world.next)
    assert world.carried() == [old, next_key] and world.fingerprint(world.current) == old
    assert "not promoted yet" in run.text and f"without the key in this run: {world.numbers[0]}" in run.text
    # Both keys are still served.
    served = {world.fingerprint(Path(path)) for path in world.endpoint.keys.read_text().splitlines()}
    assert served == {old, next_key}
    # A check meanwhile finds nothing wrong.
    check = world.playbooks.run("kaleyra.whatsapp.flows_check", world.inventory())
    assert check.rc == 0 and "2 numbers: 1 ok, 1 in rotation." in check.text and "holds the next key" in check.text, check.output

    run = world.rotate()
    assert run.rc == 0 and "continues with the existing next key" in run.text, run.output
    assert world.carried() == [next_key, next_key] and world.fingerprint(world.current) == next_key
    assert world.files() == AFTER


@pytest.mark.slow
def test_number_outside_the_run_prevents_promotion(world: World) -> None:
    """Left out by --limit, or missing in the inventory while a record says that they carry the current key."""
    old = world.fingerprint(world.current)
    run = world.rotate("--limit", world.numbers[0])
    assert run.rc == 0 and "this run is limited" in run.text, run.output
    next_key = world.fingerprint(world.next)
    assert world.carried() == [next_key, old]

    everyone = world.numbers
    world.numbers = everyone[:1]
    run = world.rotate()
    assert run.rc == 0 and f"remove the records of those that no longer exist): {everyone[1]}" in run.text
    assert world.fingerprint(world.current) == old

    world.numbers = everyone
    assert world.rotate().rc == 0
    assert world.carried() == [next_key, next_key] and world.fingerprint(world.current) == next_key


@pytest.mark.slow
def test_previous_key_is_removed_after_its_time(world: World) -> None:
    world.rotate()
    new = world.fingerprint(world.current)
    world.age(world.keys / "private.previous.pub.pem", 8 * DAY)
    # Not while a number may carry it, whose registration has not been confirmed for example.
    record = next(path for path in (world.folder / "records").glob("*.json") if world.numbers[0] in path.name)
    confirmed = record.read_text()
    record.write_text("spoiled")
    everyone, world.numbers = world.numbers, world.numbers[1:]
    run = world.rotate()
    assert run.rc == 0 and "The previous key is not removed yet" in run.text and world.files() == AFTER, run.output
    record.write_text(confirmed)
    world.numbers = everyone

    for args in (["--check"], []):
        run = world.rotate(*args)
        assert run.rc == 0 and f"The previous key {'would be' if args else 'is'} removed." in run.text, run.output
    assert world.files() == {"private.pem", "private.pub.pem"}
    assert world.endpoint.keys.read_text().splitlines() == [str(world.current)]
    for args in (["--check"], []):
        run = world.rotate(*args)
        assert run.rc == 0 and run.changed() == 0 and "No rotation begins" in run.text, run.output
    assert world.carried() == [new, new]


@pytest.mark.slow
def test_key_made_elsewhere_rotates_without_files(world: World) -> None:
    old = world.fingerprint(world.current)
    elsewhere = world.folder / "elsewhere.pem"
    openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", elsewhere)
    new, files = world.fingerprint(elsewhere), world.files()
    keys = {
        "flows_encryption_public_key": openssl("pkey", "-in", elsewhere, "-pubout"),
        "flows_encryption_previous_public_key": openssl("pkey", "-in", world.current, "-pubout"),
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
def test_free_strategy_rotates_once(world: World) -> None:
    role = {"name": "kaleyra.whatsapp.flows_encryption", "tasks_from": "rotate"}
    play = {"hosts": "all", "gather_facts": False, "tasks": [{"ansible.builtin.include_role": role}], "strategy": "free"}
    old = world.fingerprint(world.current)
    run = world.playbooks.run([play], world.inventory())
    assert run.rc == 0, run.output
    new = world.fingerprint(world.current)
    assert new != old and world.carried() == [new, new] and world.files() == AFTER


@pytest.mark.slow
def test_no_message_is_lost_under_load(playbooks: Playbooks, simulator: Simulator, tmp_path: Path) -> None:
    """Phones keep the public key that they know until the endpoint answers 421; also while the previous key is removed."""
    world = World(playbooks, simulator, tmp_path, passphrase="19910213")
    world.variables["flows_encryption_private_key_passphrase"] = 19910213  # as YAML reads it without quotes
    pems: dict[str, str] = {}

    def registered_now() -> str:
        for path in world.keys.glob("*.pub.pem"):
            if path.read_text():
                pems[fingerprint_of(path.read_text())] = path.read_text()
        return pems[world.carried()[0]]

    with world.endpoint:
        world.register()
        with Phone(world.endpoint.url, registered_now) as cached, Phone(world.endpoint.url, registered_now) as other:
            assert world.rotate().rc == 0
            assert cached.fetched == 0  # the endpoint held the key that it knows all the time
            sent = cached.sent
            run = world.rotate(flows_encryption_retire_previous=True)
            assert run.rc == 0, run.output
            other.send("one more")
    assert cached.lost == other.lost == []
    assert sent > 20 and cached.fetched == other.fetched == 1
    print(f"{cached.sent + other.sent} messages, none lost")


@pytest.mark.slow
def test_key_that_a_number_is_seen_to_carry_is_kept(world: World) -> None:
    """Its record names a third key, so that nothing but reading back tells."""
    old, third, elsewhere = world.fingerprint(world.current), KeyPair.make("RSA", "rsa_keygen_bits:2048"), new_number()
    world.simulator.configure(kaleyra_get="data")
    register_all(world.simulator.url, world.folder / "records", [elsewhere], third.public)
    world.simulator.hold({elsewhere: openssl("pkey", "-in", world.current, "-pubout")})
    options: dict[str, Any] = {"flows_encryption_read_back": "kaleyra", "flows_encryption_keep_previous": "0s"}

    run = world.rotate(**options)
    assert run.rc == 0 and elsewhere in run.text, run.output
    assert old in {world.fingerprint(path) for path in (world.current, world.previous) if path.exists()}
    new = world.carried()[0]
    assert new != old and world.carried() == [new, new]

    world.simulator.hold({elsewhere: third.public})
    run = world.rotate(**options)
    assert run.rc == 0 and world.files() == {"private.pem", "private.pub.pem"}, run.output
    assert world.fingerprint(world.current) == new
