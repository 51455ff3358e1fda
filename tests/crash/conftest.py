# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from support.playbook_runs import KeyPair


@pytest.fixture(scope="session")
def key() -> KeyPair:
    """The key that is to be registered."""
    return KeyPair.make("RSA", "rsa_keygen_bits:2048")
