# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rules of AWX for what the set-up posts. Above each rule is its place in AWX 24.6.1."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any

import jinja2
import jinja2.sandbox
from cryptography.hazmat.primitives.serialization import load_pem_private_key


class Refused(Exception):
    """AWX answers with HTTP 400."""


def _require(condition: object, what: object) -> None:
    if not condition:
        raise Refused(str(what))


# awx/main/fields.py: CredentialTypeInputField.schema
_FIELD = {"id", "label", "help_text", "type", "format", "choices", "multiline", "secret", "ask_at_runtime", "default"}
_OF_STRINGS = {"choices", "multiline", "format", "secret"}
# awx/main/constants.py: ENV_BLOCKLIST, in part
_ENV_BLOCKLIST = set("PATH PYTHONPATH VIRTUAL_ENV JOB_ID INVENTORY_ID PROJECT_REVISION AWX_HOST MAX_EVENT_RES".split())


def check_credential_type(definition: Mapping[str, Any]) -> None:
    """Raise Refused for a credential type that AWX refuses."""
    # awx/api/serializers.py: CredentialTypeSerializer.validate
    _require(definition["kind"] in ("cloud", "net"), definition["kind"])
    fields, env, files = definition["inputs"]["fields"], definition["injectors"].get("env", {}), definition["injectors"].get("file", {})
    # awx/main/fields.py: CredentialTypeInputField.validate
    names = [field["id"] for field in fields]
    _require(len(set(names)) == len(names) and "tower" not in names and not set(definition["inputs"]) - {"fields", "required"}, names)
    for field in fields:
        _require(not set(field) - _FIELD and "label" in field and field.get("choices") != [], field)
        _require(field.get("format") in (None, "ssh_private_key", "url"), field)
        _require(field.get("type", "string") == "string" or not _OF_STRINGS & set(field), field)
    # awx/main/fields.py: CredentialTypeInjectorField.schema, validate_env_var_allowed
    _require(not set(definition["injectors"]) - {"file", "env", "extra_vars"}, "injectors")
    for name, template in env.items():
        allowed = re.fullmatch(r"[a-zA-Z_]\w*", name) and not name.startswith("ANSIBLE_") and name not in _ENV_BLOCKLIST
        _require(allowed and template.isascii(), name)
    # awx/main/fields.py: CredentialTypeInjectorField.validate
    filenames = SimpleNamespace(**{label.partition(".")[2]: "EXAMPLE" for label in files})
    namespace = {**dict.fromkeys(names, "EXAMPLE"), "tower": SimpleNamespace(filename=filenames)}
    sandbox = jinja2.sandbox.ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined)
    for template in [*env.values(), *files.values()]:
        try:
            sandbox.from_string(template).render(namespace)
        except jinja2.TemplateError as exc:
            raise Refused(f"{template}: {exc}") from exc


def save_credential(fields: Iterable[Mapping[str, Any]], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what AWX saves of a credential's inputs, or raise Refused."""
    by_id = {field["id"]: field for field in fields}
    saved = {}
    for name, value in values.items():
        _require(name in by_id, name)
        # awx/main/fields.py: CredentialInputField.validate; an empty value becomes the first of the choices
        choices = by_id[name].get("choices", [])
        saved[name] = value or (choices[0] if choices else value)
        _require(not choices or saved[name] in choices, f"{name}: {value}")
        # awx/main/validators.py: validate_ssh_private_key
        if by_id[name].get("format") == "ssh_private_key" and value:
            try:
                load_pem_private_key(value.encode(), None)
            except TypeError:  # encrypted
                pass
            except ValueError as exc:
                raise Refused(f"{name}: {exc}") from exc
    return saved


# awx/api/views/__init__.py: SURVEY_TYPE_MAPPING, in part
_TYPES = ("text", "textarea", "password", "multiplechoice")


def check_survey(survey: Mapping[str, Any]) -> None:
    """Raise Refused for a survey that AWX refuses. Only questions whose answers are text are known here."""
    # awx/api/views/__init__.py: JobTemplateSurveySpec._validate_spec_data
    questions = survey["spec"]
    _require(isinstance(survey["name"], str) and isinstance(survey["description"], str) and questions, "survey")
    _require(len({question["variable"] for question in questions}) == len(questions), "variable twice")
    for question in questions:
        texts = (question["question_name"], question["variable"], question.get("default", ""))
        _require(question["type"] in _TYPES and isinstance(question["required"], bool) and all(isinstance(text, str) for text in texts), question)
        _require(all(isinstance(question.get(bound), int | None) for bound in ("min", "max")), question)
        if question["type"] == "multiplechoice":
            _require(all(default in question["choices"] for default in question["default"].splitlines()), question)


def answer_survey(survey: Mapping[str, Any], answers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the extra variables of a launch with these answers, or raise Refused."""
    for question in survey["spec"]:
        variable = question["variable"]
        # awx/main/models/mixins.py: SurveyJobTemplateMixin._survey_element_validation
        if variable not in answers:
            _require(not question["required"], f"'{variable}' value missing")
        elif question["type"] == "multiplechoice":
            _require(answers[variable] in question["choices"], variable)
        else:
            _require(isinstance(answers[variable], str) and question["min"] <= len(answers[variable]) <= question["max"], variable)
    # awx/main/models/mixins.py: SurveyJobTemplateMixin._update_unified_job_kwargs
    return {**{question["variable"]: question["default"] for question in survey["spec"]}, **answers}


# awx/main/utils/ansible.py: could_be_playbook
def could_be_playbook(text: str) -> bool:
    """Whether AWX offers a file as a playbook."""
    return any(re.match(r"^\s*?-?\s*?(?:hosts|include|import_playbook):\s*?.*?$", line) for line in text.splitlines())
