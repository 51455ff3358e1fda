# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbook awx_setup, run with the real modules of awx.awx against as much of AWX as they need."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from awx._controller import TOKEN, Controller
from awx._runner import PROJECT, Core, unsafe_yaml
from support.playbook_runs import COLLECTIONS, Playbooks, Run

from dev.matrix.cores import CACHE, add_collection

PLAYBOOK = "kaleyra.whatsapp.awx_setup"
BUNDLE = "13.8.0"
"""The last `ansible` that has awx.awx in it, which is 24.6.1."""

SECRETS = {
    "KALEYRA_API_KEY": "Setup-Api-Key-08151234",
    "KALEYRA_FLOWS_PRIVATE_KEY_PASSPHRASE": "Setup-Passphrase-08151234",
    "KALEYRA_FLOWS_APP_SECRET": "Setup-App-Secret-08151234",
}
ACCOUNT = {"KALEYRA_POD": "eu", "KALEYRA_SID": "HXAP16SETUP042IT", **SECRETS}
NUMBERS = ["+393331234501", "+393331234502"]
SETTINGS: dict[str, Any] = {
    "awx_setup_image": "registry.example.com/kaleyra-whatsapp-ee:1.0.0",
    "awx_setup_scm_url": "https://git.example.com/flows/awx-project.git",
    "awx_setup_phone_numbers": NUMBERS,
    "awx_setup_key_host": "flows-endpoint",
    "awx_setup_key_host_variables": {"ansible_host": "10.0.0.7", "ansible_user": "flows", "ansible_become": True},
    "awx_setup_endpoint_url": "https://flows.example.com/endpoint",
}
NAME = "Kaleyra WhatsApp"
REGISTER = f"{NAME} - Register"


@pytest.fixture(scope="session")
def awx_collection() -> Path:
    """Folder of collections with awx.awx in it."""
    folder = CACHE / "awx/collections"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder.parent / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "ansible_collections/awx/awx/MANIFEST.json").exists():
            add_collection("awx.awx", BUNDLE, folder)
    return folder


@pytest.fixture
def controller() -> Iterator[Controller]:
    controller = Controller(PROJECT)
    yield controller
    controller.stop()


class SetUp:
    """Runs the playbook."""

    def __init__(self, folder: Path, controller: Controller, programs: Path, collections: Path) -> None:
        self.playbooks = Playbooks(folder, "", programs)
        self.controller = controller
        self._env = {
            "CONTROLLER_HOST": controller.url,
            "CONTROLLER_OAUTH_TOKEN": TOKEN,
            "ANSIBLE_PIPELINING": "1",  # for speed alone
            "ANSIBLE_COLLECTIONS_PATH": f"{COLLECTIONS}:{collections}",
        }
        controller.add(
            "credentials",
            name="SSH to the endpoint",
            organization=controller.named("organizations", "Default")["id"],
            credential_type=controller.add("credential_types", name="Machine", kind="cloud", inputs={"fields": []}, injectors={})["id"],
            inputs={},
        )

    def __call__(self, *args: str, env: dict[str, str] | None = None, answers: dict[str, Any] | None = None, **settings: Any) -> Run:
        """Run it.

        :param answers: of a survey of AWX, in place of settings
        :param settings: that differ from SETTINGS, their names without the prefix; None leaves one out
        """
        changed = {f"awx_setup_{name}": value for name, value in settings.items()}
        wanted = {name: value for name, value in {**SETTINGS, **changed}.items() if value is not None} if answers is None else {}
        if answers is not None:
            written = self.playbooks.inputs / "answers.yml"
            written.write_text(unsafe_yaml(answers))
            args = ("-e", f"@{written}", *args)
        self.controller.written.clear()
        return self.playbooks.run(PLAYBOOK, "", *args, env={**self._env, **(ACCOUNT if env is None else env)}, variables=wanted)


@pytest.fixture
def set_up(tmp_path_factory: pytest.TempPathFactory, core: Core, controller: Controller, awx_collection: Path) -> SetUp:
    return SetUp(tmp_path_factory.mktemp("s"), controller, core.bin, awx_collection)


def ok(run: Run) -> Run:
    assert run.rc == 0, run.output
    return run
