# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The credential type and the surveys against the rules of AWX, and the role's and module's own."""

from __future__ import annotations

import copy
import re
from typing import Any

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
BLANK = {field["id"]: "" for field in FIELDS}
ACCOUNT = {"sid": "HXAP16XXXXXX42IT", "api_key": "the api key"}


def test_credential_type_is_accepted() -> None:
    _rules.check_credential_type(TYPE)


def test_credential_type_comes_back_as_it_was_sent() -> None:
    """AWX adds a type where there is none: then each run of the set-up would find a difference."""
    assert all("type" in field for field in TYPE["inputs"]["fields"])


def test_credential_type_gives_secrets_to_nobody() -> None:
    secret = {field["id"] for field in TYPE["inputs"]["fields"] if field.get("secret")}
    assert secret == {"api_key", "private_key", "private_key_passphrase", "app_secret", "meta_access_token"}
    # As extra variables, secrets would be plain variables. In the environment, a PEM would lose all lines but the first.
    assert set(TYPE["injectors"]) == {"env", "file"}
    assert not any(re.search(r"\{\{\s*private_key\s*\}\}", template) for template in TYPE["injectors"]["env"].values())
    # No flag: one that is left out counts as false, also one that turns a check on.
    assert {field["type"] for field in TYPE["inputs"]["fields"]} == {"string"}


def test_every_variable_is_read_by_the_role() -> None:
    text = "".join(path.read_text() for path in (ROLES / "flows_encryption").rglob("*.yml"))
    for name in TYPE["injectors"]["env"]:
        assert re.search(rf"\b{name}\b", text), name


@pytest.mark.parametrize("pod", ["", "in", "sg", "eu", "na"])
def test_values_are_saved_as_they_are(pod: str) -> None:
    values = {**BLANK, **ACCOUNT, "pod": pod}
    assert _rules.save_credential(FIELDS, values) == values


def test_every_pod_of_the_role_can_be_chosen() -> None:
    (choices,) = [field["choices"] for field in TYPE["inputs"]["fields"] if field["id"] == "pod"]
    assert set(choices) == {"", *PODS}


def test_a_private_key_is_accepted_and_a_public_one_refused() -> None:
    key = KeyPair.make("RSA", "rsa_keygen_bits:2048")
    for text in (key.private, key.private.replace("\n", "\r\n"), key.private.rstrip()):
        _rules.save_credential(FIELDS, {**ACCOUNT, "private_key": text})
    with pytest.raises(Refused):
        _rules.save_credential(FIELDS, {**ACCOUNT, "private_key": key.public})


@pytest.mark.parametrize("name", SURVEYS)
def test_survey_is_accepted(name: str) -> None:
    survey = SURVEYS[name]
    _rules.check_survey(survey)
    # Launched by a schedule or the API, without an answer.
    defaults = {question["variable"]: question["default"] for question in survey["spec"]}
    assert _rules.answer_survey(survey, {}) == _rules.answer_survey(survey, defaults) == defaults


@pytest.mark.parametrize(("name", "entry_point"), [("survey_register", "main"), ("survey_rotate", "rotate")])
def test_survey_asks_for_what_the_role_has(name: str, entry_point: str) -> None:
    options = SPECS[entry_point]["options"]
    for question in SURVEYS[name]["spec"]:
        assert question["variable"] in options
        # Not a secret: everybody who sees the job sees the answers.
        assert not options[question["variable"]].get("no_log")


def test_surveys_take_what_there_may_be() -> None:
    key = KeyPair.make("RSA", "rsa_keygen_bits:4096").public
    answers = {
        "flows_encryption_phone_numbers": "\r\n".join(f"+39333{number:07}" for number in range(5000)),
        "flows_encryption_force": "yes",
        "flows_encryption_public_key": key.replace("\n", "\r\n"),
    }
    _rules.answer_survey(SURVEYS["survey_register"], answers)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda it: it["injectors"]["env"].update(ANSIBLE_FORCE_COLOR="{{ sid }}"),
        lambda it: it["injectors"]["env"].update(KALEYRA_SID="{{ account }}"),
        lambda it: it["injectors"]["env"].update(KALEYRA_SID="{{ tower.filename }}"),
        lambda it: it["injectors"]["env"].update(KALEYRA_SID="{{ sid | quote }}"),
        lambda it: it["inputs"]["fields"].append({"id": "sid", "label": "again", "type": "string"}),
        lambda it: it["inputs"]["fields"][0].update(type="boolean"),
        lambda it: it.update(kind="ssh"),
    ],
)
def test_credential_type_with_a_likely_mistake_is_refused(spoil: Any) -> None:
    definition = copy.deepcopy(TYPE)
    spoil(definition)
    with pytest.raises(Refused):
        _rules.check_credential_type(definition)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda survey: survey["spec"].append(survey["spec"][0]),
        lambda survey: survey["spec"][0].update(type="boolean"),
        lambda survey: survey["spec"][1].update(choices=[False, True]),
        lambda survey: survey["spec"][1].update(default="maybe"),
    ],
)
def test_survey_with_a_likely_mistake_is_refused(spoil: Any) -> None:
    survey = copy.deepcopy(SURVEYS["survey_register"])
    spoil(survey)
    with pytest.raises(Refused):
        _rules.check_survey(survey)
