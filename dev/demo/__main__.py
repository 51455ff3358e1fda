# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Registers the numbers of an example inventory with simulators of the API, and shows the outcome: ``make demo``."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys

from support.simulator.client import Simulator

from ._simulators import ACCOUNTS, CHECKOUT, choose_port

INVENTORY = CHECKOUT / "dev/demo/inventory.yml"
# Key pair, records and registrations stay here, so that the next demo finds them.
FOLDER = CHECKOUT / ".cache/demo"


def say(text: str) -> None:
    print(f"\n\033[1m{text}\033[0m\n" if sys.stdout.isatty() else f"\n{text}\n", flush=True)


def run_playbook(simulators: dict[str, Simulator]) -> dict[str, dict[str, int]]:
    """Run the playbook as a user would, and return its summary."""
    command = ["ansible-playbook", "kaleyra.whatsapp.flows_encryption", "-i", str(INVENTORY.relative_to(CHECKOUT))]
    print("$ " + " ".join(command), flush=True)
    environment = {
        "DEMO_FOLDER": str(FOLDER),
        **{f"DEMO_API_URL_{pod.upper()}": simulator.url for pod, simulator in simulators.items()},
        "ANSIBLE_DISPLAY_SKIPPED_HOSTS": "false",
    }
    process = subprocess.Popen(command, cwd=CHECKOUT, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    recap: dict[str, dict[str, int]] = {}
    for line in process.stdout:
        print(line, end="", flush=True)
        match = re.match(r"(\S+)\s+: (ok=.*)", line)
        if match:
            recap[match.group(1)] = {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", match.group(2))}
    if process.wait():
        sys.exit("The playbook failed.")
    return recap


def fingerprint_by_openssl(public_key: pathlib.Path) -> str:
    """Return the key's SHA-256 as openssl computes it."""
    der = subprocess.run(["openssl", "pkey", "-pubin", "-in", public_key, "-outform", "DER"], check=True, capture_output=True).stdout
    digest = subprocess.run(["openssl", "dgst", "-sha256", "-c"], input=der, check=True, capture_output=True).stdout.decode()
    return digest.rpartition("= ")[2].strip()


def main() -> int:
    FOLDER.mkdir(parents=True, exist_ok=True)
    first_time = not (FOLDER / "keys/private.pem").exists()
    simulators = {
        pod: Simulator(accounts, port=choose_port(FOLDER, pod), state_file=FOLDER / f"registrations-{pod}.json")
        for pod, accounts in ACCOUNTS.items()
    }
    try:
        say("Two simulated pods of the API are running on this machine:")
        for pod, simulator in simulators.items():
            print(f"  pod {pod}: {simulator.url}")
        print(f"\nThe inventory {INVENTORY.relative_to(CHECKOUT)} has five numbers: three are hosts, and two are a list on the host shops.")
        say("1. Create the key pair, and register its public key for every number of the inventory")
        if not first_time:
            print("(The key pair, records and registrations of the last demo still exist, so nothing should change.)\n")
        run_playbook(simulators)
        before = {pod: simulator.count() for pod, simulator in simulators.items()}

        say("2. The same again: nothing changes, and nothing is sent")
        recap = run_playbook(simulators)
        changed = sum(host["changed"] for host in recap.values())
        sent = sum(simulators[pod].count() - before[pod] for pod in simulators)
        print(f"Second run: changed={changed}, requests sent: {sent}")

        say("3. The keys that the pods hold now, and the fingerprint of the key on disk as openssl computes it")
        expected = fingerprint_by_openssl(FOLDER / "keys/private.pub.pem")
        print(f"  {'.cache/demo/keys/private.pub.pem':<32} {expected}")
        held = [
            (pod, number, fingerprint)
            for pod, simulator in simulators.items()
            for numbers in simulator.registered().values()
            for number, fingerprint in sorted(numbers.items())
        ]
        for pod, number, fingerprint in held:
            print(f"  pod {pod} {number:<25} {fingerprint}  {'same' if fingerprint == expected else 'DIFFERENT'}")
        good = changed == sent == 0 and len(held) == 5 and all(fingerprint == expected for dummy, dummy, fingerprint in held)
        say("All five numbers carry the key, and running it again is safe." if good else "Something is WRONG: see above.")
        if good:
            print("Run it once more (make demo): nothing changes. Start over: make demo-reset demo. Use your own inventory: make simulator.")
        return 0 if good else 1
    finally:
        for simulator in simulators.values():
            simulator.stop()


if __name__ == "__main__":
    sys.exit(main())
