# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Records to make pages of."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import Any
from urllib.parse import quote

from support.records import sealed

SID, API = "HXAP16SAMPLE97IN", "api.in.kaleyra.io"
KEYS = [hashlib.sha256(bytes([i])).digest().hex(":") for i in range(3)]
HOSTILE = "<img src=x onerror=\"window.harmed='api'\"></script><script>window.harmed='script'</script><!--\u2028&amp;"
ALL = [f"+9198765{i:05}" for i in range(2000)]


def write_record(folder: Path, number: str, fingerprint: str, state: str = "confirmed", since: str = "2026-01-31T10:20:30+00:00") -> Path:
    """A record as the module writes it; thousands of them are made in a moment."""
    fields = {"format": 1, "api": API, "sid": SID, "phone_number": number, "fingerprint": fingerprint, "state": state, "since": since}
    path = folder / f"{API},{SID},{number}.json"
    path.write_bytes(sealed(fields))
    return path


def _none(folder: Path) -> dict[str, Any]:
    return {"report_fingerprint": KEYS[0]}


def _three(folder: Path) -> dict[str, Any]:
    for i, number in enumerate(ALL[:3]):
        write_record(folder, number, KEYS[i // 2])
    return {"report_phone_numbers": ALL[:3], "report_fingerprint": KEYS[0]}


def _many(folder: Path) -> dict[str, Any]:
    """In every state, and with three keys."""
    chance = random.Random(9)
    for i, number in enumerate(ALL):
        if i % 400 != 7:  # else absent
            state = "unconfirmed" if i % 90 == 11 else "confirmed"
            since = f"2026-{chance.randrange(1, 13):02}-{chance.randrange(1, 29):02}T{chance.randrange(24):02}:00:00+00:00"
            path = write_record(folder, number, KEYS[chance.choice([0] * 40 + [1, 1, 2])], state, since)
            if i % 250 == 13:
                path.write_text("junk")
    return {"report_phone_numbers": ALL, "report_fingerprint": KEYS[0]}


def _hostile(folder: Path) -> dict[str, Any]:
    """With markup wherever there can be text, and without an expected key."""
    for i, key in ((1, 0), (3, 1), (4, 0)):
        write_record(folder, ALL[i], KEYS[key])
    (folder / f"{quote(HOSTILE, safe='')},{SID},{ALL[2]}.json").write_text("junk")
    verification = {"url": f"https://x/{HOSTILE}", "active": True, "latency_ms": HOSTILE, "fingerprint": HOSTILE}
    return {"report_title": HOSTILE, "endpoint_verification": verification}


PAGES = {"none": _none, "three": _three, "many": _many, "hostile": _hostile}
