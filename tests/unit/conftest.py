# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Makes importable what the tests use, whether pytest or ansible-test runs them, for the processes that they start, too.

No folder below this one may have an `__init__.py`: `simulator` would be taken for the package of that name in `tests/`.
"""

from __future__ import annotations

import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]

sys.path.insert(0, str(CHECKOUT / "tests"))
if CHECKOUT.parents[1].name == "ansible_collections":
    sys.path.append(str(CHECKOUT.parents[2]))
