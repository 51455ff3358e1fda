# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What becomes part of a URL or a header: the account, and the URLs that users give."""

from __future__ import annotations

import pytest
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._account import Account, make_account, normalise_api_url
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._errors import InvalidInput
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._url import split_url

SID = "HXAP16XXXXXX97IN"
API_KEY = "A0b1C2d3E4+/f5G6=h7"


def _account(pod: str | None = None, api_url: str | None = None, sid: str = SID, api_key: str = API_KEY) -> Account:
    return make_account(pod, api_url, sid, api_key)


@pytest.mark.parametrize(
    ("pod", "api_url", "host"),
    [
        *(("in", None, "api.in.kaleyra.io"), ("sg", None, "api.kaleyra.io"), ("eu", None, "api.eu.kaleyra.io"), ("na", None, "api.na.kaleyra.ai")),
        (None, "https://api.ap.kaleyra.io", "api.ap.kaleyra.io"),
    ],
)
def test_each_pod_has_its_host(pod: str, api_url: str, host: str) -> None:
    account = _account(pod, api_url)
    assert account.url("+919876543210") == f"https://{host}/v2/{SID}/whatsapp/+919876543210/flows_encryption"
    assert account.api == host


@pytest.mark.parametrize("pod", ["de", "IN", "in ", "api.in.kaleyra.io"])
def test_unknown_pod_names_the_known_ones(pod: str) -> None:
    with pytest.raises(InvalidInput, match=r"^pod .* is not one of in, sg, eu, na\."):
        _account(pod)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("in", "https://api.in.kaleyra.io", SID, API_KEY), "POD"),
        ((None, None, SID, API_KEY), "POD"),
        (("", "", SID, API_KEY), "POD"),
        (("in", None, "", None), "Set sid or KALEYRA_SID. Set api_key or KALEYRA_API_KEY."),
        ((None, None, None, None), "POD Set sid or KALEYRA_SID. Set api_key or KALEYRA_API_KEY."),
    ],
)
def test_all_missing_options_are_named_at_once(given: tuple[str | None, ...], message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        make_account(*given)
    pod = "Set exactly one of pod and api_url, or KALEYRA_POD or KALEYRA_API_URL in the environment."
    assert str(caught.value) == message.replace("POD", pod, 1) if message.startswith("POD") else message
    assert API_KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "normalised"),
    [
        ("https://api.in.kaleyra.io", "https://api.in.kaleyra.io"),
        ("HTTPS://API.IN.kaleyra.io:443/", "https://api.in.kaleyra.io"),
        ("https://api.in.kaleyra.io.", "https://api.in.kaleyra.io"),
        ("https://api.in.kaleyra.io:", "https://api.in.kaleyra.io"),
        ("https://api.in.kaleyra.io./", "https://api.in.kaleyra.io"),
        ("https://api.example.com:8443", "https://api.example.com:8443"),
        ("https://api.example.com:080", "https://api.example.com:80"),
        ("https://gateway.example.com/Kaleyra/v1_a/", "https://gateway.example.com/Kaleyra/v1_a"),
        ("https://[2001:DB8::1]:8443/", "https://[2001:db8::1]:8443"),
        ("https://192.0.2.7", "https://192.0.2.7"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://127.9.9.9", "http://127.9.9.9"),
        ("http://[::1]:80/", "http://[::1]"),
        ("http://LOCALHOST:8080/", "http://localhost:8080"),
    ],
)
def test_api_host_has_one_spelling(url: str, normalised: str) -> None:
    """So that the same API host has the same records."""
    assert normalise_api_url(url) == normalise_api_url(normalised) == normalised
    assert _account(api_url=url).api == normalised.partition("://")[2]


@pytest.mark.parametrize(
    "url",
    [
        *("http://api.in.kaleyra.io", "http://127.0.0.1.evil.com", "http://localhost.evil.com", "http://10.0.0.1", "http://0.0.0.0"),
        *("http://128.0.0.1", "http://[::2]", "http://2130706433", "http://evil-localhost"),
    ],
)
def test_http_is_refused_beyond_loopback(url: str) -> None:
    with pytest.raises(InvalidInput, match="would send the API key unencrypted"):
        normalise_api_url(url)


@pytest.mark.parametrize(
    "url",
    [
        *("", "api.in.kaleyra.io", "//api.in.kaleyra.io", "https://", "https:///v2", "https://.", "https://:443"),
        *("ftp://api.in.kaleyra.io", "file:///etc/passwd", "javascript:alert(1)", "https://user@api.in.kaleyra.io"),
        *("https://user:secret@api.in.kaleyra.io", "https://api.in.kaleyra.io@evil.com", "https://@evil.com"),
        *("https://evil.com#@api.in.kaleyra.io", "https://api.in.kaleyra.io?a=1", "https://api.in.kaleyra.io/?"),
        *("https://api.in.kaleyra.io/#a", "https://api.in.kaleyra.io/#", " https://api.in.kaleyra.io", "https://api.in.kaleyra.io "),
        *("https://api.in kaleyra.io", "https://api.in.kaleyra.io\n", "https://api.in\n.kaleyra.io"),
        *("https://api.in.kaleyra.io/\r\nX-Evil: 1", "https://api\t.in.kaleyra.io", "\x00https://api.in.kaleyra.io"),
        *("https://api.in.kaleyra.io/..", "https://api.in.kaleyra.io/a/../b", "https://api.in.kaleyra.io/./b"),
        *("https://api.in.kaleyra.io/%2e%2e/b", "https://api.in.kaleyra.io//b", "https://api.in.kaleyra.io\\.evil.com"),
        *("https:\\\\api.in.kaleyra.io", "https://evil.com\\@api.in.kaleyra.io", "https://api.in.kaleyra.io:99999"),
        *("https://api.in.kaleyra.io:-1", "https://api.in.kaleyra.io:https", "https://api.in.kaleyra.io:4 43"),
        *("https://api.in.kaleyra.io:443:443", "https://[::1", "https://[::1%25lo]", "https://api.in.kaleyrä.io"),
        *("https://аpi.in.kaleyra.io", "https://api。kaleyra.io", "https://api.in.kaleyra.io/ünder", "https://api,in.kaleyra.io"),
        *("https://api.in.kaleyra.io/a;b",),
    ],
)
def test_other_url_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match="^api_url ") as caught:
        normalise_api_url(url)
    assert "secret" not in str(caught.value) and str(caught.value).isprintable()


@pytest.mark.parametrize(
    "sid",
    [
        *(" ", "HXAP16/whatsapp", "..", ".", "HX?a=1", "HX#a", "HX%2F..", "HX\\..", "HX;a", "HX,+919876543210", "HXAP16\n", "HX\r\nX-Evil: 1"),
        *("HXÄP", "HX１６", "H" * 65),
    ],
)
def test_other_sid_is_refused(sid: str) -> None:
    with pytest.raises(InvalidInput, match="^sid .* is not an account SID") as caught:
        _account("in", sid=sid)
    assert API_KEY not in str(caught.value)


@pytest.mark.parametrize(
    "api_key",
    [
        *("SECRET-key\r\nX-Evil: 1", "SECRET-key\n", "SECRET-key\r", " SECRET-key", "SECRET key", "SECRET\u00a0key", "SECRET-këy"),
        *("SECRET-key\x00", "SECRET-key\x7f", "SECRET-key\ufeff", "SECRET-\ud800"),
    ],
)
def test_other_api_key_is_refused_and_not_repeated(api_key: str) -> None:
    with pytest.raises(InvalidInput, match="^api_key contains") as caught:
        _account("in", api_key=api_key)
    assert "SECRET" not in str(caught.value) and "SECRET" not in repr(caught.value.details)


def test_printable_api_key_is_accepted_and_not_shown() -> None:
    api_key = "".join(map(chr, range(0x21, 0x7F)))
    account = _account("in", api_key=api_key)
    assert account.api_key == api_key
    assert api_key[-20:] not in f"{account} {account!r}"


def _split(url: str) -> tuple[str, int | None, str, str]:
    parts, host, port = split_url("url", url, example="https://example.com/flows", unencrypted="is none that WhatsApp sends to")
    return host, port, parts.path, parts.query


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("https://flows.example.com/a/b?c=d", ("flows.example.com", None, "/a/b", "c=d")),
        ("https://FLOWS.example.com.:8443", ("flows.example.com", 8443, "", "")),
        ("http://localhost:3000/", ("localhost", 3000, "/", "")),
        ("http://[::1]:3000/", ("::1", 3000, "/", "")),
        ("https://[2001:DB8::0:1]/", ("2001:db8::1", None, "/", "")),
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
    assert not any(secret in shown for secret in ("Pass", "Word", "t0ken")), shown
