# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._module import reject_misplaced_secrets
from ansible_collections.kaleyra.whatsapp.plugins.modules.kaleyra_flows_encryption import SPEC

API_KEY = "A0b1C2d3E4+/f5G6=h7"
_OPTIONS = ("sid", "phone_number", "business_public_key_path", "known_fingerprint", "cache_path", "ca_path", "timeout", "api_url")


def _check_both(arguments: dict[str, Any], option: str, *secrets: str) -> None:
    """As the action plugin sees the arguments, and as the module does."""
    for result in (reject_misplaced_secrets(arguments), SPEC.run(arguments, check_mode=False, diff_mode=True)):
        assert result["failed"] and result["msg"].startswith(f"{option} contains ")
        assert not any(secret in str(result) for secret in secrets)


@pytest.mark.parametrize("option", _OPTIONS)
def test_secret_in_a_wrong_option_is_not_repeated(option: str, private_key: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    text = private_key("rsa-2048").read_text()
    _check_both({"api_key": API_KEY, option: text}, option, *text.splitlines()[1:-1])
    for value in (API_KEY, f"https://api.example/?api-key={API_KEY}", f"/srv/{API_KEY}.pem"):
        _check_both({"api_key": API_KEY, option: value}, option, API_KEY)
    monkeypatch.setenv("KALEYRA_API_KEY", API_KEY)
    _check_both({"phone_numbers": ["+919876543210", API_KEY]}, "phone_numbers", API_KEY)


@pytest.mark.parametrize("name", ["private key.pem", "privatekey.pem", "private_key", "Private Key of the endpoint.txt"])
def test_words_in_a_path_are_no_secrets(name: str) -> None:
    assert reject_misplaced_secrets({"api_key": API_KEY, "business_public_key_path": f"/etc/flows/{name}"}) == {}
    assert reject_misplaced_secrets({"api_key": "in", "cache_path": "/var/lib/flows/in"}) == {}


@pytest.mark.parametrize(("option", "variable"), [("meta_access_token", "META_ACCESS_TOKEN"), ("app_secret", None)])
def test_other_secret_in_a_wrong_option_is_not_repeated(option: str, variable: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "EAAB-Secret-0815-4711"
    arguments = {option: secret}
    if variable:
        monkeypatch.setenv(variable, secret)
        arguments = {}
    result = reject_misplaced_secrets({**arguments, "api_key": API_KEY, "ca_path": f"/x/{secret}"})
    assert result["failed"] and result["msg"].startswith(f"ca_path contains the value of {option}, ") and secret not in str(result)
