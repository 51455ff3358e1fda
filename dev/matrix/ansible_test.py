# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs the steps of ansible-test with each supported ansible-core, and prints a table of the results.

Run with the Python of `.cache/venv`. Needs only a package index and no container, and writes only below `.cache/ansible-test/`:
each step has a log there, a copy of the collection in a folder with the name that ansible-test requires, and its own home.
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
import time
from pathlib import Path

from dev.matrix.cores import BIN, CACHE, CORES, CoreError, environment, locked, target_environment

CHECKOUT = CACHE.parent
OLDEST_TARGET = "3.9"
"""The oldest Python of targets, older than that of any ansible-core."""

# Variables that pip and uv need to reach a package index, which ansible-test does not pass on.
_INSTALLERS_READ = ("pip_", "uv_", "ssl_cert_", "http_proxy", "https_proxy", "all_proxy", "no_proxy")

# Passing runs that tested nothing.
_NOTHING_PROVED = re.compile(r"All targets skipped|Required program .* not found|WARNING: Skipping .*|^.*\bno tests ran\b.*$", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Step:
    """A run of ansible-test. In its arguments, {python} is the Python of the core and {target} the oldest one of targets."""

    arguments: tuple[str, ...]


STEPS = {
    "sanity": Step(("sanity", "--controller", "origin:python={python}", "--target-python", "{python}", "--target-python", "{target}")),
    # Not those of the simulator, which is not part of the collection. More workers than processors, because many tests wait.
    "units": Step(("units", "--local", "--python", "{python}", "--num-workers", "3", "tests/unit/plugins/")),
    # Only of what runs on targets, which ansible-test decides by the folder.
    "units-target": Step(("units", "--local", "--python", "{target}", "--num-workers", "3", "tests/unit/plugins/")),
    "integration": Step(("integration", "--controller", "origin:python={python}", "--target", "controller:python={target}")),
}

# The code under test imports nothing of Ansible: the oldest and the newest Python of a controller are enough, and the oldest of targets once.
ON = {"units": (0, -1), "units-target": (0,)}
"""Steps for some of the cores only, by their index among those that are tested."""
OF_THE_COLLECTION = {"sanity"}
"""Steps that need the tests and dev, which are not released, on the newest core only: pylint takes most of its time for them."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The result of a step: ``problem`` is empty if it passed.

    :param processor: seconds of one processor, of all its processes
    """

    core: str
    step: str
    seconds: float
    processor: float
    problem: str = ""


def _is_released(name: str) -> bool:
    return name == "tests/config.yml" or not name.startswith(("dev/", "tests/"))


def _copy(folder: Path, *, whole: bool) -> Path:
    """Copy the files of the checkout, committed or not, or only those of the collection, and return the root of the copy."""
    root = folder / "ansible_collections/kaleyra/whatsapp"
    shutil.rmtree(root, ignore_errors=True)
    listed = subprocess.run(("git", "ls-files", "-z", "-co", "--exclude-standard"), cwd=CHECKOUT, stdout=subprocess.PIPE, check=True)
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (CHECKOUT / name).is_file() and (whole or _is_released(name)):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, root / name)
    # Without it, ansible-test uses the checkout's git, which ignores .cache, and finds nothing to test.
    subprocess.run(("git", "init", "--quiet", root), check=True)
    # The settings of integration tests. Ansible uses the user's real home, not HOME.
    if whole:
        (root / "tests/integration/integration.cfg").write_text(f"[defaults]\nremote_tmp = {folder / 'tmp'}\n")
    return root


def _home(folder: Path, site_packages: Path) -> Path:
    """Create a home for ansible-test, which keeps its environments there and must not download pip from elsewhere."""
    home = folder / "home"
    settings = {name: value for name, value in os.environ.items() if name.lower().startswith(_INSTALLERS_READ)}
    (home / ".config/pip").mkdir(parents=True, exist_ok=True)
    lines = [f"{name[4:].lower().replace('_', '-')} = {value}\n" for name, value in settings.items() if name.startswith("PIP_")]
    (home / ".config/pip/pip.conf").write_text("".join(["[global]\n", *lines, "compile = no\n"]))
    cache = home / ".ansible/test/cache"
    cache.mkdir(parents=True, exist_ok=True)
    script = (
        "import os, sys\n"
        f"os.environ.update({settings!r})\n"
        "packages = [argument for argument in sys.argv[1:] if not argument.startswith('-')]\n"
        f"os.execv({str(BIN / 'uv')!r}, ['uv', 'pip', 'install', '--quiet', '--python', sys.executable, *packages])\n"
    )
    # Of any version, because it lists each of them in this file.
    wanted = (site_packages / "ansible_test/_internal/python_requirements.py").read_text()
    for version in set(re.findall(r"pip='([\d.]+)'", wanted)):
        (cache / f"get_pip_{version.replace('.', '_')}.py").write_text(script)
    return home


def _run(name: str, step: str) -> Outcome:
    folder = CACHE / "ansible-test" / name / step
    with locked(folder):
        return _run_in(folder, name, step)


def _run_in(folder: Path, name: str, step: str) -> Outcome:
    core = CORES[name]
    core_folder, target_folder = environment(name), target_environment(OLDEST_TARGET)
    root = _copy(folder, whole=step not in OF_THE_COLLECTION or name == [*CORES][-1])
    # The shims of a version manager would run instead of the intended Pythons.
    path = [str(core_folder / "bin"), str(target_folder / "bin")]
    path += [part for part in os.environ["PATH"].split(os.pathsep) if Path(part).name != "shims" and Path(part) != BIN]
    arguments = [argument.format(python=core.python, target=OLDEST_TARGET) for argument in STEPS[step].arguments]
    home = _home(folder, core_folder / f"lib/python{core.python}/site-packages")
    log = folder / "log"
    start = time.monotonic()
    with open(log, "w", encoding="utf-8") as file:
        process = subprocess.Popen(  # pylint: disable=consider-using-with
            [core_folder / "bin/ansible-test", *arguments, "--color", "no"],
            cwd=root,
            env={"PATH": os.pathsep.join(path), "HOME": str(home), "LANG": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        # subprocess does not return the processor time, which does not depend on the load of the machine.
        dummy, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds, processor = time.monotonic() - start, usage.ru_utime + usage.ru_stime
    nothing = _NOTHING_PROVED.search(log.read_text())
    problem = f"exit status {process.returncode}" if process.returncode else nothing[0] if nothing else ""
    return Outcome(name, step, seconds, processor, problem)


def _set_up(name: str) -> Outcome:
    start = time.monotonic()
    problem = ""
    try:
        environment(name)
        target_environment(OLDEST_TARGET)
    except CoreError as exc:
        problem = str(exc)
    return Outcome(name, "set-up", time.monotonic() - start, 0, problem)


def _say(outcome: Outcome) -> None:
    log = CACHE / "ansible-test" / outcome.core / outcome.step / "log"
    if outcome.problem and log.exists():
        print(f"\n--- ansible-test {outcome.step} on ansible-core {outcome.core}, from {log}:")
        print("\n".join(log.read_text().splitlines()[-100:]))
    print(_row(outcome), flush=True)


def _row(outcome: Outcome) -> str:
    how = f"FAILED: {outcome.problem}" if outcome.problem else "ok"
    return f"{outcome.core:<6}{outcome.step:<14}{outcome.seconds:>7.0f}{outcome.processor:>11.0f}  {how}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Run ansible-test on ansible-core's versions.")
    parser.add_argument("--cores", nargs="+", choices=CORES, default=list(CORES), metavar="VERSION", help=f"of {', '.join(CORES)}; default: all")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS), metavar="STEP", help=f"of {', '.join(STEPS)}; default: all")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="how many steps at once (default: %(default)s)")
    options = parser.parse_args()

    outcomes = []
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for outcome in pool.map(_set_up, options.cores):
            outcomes.append(outcome)
            _say(outcome)
        ready = [outcome.core for outcome in outcomes if not outcome.problem]
        # The long steps first, so that none of them runs alone at the end.
        jobs = [
            pool.submit(_run, name, step)
            for step in options.steps
            for name in ready
            if step not in ON or name in {options.cores[place] for place in ON[step]}
        ]
        for job in concurrent.futures.as_completed(jobs):
            outcomes.append(job.result())
            _say(outcomes[-1])

    print("\ncore  step          seconds  processor  result")
    order = ["set-up", *options.steps]
    for outcome in sorted(outcomes, key=lambda outcome: (options.cores.index(outcome.core), order.index(outcome.step))):
        print(_row(outcome))
    return 1 if any(outcome.problem for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
