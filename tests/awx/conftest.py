# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import yaml
from awx._runner import AWX, CHECKOUT, Core, Credential
from awx._sshd import Host, obstacle
from support.playbook_runs import API_KEY, BIN, SID
from support.simulator.client import Simulator

from dev.matrix.cores import environment


@pytest.fixture
def core(request: pytest.FixtureRequest) -> Core:
    """The newest ansible-core, unless the test is marked with ``on_cores``."""
    version = getattr(request, "param", "newest")
    return Core(version, BIN if version == "newest" else environment(version) / "bin")


@pytest.fixture
def awx(core: Core) -> Iterator[AWX]:
    awx = AWX(core)
    yield awx
    awx.remove()


@pytest.fixture(scope="session")
def _host() -> Iterator[Host]:
    reason = obstacle()
    if reason:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"no host to reach by SSH: {reason}")
    host = Host()
    yield host
    host.stop()


@pytest.fixture
def host(_host: Host) -> Host:
    """A host to reach by SSH, on which nothing has been done yet."""
    _host.clean()
    return _host


@pytest.fixture
def account(simulator: Simulator) -> Credential:
    """The credential, as a form gives it in which nothing but the account was filled in."""
    definition = yaml.safe_load((CHECKOUT / "roles/awx_setup/files/credential_type.yml").read_text())
    blank = dict.fromkeys((field["id"] for field in definition["inputs"]["fields"]), "")
    return Credential(definition, {**blank, "api_url": simulator.url, "sid": SID, "api_key": API_KEY})
