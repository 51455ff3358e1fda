# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A simulator of Kaleyra's "Set Encryption Public Key" API and of what Meta's Graph API tells of a number's key, for tests, benchmarks and the demo.

It is a real HTTP(S) server in a process of its own, as strict as the vendors' pages, that can be told to misbehave.

* `python -m support.simulator --help` runs it by hand (this package's parent folder must be on `PYTHONPATH`).
* `support.simulator.client.Simulator` runs and steers it from Python; it needs nothing but the standard library.

This file imports nothing, so that the client does not load the server's dependencies.
"""

from __future__ import annotations
