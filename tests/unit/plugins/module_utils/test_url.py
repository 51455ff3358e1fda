# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The URLs that a user may give; those of the API are in test_account.py."""

from __future__ import annotations

import pytest
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._errors import InvalidInput
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._url import split_url

SECRETS = ("Pass", "Word", "t0ken")


def _split(url: str) -> tuple[str, int | None, str, str]:
    parts, host, port = split_url("url", url, example="https://example.com/flows", unencrypted="is none that WhatsApp sends to")
    return host, port, parts.path, parts.query


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        pytest.param("https://flows.example.com/a/b?c=d", ("flows.example.com", None, "/a/b", "c=d"), id="query"),
        pytest.param("https://FLOWS.example.com.:8443", ("flows.example.com", 8443, "", ""), id="port"),
        pytest.param("http://localhost:3000/", ("localhost", 3000, "/", ""), id="localhost"),
        pytest.param("http://[::1]:3000/", ("::1", 3000, "/", ""), id="ipv6-loopback"),
        pytest.param("https://[2001:DB8::0:1]/", ("2001:db8::1", None, "/", ""), id="ipv6"),
    ],
)
def test_url_is_split(url: str, parts: tuple[str, int | None, str, str]) -> None:
    assert _split(url) == parts


@pytest.mark.parametrize(
    "url",
    [
        *("https://user:PassWord@example.com/", "https://user:Pass/Word@example.com/", "https://user:Pass#Word@example.com/"),
        *("https://user:Pass?Word@example.com/", "https://user:Pass[Word@example.com/", "https://user:Pass Word@example.com/"),
        *("https://user:Pass\u2100Word@example.com/", "user:PassWord@example.com/", "http://example.com/flows?token=t0ken"),
        *("https://exa mple.com/flows?token=t0ken", "example.com/flows?token=t0ken"),
    ],
)
def test_refused_url_repeats_no_secret(url: str) -> None:
    with pytest.raises(InvalidInput, match="^url ") as caught:
        _split(url)
    # Nor in what a stack trace would show.
    shown = f"{caught.value} {caught.value.__cause__}"
    assert not any(secret in shown for secret in SECRETS), shown
