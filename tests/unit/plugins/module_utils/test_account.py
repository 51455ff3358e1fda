# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._account import Account, make_account, normalise_api_url
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._errors import InvalidInput
from hypothesis import given
from hypothesis import strategies as st

SID = "HXAP16XXXXXX97IN"
API_KEY = "A0b1C2d3E4+/f5G6=h7"


def _account(pod: str | None = None, api_url: str | None = None, sid: str = SID, api_key: str = API_KEY) -> Account:
    return make_account(pod, api_url, sid, api_key)


@pytest.mark.parametrize(
    ("pod", "host"),
    [("in", "api.in.kaleyra.io"), ("sg", "api.kaleyra.io"), ("eu", "api.eu.kaleyra.io"), ("na", "api.na.kaleyra.ai")],
)
def test_each_pod_has_the_host_that_the_vendor_prints(pod: str, host: str) -> None:
    account = _account(pod)
    assert account.url("+919876543210") == f"https://{host}/v2/{SID}/whatsapp/+919876543210/flows_encryption"
    assert account.api == host


def test_a_url_stands_in_for_the_pod() -> None:
    account = _account(api_url="https://api.ap.kaleyra.io")
    assert account.url("+14155550123") == f"https://api.ap.kaleyra.io/v2/{SID}/whatsapp/+14155550123/flows_encryption"


@pytest.mark.parametrize(("pod", "api_url"), [("in", "https://api.in.kaleyra.io"), (None, None), ("", "")])
def test_exactly_one_of_pod_and_api_url_is_needed(pod: str | None, api_url: str | None) -> None:
    with pytest.raises(InvalidInput, match=r"^Set exactly one of pod and api_url, or KALEYRA_POD or KALEYRA_API_URL in the environment\.$"):
        _account(pod, api_url)


def test_all_that_is_missing_is_told_at_once() -> None:
    with pytest.raises(InvalidInput) as caught:
        make_account("in", None, "", None)
    assert str(caught.value) == "Set sid or KALEYRA_SID. Set api_key or KALEYRA_API_KEY."
    with pytest.raises(InvalidInput, match="^Set exactly one of .* Set sid or KALEYRA_SID. Set api_key or KALEYRA_API_KEY.$"):
        make_account(None, None, None, None)


@pytest.mark.parametrize("pod", ["de", "IN", "in ", "api.in.kaleyra.io"])
def test_an_unknown_pod_is_refused_with_the_known_ones(pod: str) -> None:
    with pytest.raises(InvalidInput, match=r"^pod .* is not one of in, sg, eu, na\.$"):
        _account(pod)


@pytest.mark.parametrize(
    ("url", "normalised"),
    [
        pytest.param("https://api.in.kaleyra.io", "https://api.in.kaleyra.io", id="plain"),
        pytest.param("HTTPS://API.IN.kaleyra.io:443/", "https://api.in.kaleyra.io", id="case-port-and-slash"),
        pytest.param("https://api.in.kaleyra.io.", "https://api.in.kaleyra.io", id="dot-of-the-root"),
        pytest.param("https://api.in.kaleyra.io:", "https://api.in.kaleyra.io", id="empty-port"),
        pytest.param("https://api.example.com:8443", "https://api.example.com:8443", id="port"),
        pytest.param("https://api.example.com:080", "https://api.example.com:80", id="port-with-a-zero"),
        pytest.param("https://gateway.example.com/Kaleyra/v1_a/", "https://gateway.example.com/Kaleyra/v1_a", id="path"),
        pytest.param("https://[2001:DB8::1]:8443/", "https://[2001:db8::1]:8443", id="ipv6"),
        pytest.param("https://192.0.2.7", "https://192.0.2.7", id="ipv4"),
        pytest.param("http://127.0.0.1:8080", "http://127.0.0.1:8080", id="loopback"),
        pytest.param("http://127.9.9.9", "http://127.9.9.9", id="anywhere-in-127"),
        pytest.param("http://[::1]:80/", "http://[::1]", id="loopback-ipv6"),
        pytest.param("http://LOCALHOST:8080/", "http://localhost:8080", id="localhost"),
    ],
)
def test_each_api_host_has_one_spelling(url: str, normalised: str) -> None:
    assert normalise_api_url(url) == normalised
    assert normalise_api_url(normalised) == normalised


@pytest.mark.parametrize(
    "url", ["HTTPS://API.IN.kaleyra.io:443/", "https://api.in.kaleyra.io", "https://api.in.kaleyra.io./", "https://api.in.Kaleyra.IO:443"]
)
def test_a_pod_and_its_url_in_any_spelling_share_their_records(url: str) -> None:
    assert _account(api_url=url).api == _account("in").api


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("https://api.in.kaleyra.io:8443", id="port"),
        pytest.param("https://api.in.kaleyra.io/mirror", id="path"),
        pytest.param("https://api.eu.kaleyra.io", id="host"),
    ],
)
def test_another_api_has_other_records(url: str) -> None:
    assert _account(api_url=url).api != _account("in").api


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("http://api.in.kaleyra.io", id="api"),
        pytest.param("http://127.0.0.1.evil.com", id="looks-like-loopback"),
        pytest.param("http://localhost.evil.com", id="looks-like-localhost"),
        pytest.param("http://10.0.0.1", id="private-network"),
        pytest.param("http://0.0.0.0", id="any-address"),
        pytest.param("http://128.0.0.1", id="not-127"),
        pytest.param("http://[::2]", id="ipv6"),
        pytest.param("http://2130706433", id="127.0.0.1-as-a-number"),
        pytest.param("http://evil-localhost", id="ends-in-localhost"),
    ],
)
def test_http_is_refused_beyond_loopback(url: str) -> None:
    with pytest.raises(InvalidInput, match="would send the API key unencrypted"):
        normalise_api_url(url)


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("", id="empty"),
        pytest.param("api.in.kaleyra.io", id="no-scheme"),
        pytest.param("//api.in.kaleyra.io", id="relative"),
        pytest.param("https://", id="no-host"),
        pytest.param("https:///v2", id="no-host-but-a-path"),
        pytest.param("https://.", id="dot-for-a-host"),
        pytest.param("https://:443", id="port-alone"),
        pytest.param("ftp://api.in.kaleyra.io", id="ftp"),
        pytest.param("file:///etc/passwd", id="file"),
        pytest.param("javascript:alert(1)", id="javascript"),
        pytest.param("https://user@api.in.kaleyra.io", id="user"),
        pytest.param("https://user:secret@api.in.kaleyra.io", id="password"),
        pytest.param("https://api.in.kaleyra.io@evil.com", id="host-as-user"),
        pytest.param("https://@evil.com", id="empty-user"),
        pytest.param("https://evil.com#@api.in.kaleyra.io", id="fragment-before-the-host"),
        pytest.param("https://api.in.kaleyra.io?a=1", id="query"),
        pytest.param("https://api.in.kaleyra.io/?", id="empty-query"),
        pytest.param("https://api.in.kaleyra.io/#a", id="fragment"),
        pytest.param("https://api.in.kaleyra.io/#", id="empty-fragment"),
        pytest.param(" https://api.in.kaleyra.io", id="blank-before"),
        pytest.param("https://api.in.kaleyra.io ", id="blank-behind"),
        pytest.param("https://api.in kaleyra.io", id="blank-inside"),
        pytest.param("https://api.in.kaleyra.io\n", id="newline"),
        pytest.param("https://api.in\n.kaleyra.io", id="newline-inside"),
        pytest.param("https://api.in.kaleyra.io/\r\nX-Evil: 1", id="header-injection"),
        pytest.param("https://api\t.in.kaleyra.io", id="tab"),
        pytest.param("\x00https://api.in.kaleyra.io", id="nul"),
        pytest.param("https://api.in.kaleyra.io/..", id="parent"),
        pytest.param("https://api.in.kaleyra.io/a/../b", id="parent-inside"),
        pytest.param("https://api.in.kaleyra.io/./b", id="same-folder"),
        pytest.param("https://api.in.kaleyra.io/%2e%2e/b", id="encoded-parent"),
        pytest.param("https://api.in.kaleyra.io//b", id="two-slashes"),
        pytest.param("https://api.in.kaleyra.io\\.evil.com", id="backslash"),
        pytest.param("https:\\\\api.in.kaleyra.io", id="backslashes-for-slashes"),
        pytest.param("https://evil.com\\@api.in.kaleyra.io", id="backslash-and-user"),
        pytest.param("https://api.in.kaleyra.io:99999", id="port-too-high"),
        pytest.param("https://api.in.kaleyra.io:-1", id="port-negative"),
        pytest.param("https://api.in.kaleyra.io:https", id="port-as-word"),
        pytest.param("https://api.in.kaleyra.io:4 43", id="port-with-blank"),
        pytest.param("https://api.in.kaleyra.io:443:443", id="two-ports"),
        pytest.param("https://[::1", id="ipv6-open"),
        pytest.param("https://[::1%25lo]", id="ipv6-zone"),
        pytest.param("https://api.in.kaleyrä.io", id="idn"),
        pytest.param("https://аpi.in.kaleyra.io", id="cyrillic-a"),
        pytest.param("https://api。kaleyra.io", id="ideographic-full-stop"),
        pytest.param("https://api.in.kaleyra.io/ünder", id="non-ascii-path"),
        pytest.param("https://api,in.kaleyra.io", id="comma"),
        pytest.param("https://api.in.kaleyra.io/a;b", id="semicolon"),
    ],
)
def test_what_is_no_base_url_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match="^api_url ") as caught:
        normalise_api_url(url)
    assert "secret" not in str(caught.value)
    assert str(caught.value).isprintable()


@given(st.one_of(st.text(), st.text(st.sampled_from("htps:/.@[]\\?#%0127localhost;, \n-"), max_size=30).map("https://".__add__)))
def test_every_text_gives_a_url_of_that_host_or_invalid_input(url: str) -> None:
    try:
        normalised = normalise_api_url(url)
    except InvalidInput:
        return
    assert normalise_api_url(normalised) == normalised
    parts = urlsplit(normalised)
    assert parts.scheme == "https" or parts.hostname in ("localhost", "127.0.0.1", "::1") or str(parts.hostname).startswith("127.")
    assert not parts.query and not parts.fragment and "@" not in normalised and not normalised.endswith("/")


@pytest.mark.parametrize(
    "sid",
    [
        pytest.param(" ", id="blank"),
        pytest.param("HXAP16/whatsapp", id="slash"),
        pytest.param("..", id="parent"),
        pytest.param(".", id="dot"),
        pytest.param("HX?a=1", id="query"),
        pytest.param("HX#a", id="fragment"),
        pytest.param("HX%2F..", id="encoded"),
        pytest.param("HX\\..", id="backslash"),
        pytest.param("HX;a", id="semicolon"),
        pytest.param("HX,+919876543210", id="comma"),
        pytest.param("HXAP16\n", id="newline-at-the-end"),
        pytest.param("HX\r\nX-Evil: 1", id="header-injection"),
        pytest.param("HXÄP", id="non-ascii"),
        pytest.param("HX１６", id="full-width-digits"),
        pytest.param("H" * 65, id="too-long"),
    ],
)
def test_a_sid_that_would_change_the_url_is_refused(sid: str) -> None:
    with pytest.raises(InvalidInput, match="^sid .* is not an account SID"):
        _account("in", sid=sid)


@pytest.mark.parametrize(
    "api_key",
    [
        pytest.param("SECRET-key\r\nX-Evil: 1", id="header-injection"),
        pytest.param("SECRET-key\n", id="newline-at-the-end"),
        pytest.param("SECRET-key\r", id="carriage-return"),
        pytest.param(" SECRET-key", id="blank-before"),
        pytest.param("SECRET key", id="blank-inside"),
        pytest.param("SECRET\u00a0key", id="no-break-space"),
        pytest.param("SECRET-këy", id="non-ascii"),
        pytest.param("SECRET-key\x00", id="nul"),
        pytest.param("SECRET-key\x7f", id="delete"),
        pytest.param("SECRET-key\ufeff", id="bom"),
        pytest.param("SECRET-\ud800", id="surrogate"),
    ],
)
def test_an_api_key_that_no_header_can_carry_is_refused_and_not_repeated(api_key: str) -> None:
    with pytest.raises(InvalidInput, match="^api_key contains") as caught:
        _account("in", api_key=api_key)
    assert "SECRET" not in str(caught.value)
    assert "SECRET" not in repr(caught.value.details)


def test_every_sign_that_a_header_can_carry_is_fine_in_an_api_key() -> None:
    api_key = "".join(map(chr, range(0x21, 0x7F)))
    assert _account("in", api_key=api_key).api_key == api_key


def test_the_api_key_is_not_in_the_repr() -> None:
    account = _account("in")
    assert API_KEY not in repr(account)
    assert API_KEY not in f"{account}"


def test_no_bad_option_has_the_api_key_in_its_message() -> None:
    for options in ({"pod": "xx"}, {"api_url": "nonsense"}, {"pod": "in", "sid": "."}, {}):
        with pytest.raises(InvalidInput) as caught:
            _account(**options)
        assert API_KEY not in str(caught.value)
