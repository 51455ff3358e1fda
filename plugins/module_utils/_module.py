# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs a module's work and returns the task's result, in Ansible's worker and as a module."""

from __future__ import annotations

import dataclasses
import os
import re
import typing as t

from ansible.module_utils.errors import AnsibleFallbackNotFound

from ._errors import InvalidInput, KaleyraError
from ._parent import Parent
from ._public_key import parse_public_key
from ._rate_limit import Cancelled

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule


def from_environment(name: str) -> str:
    """Return an option's fallback. An empty variable, as credential forms inject it, counts as not set."""
    value = os.environ.get(name)
    if not value:
        raise AnsibleFallbackNotFound
    return value


PUBLIC_KEY_OPTIONS: dict[str, t.Any] = {
    "business_public_key": {"type": "str", "no_log": False},
    "business_public_key_path": {"type": "path", "no_log": False},
}
PUBLIC_KEY_RULES: dict[str, t.Any] = {
    "mutually_exclusive": [("business_public_key", "business_public_key_path")],
    "required_one_of": [("business_public_key", "business_public_key_path")],
}
TLS_OPTIONS: dict[str, t.Any] = {
    "validate_certs": {"type": "bool", "default": True},
    "ca_path": {"type": "path"},
}
READ_BACK_OPTIONS: dict[str, t.Any] = {
    "read_back": {"type": "str", "choices": ["none", "meta", "kaleyra"], "default": "none"},
    "read_back_required": {"type": "bool", "default": False},
    "meta_access_token": {"type": "str", "no_log": True, "fallback": (from_environment, ["META_ACCESS_TOKEN"])},
    "meta_waba_ids": {"type": "list", "elements": "str"},
    "meta_phone_number_ids": {"type": "dict"},
    "meta_api_url": {"type": "str", "default": "https://graph.facebook.com/v23.0"},
}


# In capitals, as in PEM, because paths may contain "private key". The second is PuTTY's.
_PRIVATE_KEY = re.compile(r"PRIVATE\s+KEY|Private-Lines:")
# Options with a secret that could be set in another option by mistake, and their environment variables.
_SECRETS = {"api_key": "KALEYRA_API_KEY", "meta_access_token": "META_ACCESS_TOKEN", "app_secret": None}
# A secret with this many characters is not part of another text by chance.
_LONG = 8


@dataclasses.dataclass(frozen=True)
class ModuleSpec:
    """The work and the options of a module.

    :param work: called with the options (None for those that are not set) and ``check_mode``; returns the result, with ``warnings`` and
        ``diff`` if there are any
    :param argument_spec: Ansible's argument spec
    :param rules: rules between options, as keywords of Ansible's ``AnsibleModule``
    :param reports_progress: whether the work may take long, and is also called with ``progress``, which takes a message, and ``parent``
    """

    work: t.Callable[..., dict[str, t.Any]]
    argument_spec: dict[str, t.Any]
    rules: dict[str, t.Any]
    reports_progress: bool = False

    def run(
        self, params: t.Mapping[str, t.Any], *, check_mode: bool, diff_mode: bool, progress: t.Callable[[str], None] = lambda words: None,
        reads_output: bool = False,
    ) -> dict[str, t.Any]:
        """Do the work and return the task's result, with ``failed`` and ``msg`` after an error.

        :param reads_output: whether the process that started this one reads its standard output
        :param progress: shows a message at once; a module's process cannot show any, because its output is its result
        """
        further: dict[str, t.Any] = {"progress": progress, "parent": Parent(reads_output=reads_output)} if self.reports_progress else {}

        def work() -> dict[str, t.Any]:
            _require_no_misplaced_secret(params)
            return self.work(params, check_mode=check_mode, **further)

        result = _result_of(work)
        if not diff_mode or result.get("failed"):
            result.pop("diff", None)
        return result

    def run_in(self, module: AnsibleModule) -> t.NoReturn:
        """Do the work of an ``AnsibleModule`` and end its process."""
        result = self.run(module.params, check_mode=module.check_mode, diff_mode=module._diff, reads_output=True)
        for warning in result.pop("warnings", []):
            module.warn(warning)
        if result.get("failed"):
            module.fail_json(**result)
        module.exit_json(**result)


def without_empty(arguments: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Remove empty options: credential forms and surveys give an empty string for a blank field."""
    return {name: value for name, value in arguments.items() if value is not None and value != ""}


def reject_misplaced_secrets(arguments: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Return a failed result if the arguments contain a misplaced secret, otherwise an empty one.

    Called before they are validated, shown, or written to disk for a module's process.
    """
    text = arguments.get("business_public_key")

    def examine() -> dict[str, t.Any]:
        _require_no_misplaced_secret(arguments)
        if isinstance(text, str):
            parse_public_key(text)
        return {}

    return _result_of(examine)


def _require_no_misplaced_secret(arguments: t.Mapping[str, t.Any]) -> None:
    """Check that no option contains a private key, or the secret of another option, because messages would repeat it.

    :raises InvalidInput: naming the option
    """
    secrets = {name: str(arguments.get(name) or os.environ.get(variable or "") or "") for name, variable in _SECRETS.items()}
    for option, value in arguments.items():
        texts = [str(each) for each in (value if isinstance(value, (list, tuple)) else [value]) if each is not None]
        if option != "business_public_key" and any(_PRIVATE_KEY.search(text) for text in texts):  # has its own message
            raise InvalidInput(
                f"{option} contains a PRIVATE key. It was not sent and is not shown, but it does not belong here: it must stay on the Flow endpoint."
            )
        for name, secret in secrets.items():
            if option != name and secret and any(text == secret or (len(secret) >= _LONG and secret in text) for text in texts):
                variable = f" (or {_SECRETS[name]})" if _SECRETS[name] else ""
                raise InvalidInput(f"{option} contains the value of {name}, a secret that belongs only in {name}{variable}. It is not shown here.")


def _result_of(work: t.Callable[[], dict[str, t.Any]]) -> dict[str, t.Any]:
    try:
        return work()
    except KaleyraError as exc:
        return {**exc.details, "failed": True, "msg": str(exc)}
    except Cancelled:
        return {"failed": True, "msg": "The process that started this one has ended. Nothing more was sent."}
