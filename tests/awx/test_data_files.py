# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The credential type and the surveys by the rules of AWX, and of the role and the module."""

from __future__ import annotations

import re

import pytest
import yaml
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._account import PODS
from awx import _rules
from awx._rules import Refused
from support.keys import KeyPair
from support.playbook_runs import CHECKOUT

ROLES = CHECKOUT / "roles"
FILES = ROLES / "awx_setup/files"
TYPE = yaml.safe_load((FILES / "credential_type.yml").read_text())
SURVEYS = {path.stem: yaml.safe_load(path.read_text()) for path in FILES.glob("survey_*.yml")}
SPECS = yaml.safe_load((ROLES / "flows_encryption/meta/argument_specs.yml").read_text())["argument_specs"]
FIELDS = TYPE["inputs"]["fields"]
ACCOUNT = {"sid": "HXAP16XXXXXX42IT", "api_key": "the api key"}


def test_credential_type_keeps_secrets_secret() -> None:
    _rules.check_credential_type(TYPE)
    secret = {field["id"] for field in FIELDS if field.get("secret")}
    assert secret == {"api_key", "private_key", "private_key_passphrase", "app_secret", "meta_access_token"}
    # As extra variables, secrets would be plain variables. In the environment, a PEM would lose all lines but the first.
    assert set(TYPE["injectors"]) == {"env", "file"}
    assert not any(re.search(r"\{\{\s*private_key\s*\}\}", template) for template in TYPE["injectors"]["env"].values())
    # AWX adds a type where there is none, which each run of the set-up would find changed. A boolean that is left out counts as false.
    assert {field["type"] for field in FIELDS} == {"string"}


def test_credential_variables_are_read_by_the_role() -> None:
    text = "".join(path.read_text() for path in (ROLES / "flows_encryption").rglob("*.yml"))
    for name in TYPE["injectors"]["env"]:
        assert re.search(rf"\b{name}\b", text), name


def test_credential_takes_each_pod_and_only_private_keys(key: KeyPair) -> None:
    blank = {field["id"]: "" for field in FIELDS}
    for pod in ("", *PODS):
        values = {**blank, **ACCOUNT, "pod": pod}
        assert _rules.save_credential(FIELDS, values) == values
    for text in (key.private, key.private.replace("\n", "\r\n"), key.private.rstrip()):
        _rules.save_credential(FIELDS, {**ACCOUNT, "private_key": text})
    with pytest.raises(Refused):
        _rules.save_credential(FIELDS, {**ACCOUNT, "private_key": key.public})


@pytest.mark.parametrize(("name", "entry_point"), [("survey_register", "main"), ("survey_rotate", "rotate")])
def test_survey_needs_no_answer_and_asks_no_secret(name: str, entry_point: str) -> None:
    """A schedule or the API launches without answers. Everybody who sees a job sees its answers."""
    survey = SURVEYS[name]
    _rules.check_survey(survey)
    defaults = {question["variable"]: question["default"] for question in survey["spec"]}
    assert _rules.answer_survey(survey, {}) == _rules.answer_survey(survey, defaults) == defaults
    options = SPECS[entry_point]["options"]
    assert not any(options[variable].get("no_log") for variable in defaults)


def test_survey_takes_a_fleet_and_a_public_key() -> None:
    answers = {
        "flows_encryption_phone_numbers": "\r\n".join(f"+39333{number:07}" for number in range(5000)),
        "flows_encryption_force": "yes",
        "flows_encryption_public_key": KeyPair.make("RSA", "rsa_keygen_bits:4096").public.replace("\n", "\r\n"),
    }
    _rules.answer_survey(SURVEYS["survey_register"], answers)
