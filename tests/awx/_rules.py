# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What AWX accepts, as its source has it, in words of our own.

Credential types and credentials: ``awx/main/fields.py`` (`CredentialTypeInputField`, `CredentialTypeInjectorField`, `CredentialInputField`)
and ``awx/main/constants.py`` (`ENV_BLOCKLIST`). Surveys: ``awx/api/views/__init__.py`` (`JobTemplateSurveySpec._validate_spec_data`) and
``awx/main/models/mixins.py`` (`SurveyJobTemplateMixin`). Playbooks: ``awx/main/utils/ansible.py`` (`could_be_playbook`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import jinja2
import jinja2.sandbox
import jsonschema
from cryptography.hazmat.primitives.serialization import load_pem_private_key

_NAME = r"^[a-zA-Z_]+[a-zA-Z0-9_]*$"
_TEXT = {"type": "string"}
_FLAG = {"type": "boolean"}
_FIELD = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "pattern": _NAME},
        "label": _TEXT,
        "help_text": _TEXT,
        "type": {"enum": ["string", "boolean"]},
        "format": {"enum": ["ssh_private_key", "url"]},
        "choices": {"type": "array", "minItems": 1, "items": _TEXT, "uniqueItems": True},
        "multiline": _FLAG,
        "secret": _FLAG,
        "ask_at_runtime": {"enum": [False]},  # of custom types
        "default": {},
    },
    "additionalProperties": False,
    "required": ["id", "label"],
}
INPUTS_SCHEMA = {
    "type": "object",
    "properties": {"fields": {"type": "array", "items": _FIELD}, "required": {"type": "array", "items": _TEXT}},
    "additionalProperties": False,
}
INJECTORS_SCHEMA = {
    "type": "object",
    "properties": {
        "file": {"type": "object", "patternProperties": {r"^template(\.[a-zA-Z_]+[a-zA-Z0-9_]*)?$": _TEXT}, "additionalProperties": False},
        "env": {
            "type": "object",
            # Of values, too, anything but ASCII is refused.
            "patternProperties": {_NAME: {"type": "string", "pattern": "^[\x00-\x7f]*$"}},
            "additionalProperties": False,
        },
        "extra_vars": {"type": "object"},
    },
    "additionalProperties": False,
}
ENV_BLOCKLIST = frozenset(
    "VIRTUAL_ENV PATH PYTHONPATH JOB_ID INVENTORY_ID INVENTORY_SOURCE_ID INVENTORY_UPDATE_ID AD_HOC_COMMAND_ID REST_API_URL REST_API_TOKEN"
    " MAX_EVENT_RES CALLBACK_QUEUE CALLBACK_CONNECTION CACHE JOB_CALLBACK_DEBUG INVENTORY_HOSTVARS AWX_HOST PROJECT_REVISION"
    " SUPERVISOR_CONFIG_PATH".split()
)
SURVEY_TYPES = {
    "text": str,
    "textarea": str,
    "password": str,
    "multiplechoice": str,
    "multiselect": str,
    "integer": int,
    "float": float,
}


class Refused(Exception):
    """What AWX answers with 400. The text says why."""


class _Files(SimpleNamespace):
    """What `tower.filename` is where there are several files: none itself."""

    def __str__(self) -> str:
        raise jinja2.UndefinedError("tower.filename, and not the name of one of the files")


def _check(value: Any, schema: Mapping[str, Any], **options: Any) -> None:
    for error in jsonschema.Draft4Validator(schema, **options).iter_errors(value):
        raise Refused(f"{error.json_path}: {error.message}")


def check_credential_type(definition: Mapping[str, Any]) -> None:
    """Refuse a credential type that AWX would. `kind`, `inputs` and `injectors` of it count."""
    if definition["kind"] not in ("cloud", "net"):
        raise Refused(f"kind {definition['kind']}")
    inputs, injectors = definition["inputs"], definition["injectors"]
    _check(inputs, INPUTS_SCHEMA)
    _check(injectors, INJECTORS_SCHEMA)
    names = [field["id"] for field in inputs["fields"]]
    if len(set(names)) < len(names) or "tower" in names:
        raise Refused(f"field ids {names}")
    for field in inputs["fields"]:
        kind = field.get("type", "string")
        if kind != "string" and {"choices", "multiline", "format", "secret"} & set(field):
            raise Refused(f"{field['id']} is no string")
        if "default" in field and not isinstance(field["default"], {"string": str, "boolean": bool}[kind]):
            raise Refused(f"default of {field['id']}")
    for name in injectors.get("env", {}):
        if name.startswith("ANSIBLE_") or name in ENV_BLOCKLIST:
            raise Refused(f"environment variable {name}")

    files = list(injectors.get("file", {}))
    if "template" in files and len(files) > 1:
        raise Refused("one file or several")
    labels = [name.partition(".")[2] for name in files]
    filename = "example" if files == ["template"] else _Files(**dict.fromkeys(labels, "example"))
    namespace = {**dict.fromkeys(names, "example"), "tower": SimpleNamespace(filename=filename)}
    sandbox = jinja2.sandbox.ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined)
    for part in injectors.values():
        for name, template in part.items():
            try:
                sandbox.from_string(template).render(namespace)
            except (jinja2.TemplateError, jinja2.exceptions.SecurityError) as exc:
                raise Refused(f"{name}: {exc}") from exc


def _is_private_key(value: Any) -> bool:
    if not value or value == "$encrypted$":
        return True
    try:
        load_pem_private_key(value.encode(), None)
    except TypeError:  # encrypted
        return True
    except ValueError:
        return False
    return True


_FORMATS = jsonschema.FormatChecker(formats=())
_FORMATS.checks("ssh_private_key")(_is_private_key)
_FORMATS.checks("url")(lambda value: "://" in value)


def check_credential(inputs: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Refuse values that AWX would not save in a credential of a type with those `inputs`, and return what it saves."""
    fields = {field["id"]: field for field in inputs["fields"]}
    # An empty value becomes the first choice, where there are choices.
    saved = {name: value or fields.get(name, {}).get("choices", [value])[0] for name, value in values.items()}
    properties = {name: {**field, **({"enum": field["choices"]} if "choices" in field else {})} for name, field in fields.items()}
    _check(saved, {"type": "object", "properties": properties, "additionalProperties": False}, format_checker=_FORMATS)
    return saved


def check_survey(survey: Mapping[str, Any]) -> None:
    """Refuse a survey that AWX would."""
    for name, kind in (("name", str), ("description", str), ("spec", list)):
        if not isinstance(survey.get(name), kind):
            raise Refused(f"survey without {name}")
    if not survey["spec"]:
        raise Refused("survey without questions")
    variables = [question.get("variable") for question in survey["spec"]]
    if len(set(variables)) < len(variables):
        raise Refused("variable twice")
    for question in survey["spec"]:
        for name, of_type in (("type", str), ("question_name", str), ("variable", str), ("required", bool)):
            if not isinstance(question.get(name), of_type):
                raise Refused(f"question without {name}")
        kind = question["type"]
        if kind not in SURVEY_TYPES:
            raise Refused(f"type {kind}")
        default = question.get("default", "")
        if default != "" and not isinstance(default, SURVEY_TYPES[kind]):
            raise Refused(f"default {default!r}")
        if any(not isinstance(question.get(name), int | None) for name in ("min", "max")):
            raise Refused("bounds")
        if kind in ("multiplechoice", "multiselect"):
            if "choices" not in question:
                raise Refused("no choices")
            if any(not isinstance(choice, str) for choice in question["choices"]):
                raise Refused("a choice that is no text, which no answer equals")
            if any(line not in question["choices"] for line in default.splitlines()):
                raise Refused("default is no choice")
        if str(default).startswith("$encrypted$") and kind != "password":
            raise Refused("reserved")


def check_answers(survey: Mapping[str, Any], answers: Mapping[str, Any]) -> None:
    """Refuse answers to a survey that AWX would."""
    for question in survey["spec"]:
        value = answers.get(question["variable"])
        if value is None:
            if question["required"]:
                raise Refused(f"{question['variable']} is required")
        elif question["type"] in ("text", "textarea", "password"):
            if not isinstance(value, str) or not (question.get("min") or 0) <= len(value) <= (question.get("max") or len(value)):
                raise Refused(f"{question['variable']}: length")
        elif question["type"] == "multiplechoice" and value not in question["choices"]:
            raise Refused(f"{question['variable']}: no choice")


def could_be_playbook(text: str) -> bool:
    """Whether AWX offers a file as a playbook. Of `import_playbook` releases before 2023 know the short name alone."""
    return any(re.match(r"^\s*?-?\s*?(?:hosts|include|import_playbook):\s*?.*?$", line) for line in text.splitlines())
