# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs a simulator of the API for your own inventory: ``make simulator``."""

from __future__ import annotations

import json
import subprocess
import sys

from ._simulators import ACCOUNTS, CHECKOUT, choose_port

FOLDER = CHECKOUT / ".cache/simulator"
ACCOUNT = FOLDER / "account.yml"

HOW_TO = """
The API is simulated at {url} until you press Ctrl-C. Its account is in {file}:

{account}
Register the numbers of your own inventory with it, from another terminal:

  $ ansible-playbook kaleyra.whatsapp.flows_encryption -i inventory.yml -e @{file}

Without an installed collection, from this checkout:

  $ export ANSIBLE_COLLECTIONS_PATH={checkout}/.cache/collections
  $ {checkout}/.cache/venv/bin/ansible-playbook kaleyra.whatsapp.flows_encryption -i inventory.yml -e @{file}

Each request is shown below. Start over: make simulator-reset.
"""


def main() -> int:
    ((sid, api_key),) = ACCOUNTS["in"].items()
    url = f"http://127.0.0.1:{choose_port(FOLDER, 'simulator')}"
    account = f"flows_encryption_api_url: {url}\nflows_encryption_sid: {sid}\nflows_encryption_api_key: {api_key}\n"
    ACCOUNT.write_text(account)
    accounts = FOLDER / "accounts.json"
    accounts.write_text(json.dumps(ACCOUNTS["in"]))
    indented = "".join(f"  {line}\n" for line in account.splitlines())
    print(HOW_TO.format(url=url, file=ACCOUNT, account=indented, checkout=CHECKOUT), flush=True)
    command = [sys.executable, "-m", "support.simulator", "--log", "--accounts", str(accounts), "--port", url.rpartition(":")[2]]
    process = subprocess.Popen([*command, "--state-file", str(FOLDER / "registrations.json")], stdout=subprocess.DEVNULL)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:  # the simulator gets it as well, writes its state and ends
            continue


if __name__ == "__main__":
    sys.exit(main())
