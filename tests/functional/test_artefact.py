# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What ``ansible-galaxy collection build`` makes is what users get."""

from __future__ import annotations

import os
import pathlib
import subprocess
import tarfile

import pytest
import yaml

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]


def run(*command: str, home: pathlib.Path, **environment: str) -> str:
    done = subprocess.run(
        command,
        env={**os.environ, "HOME": str(home), "ANSIBLE_HOME": str(home), **environment},
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def files_of_the_checkout() -> list[str]:
    """What git knows; without git, as in an unpacked archive, whatever is not made by make."""
    if (CHECKOUT / ".git").exists():
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=CHECKOUT, capture_output=True, check=True)
        names = listed.stdout.decode().split("\0")
    else:
        made = {".cache", ".ansible", ".hypothesis", ".pytest_cache", "__pycache__"}
        paths = [path.relative_to(CHECKOUT) for path in CHECKOUT.rglob("*")]
        names = [str(path) for path in paths if not made.intersection(path.parts)]
    return [name for name in names if name and (CHECKOUT / name).is_file()]


@pytest.fixture(scope="module")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Built from what is committed, as a release would be."""
    folder = tmp_path_factory.mktemp("artefact")
    source = folder / "source"
    source.mkdir()
    for name in files_of_the_checkout():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((CHECKOUT / name).read_bytes())
    run("ansible-galaxy", "collection", "build", str(source), "--output-path", str(folder), home=folder)
    (built,) = folder.glob("*.tar.gz")
    return built


def test_artefact_holds_what_users_need_alone(artefact: pathlib.Path) -> None:
    with tarfile.open(artefact) as archive:
        files = {member.name for member in archive if member.isfile()}
    top = {name.split("/")[0] for name in files}
    assert top == {
        *("CHANGELOG.md", "FILES.json", "LICENSE", "MANIFEST.json", "README.md", "requirements.txt"),
        *("changelogs", "docs", "meta", "playbooks", "plugins", "roles"),
    }
    assert {name for name in files if name.startswith("changelogs/")} == {"changelogs/changelog.yaml"}
    assert {name for name in files if name.endswith((".pyc", ".pem", ".log")) or "/." in name} == set()
    folders = ("docs/", "playbooks/", "plugins/", "roles/")
    source = {name for name in files_of_the_checkout() if name.startswith(folders)}
    makes_the_site = {name for name in source if name.startswith("docs/docsite/") and name != "docs/docsite/links.yml"}
    assert {name for name in files if name.startswith(folders)} == source - makes_the_site - {"docs/images/draw.py"}


@pytest.mark.slow
def test_installed_modules_and_role_are_documented(artefact: pathlib.Path, tmp_path: pathlib.Path) -> None:
    environment = {"ANSIBLE_COLLECTIONS_PATH": str(tmp_path), "PYTHONPATH": ""}
    run("ansible-galaxy", "collection", "install", "--offline", "--no-deps", "-p", str(tmp_path), str(artefact), home=tmp_path, **environment)
    for name in ("kaleyra_flows_encryption", "kaleyra_flows_encryption_info"):
        module = run("ansible-doc", "-j", f"kaleyra.whatsapp.{name}", home=tmp_path, **environment)
        assert str(tmp_path) in module  # and not the checkout's
    role = run("ansible-doc", "-t", "role", "-j", "kaleyra.whatsapp.flows_encryption", home=tmp_path, **environment)
    assert "flows_encryption_private_key_path" in role


def test_changelog_lists_the_version_and_its_contents() -> None:
    galaxy, changelog = (yaml.safe_load((CHECKOUT / name).read_text()) for name in ("galaxy.yml", "changelogs/changelog.yaml"))
    text = (CHECKOUT / "CHANGELOG.md").read_text().replace("\\", "")
    releases = changelog["releases"]
    assert galaxy["version"] in releases
    for kind, pattern in (("modules", "plugins/modules/*.py"), ("playbook", "playbooks/*.yml"), ("role", "roles/*")):
        new = {each["name"] for release in releases.values() for each in (release.get(kind) or release.get("objects", {}).get(kind, []))}
        assert new == {path.stem for path in CHECKOUT.glob(pattern)}
    for release in releases:
        assert f"## v{release}\n" in text
