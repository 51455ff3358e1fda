# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Records to make pages of."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

SID, API = "HXAP16SAMPLE97IN", "api.in.kaleyra.io"
_DIGESTS = [hashlib.sha256(bytes([i])).hexdigest() for i in range(12)]
KEYS = [":".join(key[i : i + 2] for i in range(0, 64, 2)) for key in _DIGESTS]
HOSTILE = "<img src=x onerror=\"window.harmed='api'\"></script><script>window.harmed='script'</script><!--\u2028&amp;"


def write_record(folder: Path, number: str, fingerprint: str, state: str = "confirmed", since: str = "2026-01-31T10:20:30+00:00") -> Path:
    """A record as the module writes it; ten thousand of them are made in a moment."""
    fields = {"format": 1, "api": API, "sid": SID, "phone_number": number, "fingerprint": fingerprint, "state": state, "since": since}
    fields["checksum"] = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
    path = folder / f"{API},{SID},{number}.json"
    path.write_text(json.dumps(fields))
    return path
