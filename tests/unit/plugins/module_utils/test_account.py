# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._account import Account, make_account, normalise_api_url
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._errors import InvalidInput

SID = "HXAP16XXXXXX97IN"
API_KEY = "A0b1C2d3E4+/f5G6=h7"


def _account(pod: str | None = None, api_url: str | None = None, sid: str = SID, api_key: str = API_KEY) -> Account:
    return make_account(pod, api_url, sid, api_key)


@pytest.mark.parametrize(
    ("pod", "host"),
    [("in", "api.in.kaleyra.io"), ("sg", "api.kaleyra.io"), ("eu", "api.eu.kaleyra.io"), ("na", "api.na.kaleyra.ai")],
)
def test_each_pod_has_its_host(pod: str, host: str) -> None:
    account = _account(pod)
    assert account.url("+919876543210") == f"https://{host}/v2/{SID}/whatsapp/+919876543210/flows_encryption"
    assert account.api == host


def test_url_replaces_the_pod() -> None:
    account = _account(api_url="https://api.ap.kaleyra.io")
    assert account.url("+14155550123") == f"https://api.ap.kaleyra.io/v2/{SID}/whatsapp/+14155550123/flows_encryption"


@pytest.mark.parametrize(("pod", "api_url"), [("in", "https://api.in.kaleyra.io"), (None, None), ("", "")])
def test_exactly_one_of_pod_and_api_url(pod: str | None, api_url: str | None) -> None:
    with pytest.raises(InvalidInput, match=r"^Set exactly one of pod and api_url, or KALEYRA_POD or KALEYRA_API_URL in the environment\.$"):
        _account(pod, api_url)


def test_all_missing_options_are_told_at_once() -> None:
    with pytest.raises(InvalidInput) as caught:
        make_account("in", None, "", None)
    assert str(caught.value) == "Set sid or KALEYRA_SID. Set api_key or KALEYRA_API_KEY."
    with pytest.raises(InvalidInput, match="^Set exactly one of .* Set sid or KALEYRA_SID. Set api_key or KALEYRA_API_KEY.$"):
        make_account(None, None, None, None)


@pytest.mark.parametrize("pod", ["de", "IN", "in ", "api.in.kaleyra.io"])
def test_unknown_pod_names_the_known_ones(pod: str) -> None:
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
def test_api_host_has_one_spelling(url: str, normalised: str) -> None:
    assert normalise_api_url(url) == normalised
    assert normalise_api_url(normalised) == normalised


@pytest.mark.parametrize(
    "url", ["HTTPS://API.IN.kaleyra.io:443/", "https://api.in.kaleyra.io", "https://api.in.kaleyra.io./", "https://api.in.Kaleyra.IO:443"]
)
def test_pod_and_its_url_share_records(url: str) -> None:
    assert _account(api_url=url).api == _account("in").api


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("https://api.in.kaleyra.io:8443", id="port"),
        pytest.param("https://api.in.kaleyra.io/mirror", id="path"),
        pytest.param("https://api.eu.kaleyra.io", id="host"),
    ],
)
def test_other_api_has_other_records(url: str) -> None:
    assert _account(api_url=url).api != _account("in").api


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
    assert "secret" not in str(caught.value)
    assert str(caught.value).isprintable()


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
def test_bad_sid_is_refused(sid: str) -> None:
    with pytest.raises(InvalidInput, match="^sid .* is not an account SID"):
        _account("in", sid=sid)


@pytest.mark.parametrize(
    "api_key",
    [
        *("SECRET-key\r\nX-Evil: 1", "SECRET-key\n", "SECRET-key\r", " SECRET-key", "SECRET key", "SECRET\u00a0key", "SECRET-këy"),
        *("SECRET-key\x00", "SECRET-key\x7f", "SECRET-key\ufeff", "SECRET-\ud800"),
    ],
)
def test_bad_api_key_is_refused_and_not_repeated(api_key: str) -> None:
    with pytest.raises(InvalidInput, match="^api_key contains") as caught:
        _account("in", api_key=api_key)
    assert "SECRET" not in str(caught.value)
    assert "SECRET" not in repr(caught.value.details)


def test_printable_api_key_is_taken() -> None:
    api_key = "".join(map(chr, range(0x21, 0x7F)))
    assert _account("in", api_key=api_key).api_key == api_key


def test_api_key_is_not_in_the_repr() -> None:
    account = _account("in")
    assert API_KEY not in repr(account)
    assert API_KEY not in f"{account}"


def test_bad_option_does_not_tell_the_api_key() -> None:
    for options in ({"pod": "xx"}, {"api_url": "nonsense"}, {"pod": "in", "sid": "."}, {}):
        with pytest.raises(InvalidInput) as caught:
            _account(**options)
        assert API_KEY not in str(caught.value)
