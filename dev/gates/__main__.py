# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs the static checks of the collection in parallel, and prints a table of the results.

``python -m dev.gates`` runs all, ``python -m dev.gates ruff mypy`` only these. The output of each is in ``.cache/gates``, and printed if it
failed. Exits with 1 if one did not pass.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
FOLDER = CHECKOUT / ".cache/gates"
# So that no tool takes the virtual environment in the checkout for a part of the project.
ENVIRONMENT = {**os.environ, "GIT_CEILING_DIRECTORIES": str(CHECKOUT), "NO_COLOR": "1", "FORCE_COLOR": "0"}


@dataclasses.dataclass(frozen=True)
class Gate:
    """Commands that run in a shell, one after the other until one fails.

    :param commands: for ``sh``; ``$GATES`` is the folder that they may write to
    :param bad: a line that must not be printed, because some tools exit with 0 in spite of problems
    :param good: a line that must be printed
    """

    commands: Sequence[str]
    bad: str = r"(?!)"
    good: str = ""

    def run(self, name: str) -> Outcome:
        start = time.monotonic()
        done = subprocess.run(
            ["sh", "-euc", "\n".join(self.commands)],
            cwd=CHECKOUT,
            env={**ENVIRONMENT, "GATES": str(FOLDER)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        (FOLDER / f"{name}.log").write_text(done.stdout)
        passed = done.returncode == 0 and not re.search(self.bad, done.stdout, re.MULTILINE) and bool(re.search(self.good, done.stdout, re.MULTILINE))
        return Outcome(name, passed, time.monotonic() - start, done.stdout)


@dataclasses.dataclass(frozen=True)
class Outcome:
    name: str
    passed: bool
    seconds: float
    output: str


# The longest ones first.
GATES = {
    # The artefact for users, checked as Galaxy does on import.
    "galaxy-importer": Gate(
        [
            'rm -rf "$GATES/artefact" && mkdir "$GATES/artefact"',
            'ansible-galaxy collection build --output-path "$GATES/artefact"',
            'cd "$GATES/artefact" && python -m galaxy_importer.main ./*.tar.gz',
        ],
        bad=r"^(WARNING|ERROR)",
        good=r"^Importer processing completed successfully",
    ),
    # All rules of its production profile, without exceptions.
    "ansible-lint": Gate(
        [
            # Not negated with "!", for which sh -e does not exit.
            "if grep -rnIE '#.*noqa|skip_ansible_lint' .ansible-lint.yml docs meta playbooks plugins roles; then exit 1; fi",
            "if grep -nE '^ *(skip_list|mock_)' .ansible-lint.yml; then exit 1; fi",
            "ansible-lint",
        ],
        good=r"Profile 'production' was required, and it passed",
    ),
    "antsibull-docs": Gate(
        ["antsibull-docs lint-collection-docs --plugin-docs --validate-collection-refs=dependent --disallow-unknown-collection-refs ."]
    ),
    # CHANGELOG.md must be what is generated from changelog.yaml.
    "antsibull-changelog": Gate(
        [
            "antsibull-changelog lint",
            "antsibull-changelog lint-changelog-yaml changelogs/changelog.yaml",
            'antsibull-changelog generate --output "$GATES/CHANGELOG.md" --output-format md',
            'diff CHANGELOG.md "$GATES/CHANGELOG.md"',
        ]
    ),
    "mypy": Gate(["mypy"], good=r"^Success: no issues found in \d\d+ source files"),
    "reuse": Gate(["reuse lint"]),
    "ruff": Gate(["ruff check"]),
    "shellcheck": Gate(["shellcheck .ci/run dev/*.sh dev/matrix/*.sh"]),
    "workflows": Gate(
        [
            "zizmor --offline --no-progress --strict-collection --persona pedantic .github",
            "check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml",
            "check-jsonschema --builtin-schema custom.github-workflows-require-timeout .github/workflows/*.yml",
            "check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml",
            "check-jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/*.yml",
        ]
    ),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m dev.gates", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(GATES)}; by default all")
    names = parser.parse_args().names or list(GATES)
    if unknown := [name for name in names if name not in GATES]:
        parser.error(f"there is no gate {', '.join(unknown)}; there are {', '.join(GATES)}")
    FOLDER.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        outcomes = list(pool.map(lambda name: GATES[name].run(name), names))
    failed = [outcome for outcome in outcomes if not outcome.passed]
    for outcome in failed:
        print(f"--- {outcome.name}\n{outcome.output.rstrip()}\n", flush=True)
    for outcome in outcomes:
        print(f"{outcome.name:20} {'passed' if outcome.passed else 'FAILED'} {outcome.seconds:6.1f} s")
    print(f"{len(outcomes) - len(failed)} of {len(outcomes)} passed, in {time.monotonic() - start:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
