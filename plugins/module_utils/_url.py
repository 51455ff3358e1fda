# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks the URLs that a user sets."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import SplitResult, urlsplit

from ._errors import InvalidInput

_VISIBLE = re.compile(r"[!-~]+")
_HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]+")


def split_url(option: str, url: str, *, example: str, unencrypted: str) -> tuple[SplitResult, str, int | None]:
    """Return the URL's parts, its host in one spelling (IPv6 without brackets), and its port.

    :param option: name of the option, for messages
    :param unencrypted: what is wrong with plain http, for messages
    :raises InvalidInput: not ``https`` (``http`` is accepted for loopback hosts only), or with a user, a password or a fragment
    """
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").rstrip("."), parts.port
        if ":" in host:
            host = str(ipaddress.ip_address(host))
    except ValueError:  # its text may repeat a part of a password
        raise InvalidInput(f"{option} is not a valid URL: check its host and its port. Use one like {example}.") from None
    if parts.username is not None or parts.password is not None:
        raise InvalidInput(f"{option} contains a user or a password, which would not be sent. Remove them.")
    if not _VISIBLE.fullmatch(url) or not _HOST.fullmatch(host) or "#" in url:
        raise InvalidInput(f"{option} {_named(url)} is not a valid URL. Use one like {example}.")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(host)):
        raise InvalidInput(
            f"{option} {_named(url)} {unencrypted}. Use https; http is only accepted for loopback addresses of this machine."
        )
    return parts, host, port


def _named(url: str) -> str:
    """Return the URL for a message: without the query, which may contain a token, and not at all if it may contain a password."""
    return "(not shown, because it contains an @)" if "@" in url else repr(url.partition("?")[0][:80])


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
