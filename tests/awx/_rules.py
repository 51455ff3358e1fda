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


# awx/main/fields.py: CredentialTypeInputField.schema
_FIELD = frozenset(("id", "label", "help_text", "type", "format", "choices", "multiline", "secret", "ask_at_runtime", "default"))
_OF_STRINGS = frozenset(("choices", "multiline", "format", "secret"))
# awx/main/constants.py: ENV_BLOCKLIST, in part
_ENV_BLOCKLIST = frozenset("PATH PYTHONPATH VIRTUAL_ENV JOB_ID INVENTORY_ID PROJECT_REVISION AWX_HOST MAX_EVENT_RES".split())


def check_credential_type(definition: Mapping[str, Any]) -> None:
    """Raise Refused for a credential type that AWX refuses."""
    # awx/api/serializers.py: CredentialTypeSerializer.validate
    if definition["kind"] not in ("cloud", "net"):
        raise Refused(f"kind {definition['kind']}")
    fields, env = definition["inputs"]["fields"], definition["injectors"].get("env", {})
    # awx/main/fields.py: CredentialTypeInputField.validate
    names = [field["id"] for field in fields]
    if len(set(names)) < len(names) or "tower" in names or set(definition["inputs"]) - {"fields", "required"}:
        raise Refused(f"inputs {names}")
    for field in fields:
        if set(field) - _FIELD or "label" not in field or field.get("format") not in (None, "ssh_private_key", "url") or field.get("choices") == []:
            raise Refused(f"field {field}")
        if field.get("type", "string") != "string" and _OF_STRINGS & set(field):
            raise Refused(f"{field['id']} is no string")
    # awx/main/fields.py: CredentialTypeInjectorField.schema, validate_env_var_allowed
    if set(definition["injectors"]) - {"file", "env", "extra_vars"}:
        raise Refused("injectors")
    for name, template in env.items():
        if not re.fullmatch(r"[a-zA-Z_]\w*", name) or name.startswith("ANSIBLE_") or name in _ENV_BLOCKLIST or not template.isascii():
            raise Refused(f"environment variable {name}")
    # awx/main/fields.py: CredentialTypeInjectorField.validate
    labels = [label.partition(".")[2] for label in definition["injectors"].get("file", {})]
    namespace = {**dict.fromkeys(names, "EXAMPLE"), "tower": SimpleNamespace(filename=_Files(**dict.fromkeys(labels, "EXAMPLE")))}
    sandbox = jinja2.sandbox.ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined)
    for template in [*env.values(), *definition["injectors"].get("file", {}).values()]:
        try:
            sandbox.from_string(template).render(namespace)
        except jinja2.TemplateError as exc:
            raise Refused(f"{template}: {exc}") from exc


class _Files(SimpleNamespace):
    def __str__(self) -> str:
        raise jinja2.UndefinedError("Must define unnamed file injector in order to reference `tower.filename`.")


def save_credential(fields: Iterable[Mapping[str, Any]], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what AWX saves of a credential's inputs, or raise Refused."""
    by_id = {field["id"]: field for field in fields}
    saved = {}
    for name, value in values.items():
        if name not in by_id:
            raise Refused(f"no field {name}")
        # awx/main/fields.py: CredentialInputField.validate; an empty value becomes the first of the choices
        choices = by_id[name].get("choices", [])
        saved[name] = value or (choices[0] if choices else value)
        if choices and saved[name] not in choices:
            raise Refused(f"{name}: {value}")
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
    if not all(isinstance(survey.get(name), kind) for name, kind in (("name", str), ("description", str), ("spec", list))) or not survey["spec"]:
        raise Refused("survey")
    for question in survey["spec"]:
        texts = (question.get("type"), question.get("question_name"), question.get("variable"), question.get("default", ""))
        if not all(isinstance(text, str) for text in texts) or not isinstance(question.get("required"), bool) or question["type"] not in _TYPES:
            raise Refused(f"question {question}")
        if not all(isinstance(question.get(bound), int | None) for bound in ("min", "max")):
            raise Refused("bounds")
        if question["type"] == "multiplechoice" and (
            "choices" not in question or any(default not in question["choices"] for default in question["default"].splitlines())
        ):
            raise Refused("choices")
    if len({question["variable"] for question in survey["spec"]}) < len(survey["spec"]):
        raise Refused("variable twice")


def answer_survey(survey: Mapping[str, Any], answers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the extra variables of a launch with these answers, or raise Refused."""
    for question in survey["spec"]:
        variable = question["variable"]
        # awx/main/models/mixins.py: SurveyJobTemplateMixin._survey_element_validation
        if variable not in answers:
            if question["required"]:
                raise Refused(f"'{variable}' value missing")
        elif question["type"] == "multiplechoice":
            if answers[variable] not in question["choices"]:
                raise Refused(f"Value {answers[variable]} for '{variable}' expected to be one of {question['choices']}.")
        elif not isinstance(answers[variable], str) or not question["min"] <= len(answers[variable]) <= question["max"]:
            raise Refused(f"'{variable}' value")
    # awx/main/models/mixins.py: SurveyJobTemplateMixin._update_unified_job_kwargs
    return {**{question["variable"]: question["default"] for question in survey["spec"]}, **answers}


# awx/main/utils/ansible.py: could_be_playbook
def could_be_playbook(text: str) -> bool:
    """Whether AWX offers a file as a playbook."""
    return any(re.match(r"^\s*?-?\s*?(?:hosts|include|import_playbook):\s*?.*?$", line) for line in text.splitlines())
