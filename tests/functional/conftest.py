# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.playbook_runs import ACCOUNTS, KeyPair, Playbooks
from support.simulator.client import Simulator


@pytest.fixture(scope="session")
def _simulator() -> Iterator[Simulator]:
    with Simulator(ACCOUNTS) as simulator:
        yield simulator


@pytest.fixture
def simulator(_simulator: Simulator) -> Simulator:
    """The API, with nothing registered and nothing asked yet."""
    _simulator.reset()
    return _simulator


@pytest.fixture
def playbooks(tmp_path_factory: pytest.TempPathFactory, simulator: Simulator) -> Playbooks:
    # Not in tmp_path, which has the test's name in it: Ansible's sockets are below, and their paths must be short.
    return Playbooks(tmp_path_factory.mktemp("f"), simulator.url)


@pytest.fixture(scope="session")
def key() -> KeyPair:
    return KeyPair.make("RSA", "rsa_keygen_bits:2048")


@pytest.fixture(scope="session")
def other_key() -> KeyPair:
    return KeyPair.make("RSA", "rsa_keygen_bits:2048")
