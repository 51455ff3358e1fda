# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the tests of the core share: real keys made by OpenSSL, the simulator, other processes, servers that misbehave."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.keys import fingerprint_of, openssl_bytes
from support.processes import options
from support.records import sealed
from support.servers import MisbehavingServer, Servers
from support.simulator.client import Simulator

SID = "HXAP16TESTING97IN"
CLOSED_SID = "HXAP16CLOSED097IN"  # an account that may not use the API
API_KEY = "A0b1C2d3E4+/f5G6=h7"
NUMBER = "+919876543210"


_SIMULATOR = pytest.StashKey[Simulator]()
_KEYS = pytest.StashKey[Path]()


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    """Start and make what all tests share. ansible-test runs each test in a fork of its own, which would make the fixtures of a session again."""
    with Simulator({SID: API_KEY, CLOSED_SID: {"api_key": API_KEY, "available": False}}) as simulator, tempfile.TemporaryDirectory() as keys:
        session.config.stash[_SIMULATOR] = simulator
        session.config.stash[_KEYS] = Path(keys)
        return (yield)


@pytest.fixture
def simulator(pytestconfig: pytest.Config) -> Simulator:
    """The API, as if just started."""
    simulator = pytestconfig.stash[_SIMULATOR]
    simulator.reset()
    return simulator


@pytest.fixture
def params(simulator: Simulator, tmp_path: Path, public_pem: Callable[[str], str]) -> Callable[..., dict[str, Any]]:
    """All of the module's options, those that matter to the test given by name."""

    def make(**given: Any) -> dict[str, Any]:
        account = {"sid": SID, "api_key": API_KEY, "meta_api_url": f"{simulator.url}/v23.0"}
        number = None if "phone_numbers" in given else NUMBER
        return {**options(simulator.url, tmp_path / "cache", number, public_pem("rsa-2048"), **account), **given}

    return make


@pytest.fixture(scope="session")
def edit_record() -> Callable[..., None]:
    """Change a record's fields, those that are `...` taken out, as if it had been written so."""

    def edit(path: Path, changes: dict[str, Any]) -> None:
        fields = {**json.loads(path.read_text()), **changes}
        fields = {name: value for name, value in fields.items() if value is not ...}
        del fields["checksum"]
        path.write_bytes(sealed(fields))

    return edit


# The long one of three primes, which are found much sooner; the public key does not show it.
_GENPKEY: dict[str, list[str]] = {
    "rsa-2048": ["RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
    "other-rsa-2048": ["RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
    "rsa-2048-exponent-3": ["RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-pkeyopt", "rsa_keygen_pubexp:3"],
    "rsa-1024": ["RSA", "-pkeyopt", "rsa_keygen_bits:1024"],
    "rsa-3072": ["RSA", "-pkeyopt", "rsa_keygen_bits:3072", "-pkeyopt", "rsa_keygen_primes:3"],
    "rsa-pss": ["RSA-PSS", "-pkeyopt", "rsa_keygen_bits:2048"],
    "ec": ["EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
    "ed25519": ["ED25519"],
}


@pytest.fixture(scope="session")
def private_key(pytestconfig: pytest.Config) -> Callable[[str], Path]:
    """Path of a private key in PKCS#8 of that kind, made once a session, as RSA takes its time."""
    folder = pytestconfig.stash[_KEYS]

    def make(kind: str) -> Path:
        path = folder / f"{kind}.pem"
        if not path.exists():
            if kind == "dsa":
                openssl_bytes("dsaparam", "-genkey", "-noout", "-out", path, "1024")
            else:
                openssl_bytes("genpkey", "-algorithm", *_GENPKEY[kind], "-out", path)
        return path

    return make


@pytest.fixture(scope="session")
def public_pem(private_key: Callable[[str], Path]) -> Callable[[str], str]:
    """The public key of that kind as OpenSSL writes it."""
    return functools.cache(lambda kind: openssl_bytes("pkey", "-in", private_key(kind), "-pubout").decode())


@pytest.fixture(scope="session")
def fingerprint(public_pem: Callable[[str], str]) -> Callable[[str], str]:
    """The fingerprint of that key, as OpenSSL's commands give it."""
    return functools.cache(lambda kind: fingerprint_of(public_pem(kind)))


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start Python code in a process of its own, with arguments."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with contextlib.ExitStack() as stack:

        def start_one(code: str, *arguments: str) -> subprocess.Popen[str]:
            process: subprocess.Popen[str] = subprocess.Popen([sys.executable, "-c", code, *arguments], env=environment, text=True, **pipes)
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start_one


@pytest.fixture
def run(start: Start) -> Callable[..., str]:
    """Run Python code in a process of its own, and return what it printed."""

    def run_one(code: str, *arguments: str) -> str:
        process = start(code, *arguments)
        stdout, stderr = process.communicate(timeout=300)
        assert process.returncode == 0, stderr
        return stdout

    return run_one


@pytest.fixture
def misbehaving_server() -> Iterator[Callable[..., MisbehavingServer]]:
    """Start a server with the bytes that it answers, and with its certificate and key if it is to speak TLS."""
    with Servers() as servers:
        yield lambda answer, certificate=None: MisbehavingServer(servers, answer, certificate)
