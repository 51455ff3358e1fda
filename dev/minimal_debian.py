# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs `make demo` and `make test` in a minimal Debian 12 that has only what the README requires.

``python3 -m dev.minimal_debian``, as root, with debootstrap. Each runs twice, as two users at the same time:

- root, in a home of mode 0700, in a time zone far east of UTC;
- a user with an empty home, in a path with a space, in a time zone far west of UTC.

No locale is set. Exits with 77 and the reason if this machine cannot do it. The root file system is created in a temporary folder, or is that of
``--root``, which is kept for the next time. The settings for Debian packages and the package index are those of this machine.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
SUITE = "bookworm"
PACKAGES = "ca-certificates,python3,python3-venv,make,openssl,git"
CANNOT = 77
"""Exit status if the machine cannot do it."""

_SETTINGS = ("/etc/pip.conf", "/etc/uv/uv.toml", "/etc/ssl/certs/ca-certificates.crt", "/etc/resolv.conf", "/etc/hosts")
_VARIABLES = re.compile(r"(pip|uv|ssl_cert)_.*|(requests|curl)_ca_bundle|.*_proxy", re.IGNORECASE)
# The mounts end with these commands.
_ENTER = """
root=$1 ids=$2 checkout=$3 target=$4
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/tmp"
exec chroot --userspec="$ids" "$root" sh -c 'cd "$1" && exec make "$2"' sh "$checkout" "$target"
"""


@dataclasses.dataclass(frozen=True)
class User:
    """:param time_zone: as POSIX has it, since the names of zones are in a package of their own"""

    name: str
    ids: int
    home: str
    checkout: str
    time_zone: str


USERS = (
    User("root", 0, "/root", "/root/kaleyra.whatsapp", "<+14>-14"),
    User("somebody", 1000, "/home/somebody", "/home/somebody/my projects/kaleyra.whatsapp", "<-11>11"),
)


def obstacle() -> str:
    """Return why it cannot be done here; empty if it can."""
    if os.geteuid() != 0:
        return "it takes root"
    missing = [program for program in ("debootstrap", "unshare", "chroot") if not shutil.which(program)]
    return f"there is no {missing[0]}" if missing else ""


def mirror() -> list[str]:
    """Return where this machine gets its packages from, if that is a Debian mirror; if empty, debootstrap decides."""
    for path in sorted(Path("/etc/apt").rglob("*.sources")):
        for block in path.read_text().split("\n\n"):
            fields = dict(re.findall(r"^(\w[\w-]*): *(\S+)", block, re.MULTILINE))
            if fields.get("Suites") == SUITE:
                return [fields["URIs"]]
    for path in [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt").rglob("*.list"))]:
        found = re.search(rf"^deb (?:\[.*?\] )?(\S+) {SUITE} ", path.read_text(), re.MULTILINE) if path.exists() else None
        if found:
            return [found[1]]
    return []


def install(root: Path) -> None:
    subprocess.run(["debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, root, *mirror()], stdout=subprocess.DEVNULL, check=True)


def connect(root: Path) -> None:
    """Copy the settings for the package index from this machine."""
    for name in _SETTINGS:
        if Path(name).exists():
            destination = root / name[1:]
            destination.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(name, destination)


def copy_checkout(root: Path, user: User) -> None:
    """Create a home for the user with only a copy of this checkout, committed or not."""
    home, checkout = root / user.home[1:], root / user.checkout[1:]
    shutil.rmtree(home, ignore_errors=True)
    checkout.mkdir(parents=True)
    listed = subprocess.run(["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=CHECKOUT, capture_output=True, check=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        if (CHECKOUT / name).is_file():
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, checkout / name)
    subprocess.run(["git", "init", "--quiet", checkout], check=True)
    subprocess.run(["git", "add", "--all"], cwd=checkout, check=True)
    subprocess.run(["chown", "-R", f"{user.ids}:{user.ids}", home], check=True)
    home.chmod(0o700)


def run(root: Path, user: User, target: str, log: Path) -> bool:
    """Run that target of the Makefile, and return whether it passed."""
    environment = {name: value for name, value in os.environ.items() if _VARIABLES.fullmatch(name)}
    environment |= {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": user.home, "TZ": user.time_zone}
    with log.open("ab") as file:
        command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-euc", _ENTER, "sh"]
        command += [str(root), f"{user.ids}:{user.ids}", user.checkout, target]
        return subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, check=False).returncode == 0


def run_all(root: Path, user: User, rounds: int, logs: Path) -> list[str]:
    """Yield the rows of the table. After one that FAILED, there are no more."""
    log = logs / f"{user.name}.log"
    rows = []
    for target in ["demo", "test"] * rounds:
        start = time.monotonic()
        passed = run(root, user, target, log)
        rows.append(f"{user.name:10}make {target:6}{time.monotonic() - start:6.0f} s  {'passed' if passed else 'FAILED'}")
        print(rows[-1], flush=True)
        if not passed:
            print(f"\n--- the end of {log}:\n" + "\n".join(log.read_text(errors="replace").splitlines()[-60:]), flush=True)
            break
    checkout = root / user.checkout[1:]
    size = int(subprocess.run(["du", "-sm", checkout / ".cache"], capture_output=True, text=True, check=True).stdout.split()[0])
    rows.append(f"{user.name:10}.cache {size:10} MB")
    print(rows[-1], flush=True)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description="Run demo and test in a minimal Debian 12.")
    parser.add_argument("--root", type=Path, help="folder of the root, made if it is not there, and kept (default: a temporary one)")
    parser.add_argument("--rounds", type=int, default=2, help="how often in a row (default: %(default)s)")
    options = parser.parse_args()
    if reason := obstacle():
        print(f"A minimal Debian cannot be made here: {reason}.")
        return CANNOT
    logs = CHECKOUT / ".cache/minimal"
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="minimal-debian-") as folder:
        root = options.root or Path(folder, "root")
        if not (root / "usr/bin/git").exists():
            start = time.monotonic()
            install(root)
            print(f"A minimal Debian was made in {time.monotonic() - start:.0f} s.", flush=True)
        connect(root)
        for user in USERS:
            copy_checkout(root, user)
        with concurrent.futures.ThreadPoolExecutor() as pool:
            rows = [row for rows in pool.map(lambda user: run_all(root, user, options.rounds, logs), USERS) for row in rows]
    return 1 if any("FAILED" in row for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
