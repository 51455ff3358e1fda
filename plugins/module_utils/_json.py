# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads untrusted JSON."""

from __future__ import annotations

import json
import typing as t

from ._http import MAX_BODY


def parse_object(body: bytes) -> dict[str, t.Any] | None:
    """Return the JSON object of an answer; None for anything else, for duplicate names, and for one that is too long."""
    try:
        content = json.loads(body, object_pairs_hook=_unambiguous) if len(body) <= MAX_BODY else None
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _unambiguous(pairs: list[tuple[str, t.Any]]) -> dict[str, t.Any]:
    """Reject duplicate names, because readers differ in which value they use."""
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError
    return content
