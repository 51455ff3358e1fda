# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The accounts of the demo, and the ports of its simulators."""

from __future__ import annotations

import pathlib
import socket

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]

ACCOUNTS = {
    "in": {"HXAP1600000097IN": "demo-key-of-india"},
    "eu": {"HXAP1600000042IT": "demo-key-of-europe"},
}


def choose_port(folder: pathlib.Path, name: str) -> int:
    """Return the port of the last run if it is free, because records are bound to the API's address; otherwise another one."""
    file = folder / f"port-{name}"
    port = int(file.read_text()) if file.exists() else 0
    try:
        with socket.create_server(("127.0.0.1", port)) as server:
            chosen: int = server.getsockname()[1]
    except OSError:
        print(f"Port {port} is in use. The API gets another one, so its numbers are registered again.")
        with socket.create_server(("127.0.0.1", 0)) as server:
            chosen = server.getsockname()[1]
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(str(chosen))
    return chosen
