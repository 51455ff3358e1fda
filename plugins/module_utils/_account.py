# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Kaleyra account that a number belongs to."""

from __future__ import annotations

import dataclasses
import functools
import re

from ._errors import InvalidInput
from ._url import split_url

PODS = {
    "in": "https://api.in.kaleyra.io",
    "sg": "https://api.kaleyra.io",
    "eu": "https://api.eu.kaleyra.io",
    "na": "https://api.na.kaleyra.ai",
}

_DEFAULT_PORTS = {"https": 443, "http": 80}

# Compiled here, in the process that forks the workers, like everything that each task needs.
_SID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_VISIBLE = re.compile(r"[!-~]+")
_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)*/?")
_DOTS = re.compile(r"/\.\.?(/|$)")


@dataclasses.dataclass(frozen=True)
class Account:
    """One account on one API host.

    :param base_url: normalised by :func:`make_account`, without a final slash
    :param sid: account SID, for example ``HXAP16XXXXXX97IN``
    :param api_key: secret
    """

    base_url: str
    sid: str
    api_key: str = dataclasses.field(repr=False)

    @functools.cached_property
    def api(self) -> str:
        """API host, with port and path if they are not the default ones. Records are bound to it."""
        return self.base_url.partition("://")[2]

    def url(self, phone_number: str) -> str:
        """URL that sets the number's public key, with a literal plus sign."""
        return f"{self.base_url}/v2/{self.sid}/whatsapp/{phone_number}/flows_encryption"


def make_account(pod: str | None, api_url: str | None, sid: str | None, api_key: str | None) -> Account:
    """Check every part that becomes part of a URL or of a header.

    :raises InvalidInput: naming the option; an API key is never repeated
    """
    missing = []
    if bool(pod) == bool(api_url):
        missing.append("Set exactly one of pod and api_url, or KALEYRA_POD or KALEYRA_API_URL in the environment.")
    if not sid:
        missing.append("Set sid or KALEYRA_SID.")
    if not api_key:
        missing.append("Set api_key or KALEYRA_API_KEY.")
    if missing or not sid or not api_key:
        raise InvalidInput(" ".join(missing))
    if pod and pod not in PODS:
        raise InvalidInput(f"pod {pod[:40]!r} is not one of {', '.join(PODS)}.")
    if not _SID.fullmatch(sid):
        raise InvalidInput(f"sid {sid[:40]!r} is not an account SID, which has only letters and digits, for example HXAP16XXXXXX97IN.")
    if not _VISIBLE.fullmatch(api_key):
        raise InvalidInput(
            "api_key contains a space, a line break or another character that is not possible in an HTTP header. "
            "Copy it again from the account's API settings."
        )
    return Account(normalise_api_url(PODS[pod] if pod else str(api_url)), sid, api_key)


def normalise_api_url(url: str, option: str = "api_url", *, example: str = PODS["in"], what: str = "API key") -> str:
    """Return the base URL in one spelling, so that the same API host has the same records.

    :param option: name of the option, for messages
    :param what: the secret that is sent there, for messages
    :raises InvalidInput: not ``https`` (``http`` is accepted for loopback hosts only), or with user, query or fragment
    """
    parts, host, port = split_url(option, url, example=example, unencrypted=f"would send the {what} unencrypted")
    if not _PATH.fullmatch(parts.path) or _DOTS.search(parts.path) or "?" in url:
        raise InvalidInput(f"{option} {url[:80]!r} is not a base URL. Use one like {example}.")
    if ":" in host:
        host = f"[{host}]"
    if port not in (None, _DEFAULT_PORTS[parts.scheme]):
        host = f"{host}:{port}"
    return f"{parts.scheme}://{host}{parts.path.rstrip('/')}"
