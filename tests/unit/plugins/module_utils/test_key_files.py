# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rotations step by step without Ansible: two at once, and killed between any two calls of the system. No key that is in use is lost."""

from __future__ import annotations

import functools
import itertools
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.kaleyra.whatsapp.plugins.module_utils import _key_files, _lock
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._errors import InvalidInput, KaleyraError, KeyPairError
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._key_files import KeyFiles, PrivateKey, parse_private_key
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._rotation_steps import run_step
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

DAY = 86400
NUMBERS = ("+919876543210", "+919876543211")
BEGIN: dict[str, Any] = {"rotate_after": "1d", "keep_previous": "7d"}
BEGIN_AND_REMOVE: dict[str, Any] = {"rotate_after": "1d", "keep_previous": "0"}
ALWAYS: dict[str, Any] = {"rotate_after": "0", "keep_previous": "0"}
LATER: dict[str, Any] = {"rotate_after": "90d", "keep_previous": "7d"}
REMOVE: dict[str, Any] = {"rotate_after": "90d", "keep_previous": "7d", "retire_previous": True}


class Killed(BaseException):
    """No error handling of the code under test may take place after it."""


def pem_of(key: Any, passphrase: bytes | None = None, form: str = "PKCS8") -> bytes:
    encryption = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    pem: bytes = key.private_bytes(serialization.Encoding.PEM, getattr(serialization.PrivateFormat, form), encryption)
    return pem


@pytest.fixture(scope="module")
def keys() -> list[bytes]:
    return [pem_of(rsa.generate_private_key(65537, 2048)) for dummy in range(4)]


@pytest.fixture(autouse=True)
def _close_lock_files() -> Iterator[None]:
    """Each folder has a lock file, which stays open while its process lives."""
    yield
    for descriptor in _lock._descriptors.values():
        os.close(descriptor)
    _lock._descriptors.clear()


@functools.cache
def _parse(content: bytes, passphrase: str | None) -> PrivateKey:
    """Each key once: reading an RSA key checks it, which takes a tenth of a second."""
    return parse_private_key(content, passphrase, "PATH")


def parse_once(content: bytes, passphrase: str | None, path: str) -> PrivateKey:
    try:
        return _parse(content, passphrase)
    except KeyPairError:
        return parse_private_key(content, passphrase, path)  # naming the path


@pytest.fixture(autouse=True)
def _parse_each_key_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_key_files, "parse_private_key", parse_once)


class World:
    """A key pair on its host, the numbers that carry its key, their records, and the endpoint."""

    def __init__(self, folder: Path, pems: list[bytes]) -> None:
        self.folder = folder
        self.current = folder / "private.pem"
        self.pems = iter(pems[1:])
        self.current.write_bytes(pems[0])
        self.current.chmod(0o600)
        old = time.time() - 2 * DAY
        os.utime(self.current, (old, old))
        first = self.fingerprint(self.current)
        self.carried = dict.fromkeys(NUMBERS, first)
        self.records = dict.fromkeys(NUMBERS, (first,))
        self.endpoint = {first}

    @staticmethod
    def fingerprint(path: Path) -> str:
        return parse_once(path.read_bytes(), None, str(path)).fingerprint

    def names(self) -> set[str]:
        return {path.name for path in self.folder.iterdir() if not path.name.startswith(".")}

    def readable(self) -> set[str]:
        """Fingerprints of the private keys in files that a run or a user knows of."""
        paths = [self.folder / f"private{middle}.pem" for middle in ("", ".next", ".previous")]
        return {self.fingerprint(path) for path in paths if path.exists()}

    def deploy(self, paths: list[str]) -> None:
        self.endpoint = {self.fingerprint(Path(path)) for path in paths if os.path.exists(path)}

    def assert_nothing_lost(self) -> None:
        in_use = set(self.carried.values())
        assert self.current.stat().st_size > 0
        assert in_use <= self.readable(), "the private key of a number is in no file"
        assert in_use <= self.endpoint, "the endpoint cannot decrypt a number's messages"


class Run:
    """A rotation as the role does it, one step after the other."""

    def __init__(self, world: World, **options: Any) -> None:
        self.world = world
        self.options = options
        self.registered: dict[str, str] = {}
        self.stopped = False
        self.plan: dict[str, Any] = {}
        self.result: dict[str, Any] = {}
        self.steps: Iterator[Callable[[], None]] = iter(
            [
                self.make_plan, self.make_key, self.stage, self.deploy_staged, self.verify, *(functools.partial(self.register, n) for n in NUMBERS),
                self.promote, self.deploy_promoted, self.clean_up, self.deploy_current, self.retire, self.deploy_again,
            ]
        )  # fmt: skip

    LENGTH = 13

    def advance(self, steps: int = LENGTH) -> Run:
        for step in itertools.islice(self.steps, steps):
            if not self.stopped:
                try:
                    step()
                except KaleyraError:
                    self.stopped = True
                self.world.assert_nothing_lost()
        return self

    def do(self, step: str, *, check_mode: bool = False) -> dict[str, Any]:
        params: dict[str, Any] = {
            "step": step, "private_key_path": str(self.world.current), "public_key_path": None, "private_key_passphrase": None,
            "plan": self.plan or None, "rotate_after": "1d", "keep_previous": "7d", "retire_previous": False, "limited": False,
            "numbers": [
                {"host": n, "phone_number": n, "registered": self.registered.get(n), "uses_this_pair": True} for n in NUMBERS
            ],
            "records": [{"phone_number": n, "possible": possible} for n, possible in self.world.records.items()],
            **self.options,
        }  # fmt: skip
        self.result = run_step(params, check_mode=check_mode)
        self.plan = self.result["plan"]
        return self.result

    def make_plan(self) -> None:
        self.new = Path(self.do("plan")["new_private_key_path"])

    def make_key(self) -> None:
        if self.plan["action"] == "begin" and not self.new.exists():
            self.new.write_bytes(next(self.world.pems))

    def stage(self) -> None:
        self.do("stage")

    def deploy_staged(self) -> None:
        if len(self.result["private_key_paths"]) > 1:
            self.world.deploy(self.result["private_key_paths"])

    def verify(self) -> None:
        self.stopped = not {self.plan["target"], self.plan["other"]} - {None} <= self.world.endpoint

    def register(self, number: str) -> None:
        self.world.carried[number] = self.registered[number] = self.plan["target"]
        self.world.records[number] = (self.plan["target"],)

    def promote(self) -> None:
        self.promoted = self.do("promote")

    def deploy_promoted(self) -> None:
        if not self.promoted["obstacles"] and self.plan["action"] != "nothing":
            paths = [path for path in self.promoted["private_key_paths"] if ".next" not in path]
            self.world.deploy(paths)

    def clean_up(self) -> None:
        if not self.promoted["obstacles"]:
            self.do("clean_up")

    def deploy_current(self) -> None:
        if self.promoted["retires"]:
            self.world.deploy([str(self.world.current)])

    def retire(self) -> None:
        if not self.promoted["obstacles"]:
            self.do("retire")

    def deploy_again(self) -> None:
        if self.promoted["retires"] and self.result.get("obstacles"):
            self.world.deploy(self.result["private_key_paths"])


@pytest.fixture
def world(tmp_path: Path, keys: list[bytes]) -> World:
    return World(tmp_path, keys)


def assert_done(world: World) -> None:
    """One current key that every number carries and the endpoint holds; nothing left over, and every public key is its private key's."""
    current = world.fingerprint(world.current)
    assert set(world.carried.values()) == {current}
    assert current in world.endpoint
    pairs = {"private.pem", "private.pub.pem"}
    assert world.names() in (pairs, pairs | {"private.previous.pem", "private.previous.pub.pem"})
    for name in world.names():
        if not name.endswith(".pub.pem"):
            path = world.folder / name
            assert (world.folder / name.replace(".pem", ".pub.pem")).read_text() == parse_once(path.read_bytes(), None, str(path)).public_pem
            assert path.stat().st_mode & 0o777 in (0o600, 0o644)


def test_rotation_ends_with_one_current_key(world: World) -> None:
    old = world.fingerprint(world.current)
    run = Run(world, **BEGIN).advance()
    assert not run.stopped
    assert_done(world)
    assert world.fingerprint(world.folder / "private.previous.pem") == old
    again = Run(world, **BEGIN).advance()
    assert again.plan["action"] == "keep" and not again.result["changed"]
    run = Run(world, **REMOVE).advance()
    assert run.result["changed"] and world.names() == {"private.pem", "private.pub.pem"}
    assert Run(world, **BEGIN).advance().plan["action"] == "nothing"
    assert world.names() == {"private.pem", "private.pub.pem"} and not (world.folder / ".private.pem.registering").exists()


COMBINATIONS = [(BEGIN, BEGIN), (ALWAYS, ALWAYS), (LATER, ALWAYS), (ALWAYS, LATER)]


@pytest.mark.parametrize("options", COMBINATIONS, ids=["kept", "removed", "later-and-removed", "removed-and-later"])
@pytest.mark.slow
def test_two_rotations_at_every_pair_of_steps(
    tmp_path: Path, keys: list[bytes], monkeypatch: pytest.MonkeyPatch, options: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    """One run stops after some steps, the other one after some, the first one goes on to its end, then the other one."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # no power is cut here
    for first, second in itertools.product(range(Run.LENGTH + 1), repeat=2):
        folder = tmp_path / f"{first}-{second}"
        folder.mkdir()
        world = World(folder, keys)
        one, other = (Run(world, **each) for each in options)
        one.advance(first)
        other.advance(second)
        one.advance()
        other.advance()
        # A run that was stopped, and what is left of the rotation, is put right by the next run.
        Run(world, **BEGIN).advance()
        assert_done(world)


CALLS = ("link", "replace", "unlink", "utime", "open", "fsync", "fchmod", "fchown")


class DyingSystem:
    """The module ``os`` that kills its caller before the call with a certain number, of those that change something."""

    def __init__(self, survived: int) -> None:
        self.left = survived

    def __getattr__(self, name: str) -> Any:
        function = getattr(os, name)
        return functools.partial(self._call, function) if name in CALLS else function

    def _call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self.left == 0:
            raise Killed
        self.left -= 1
        return function(*args, **kwargs)


@pytest.mark.slow
@pytest.mark.parametrize("options", [BEGIN, BEGIN_AND_REMOVE], ids=["kept", "removed"])
@pytest.mark.parametrize("then", [BEGIN, BEGIN_AND_REMOVE, ALWAYS, LATER, REMOVE], ids=["same", "removing", "always", "later", "remove"])
def test_killed_between_any_two_calls(
    tmp_path: Path, keys: list[bytes], monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], then: dict[str, Any]
) -> None:
    for survived in itertools.count():
        folder = tmp_path / str(survived)
        folder.mkdir()
        world = World(folder, keys)
        with monkeypatch.context() as patch:
            patch.setattr(_key_files, "os", DyingSystem(survived))
            try:
                Run(world, **options).advance()
                break
            except Killed:
                pass
        world.assert_nothing_lost()
        began = world.names() & {"private.next.pem", "private.previous.pem"}
        run = Run(world, **then).advance()
        assert not run.stopped
        if not began and then in (LATER, REMOVE):
            assert run.plan["action"] == "nothing"
            for path in world.folder.glob("*.flows_encryption.new"):
                path.unlink()
        assert_done(world)
    assert survived > 20
    print(f"{survived} kills")


def test_lock_of_another_run_is_waited_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """That it excludes other processes is in test_lock.py."""
    run = Run(world, **BEGIN).advance(2)
    monkeypatch.setattr(_key_files, "_LOCK_TIMEOUT", 0.1)
    names = world.names()
    with _lock.file_lock(str(world.folder / ".private.pem.lock"), timeout=0):
        with pytest.raises(KeyPairError, match="Another process has been changing the key pair"):
            run.stage()
        assert world.names() == names
    run.advance()
    assert_done(world)


def test_changed_key_is_named_and_stops_the_run(world: World) -> None:
    one, other = Run(world, **BEGIN).advance(1), Run(world, **BEGIN).advance()
    with pytest.raises(KeyPairError, match=r"have changed since this run made its plan: the current key is .* and was .*Another run") as caught:
        one.stage()
    assert other.plan["target"][:11] in str(caught.value)


def test_key_being_registered_by_another_run_is_kept(world: World) -> None:
    slow = Run(world, **LATER).advance(5)
    fast = Run(world, **BEGIN_AND_REMOVE).advance()
    assert "another run began to register it" in fast.result["obstacles"][0]
    # It registers the key that has been replaced, and says so.
    slow.advance()
    assert slow.stopped
    assert set(world.carried.values()) == {world.fingerprint(world.folder / "private.previous.pem")}
    Run(world, **REMOVE).advance()
    assert world.names() == {"private.pem", "private.pub.pem"}


def test_killed_run_keeps_a_key_for_a_day(world: World) -> None:
    Run(world, **LATER).advance(5)
    Run(world, **BEGIN_AND_REMOVE).advance()
    assert "private.previous.pem" in world.names()
    claims = world.folder / ".private.pem.registering"
    claims.write_text(re.sub(r'"since": [0-9.]+', f'"since": {time.time() - DAY - 1}', claims.read_text()))
    Run(world, **REMOVE).advance()
    assert world.names() == {"private.pem", "private.pub.pem"} and not claims.exists()


@pytest.mark.parametrize("step", ["stage", "promote", "clean_up", "retire"])
def test_check_mode_changes_nothing(world: World, step: str) -> None:
    if step in ("clean_up", "retire"):
        Run(world, **BEGIN).advance(8)
    run = Run(world, **ALWAYS).advance(1)
    if step == "promote":
        run.advance(6)
    before = {path.name: path.stat() for path in world.folder.iterdir()}
    result = run.do(step, check_mode=True)
    assert {path.name: path.stat() for path in world.folder.iterdir()} == before
    assert result["changed"] is (step != "clean_up")


def test_modes_stay(world: World) -> None:
    run = Run(world, **BEGIN).advance(2)
    run.new.chmod(0o640)
    run.advance()
    assert world.current.stat().st_mode & 0o777 == 0o640
    assert (world.folder / "private.pub.pem").stat().st_mode & 0o777 == 0o644
    assert (world.folder / "private.previous.pem").stat().st_mode & 0o777 == 0o600


def test_promotion_time_is_that_of_the_public_key(world: World) -> None:
    Run(world, **BEGIN).advance()
    keys = KeyFiles(str(world.current)).read()
    assert abs(keys.previous_since - time.time()) < 60 and abs(keys.current_since - time.time()) < 60
    old = time.time() - 5 * DAY
    os.utime(world.folder / "private.previous.pub.pem", (old, old))
    assert KeyFiles(str(world.current)).read().previous_since == old
    (world.folder / "private.previous.pub.pem").unlink()  # as after a removal that was killed
    keys = KeyFiles(str(world.current)).read()
    assert keys.previous_since == keys.current_since


def test_runs_in_two_time_zones_agree(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """On when a key was made and promoted."""
    with monkeypatch.context() as patch:
        for zone, hours, action, retires in (
            ("America/Los_Angeles", 0, "begin", False),
            ("Asia/Kolkata", 0, "keep", False),
            ("America/Los_Angeles", 5, "keep", True),
        ):
            if hours:
                promoted = time.time() - hours * 3600
                os.utime(world.folder / "private.previous.pub.pem", (promoted, promoted))
            patch.setenv("TZ", zone)
            time.tzset()
            plan = Run(world, rotate_after="1d", keep_previous="4h").advance().plan
            assert (plan["action"], plan["retires"]) == (action, retires), zone
    time.tzset()
    assert world.names() == {"private.pem", "private.pub.pem"}


@pytest.mark.parametrize(
    ("path", "following", "public"),
    [
        ("/keys/private.pem", "/keys/private.next.pem", "/keys/private.pub.pem"),
        ("/keys/my key", "/keys/my key.next", "/keys/my key.pub.pem"),
        ("/k.d/clé.key", "/k.d/clé.next.key", "/k.d/clé.pub.pem"),
    ],
)
def test_paths_are_beside_the_private_key(path: str, following: str, public: str) -> None:
    files = KeyFiles(path)
    assert (files.next.private, files.current.public) == (following, public)
    with pytest.raises(InvalidInput, match=f"public_key_path {following} is the path of another file"):
        KeyFiles(path, following)


@pytest.mark.parametrize(
    ("put", "message"),
    [
        (lambda path: None, "There is no private key at private_key_path"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.write_bytes(pem_of(rsa.generate_private_key(65537, 2048))[:900]), "damaged or not a private key"),
        (lambda path: path.write_bytes(pem_of(ec.generate_private_key(ec.SECP256R1()), b"open sesame")), "protected by a passphrase"),
        (lambda path: path.mkdir(), "is not a file"),
        (lambda path: path.symlink_to("elsewhere.pem"), "symbolic link"),
    ],
)
def test_unusable_current_key_is_named(world: World, put: Callable[[Path], object], message: str) -> None:
    world.current.unlink()
    put(world.current)
    with pytest.raises(KeyPairError, match=message) as caught:
        KeyFiles(str(world.current), passphrase=None).read()
    assert str(world.current) in str(caught.value)


@pytest.mark.parametrize("form", ["PKCS8", "TraditionalOpenSSL"])
def test_passphrase_must_be_right_where_needed(world: World, form: str) -> None:
    key = serialization.load_pem_private_key(world.current.read_bytes(), None)
    plain = world.fingerprint(world.current)
    world.current.write_bytes(pem_of(key, b"open sesame", form))
    assert KeyFiles(str(world.current), passphrase="open sesame").read().current == plain
    with pytest.raises(KeyPairError, match="is wrong"):
        KeyFiles(str(world.current), passphrase="wrong").read()
    world.current.write_bytes(pem_of(key, None, form))
    assert KeyFiles(str(world.current), passphrase="not needed").read().current == plain


def test_unusable_new_key_is_refused(world: World, keys: list[bytes]) -> None:
    run = Run(world, **BEGIN).advance(1)
    names = world.names()
    with pytest.raises(KeyPairError, match="There is no new private key"):
        run.stage()
    for content, message in (
        (pem_of(ec.generate_private_key(ec.SECP256R1())), "is not RSA with 2048 bits"),
        (keys[0], "is the current one"),
        (b"", "is empty"),
    ):
        run.new.write_bytes(content)
        with pytest.raises(KeyPairError, match=message):
            run.stage()
        assert world.names() == names | {run.new.name}


def test_folder_without_hard_links_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    run = Run(world, **BEGIN).advance(2)
    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(KeyPairError, match="needs a file system with hard links"):
        run.stage()
    world.assert_nothing_lost()


@pytest.mark.parametrize("middle", [".next", ""])
def test_promote_refuses_another_key_than_registered(world: World, middle: str) -> None:
    run = Run(world, **BEGIN).advance(7)
    path = world.folder / f"private{middle}.pem"
    path.unlink()
    path.write_bytes(next(world.pems))
    before = {path.name: path.read_bytes() for path in world.folder.iterdir() if path.suffix == ".pem"}
    with pytest.raises(KeyPairError, match="have changed since this run made its plan"):
        run.promote()
    assert {path.name: path.read_bytes() for path in world.folder.iterdir() if path.suffix == ".pem"} == before
