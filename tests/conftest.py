# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What all tests share. A bare ``python -m pytest`` finds here and in pyproject.toml all that it needs, and so does ansible-test.

No folder of tests has an ``__init__.py``: a package ``simulator`` of tests, say, would be taken for another of that name.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

_CHECKOUT = Path(__file__).resolve().parents[1]

# ansible-test does not read pyproject.toml, and runs in a folder that has the collection's name.
sys.path.insert(0, str(_CHECKOUT / "tests"))
if _CHECKOUT.parents[1].name == "ansible_collections":
    sys.path.append(str(_CHECKOUT.parents[2]))

from support.keys import KeyPair  # noqa: E402
from support.playbook_runs import ACCOUNTS, Playbooks  # noqa: E402
from support.simulator.client import Simulator  # noqa: E402

# For what tests start by its name, ansible-playbook for example.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
# Set, it would have every process compile all that it imports.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: left out of `make test`; `make functional` and .ci/run have all of them")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the machine's own settings counts, nor do they reach the processes that a test starts."""
    for name in list(os.environ):
        if name.startswith(("KALEYRA_", "META_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name in ("NETRC", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)


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
    """The key that is to be registered."""
    return KeyPair.make("RSA", "rsa_keygen_bits:2048")


@pytest.fixture(scope="session")
def other_key() -> KeyPair:
    return KeyPair.make("RSA", "rsa_keygen_bits:2048")
