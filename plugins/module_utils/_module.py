# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: it can change in any release.

"""The room behind both doors: a module's work as a task's result."""

from __future__ import annotations

import dataclasses
import os
import typing as t

from ansible.module_utils.errors import AnsibleFallbackNotFound

from ._errors import KaleyraError
from ._public_key import parse_public_key

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule


def from_environment(name: str) -> str:
    """A fallback for an option; an empty variable, as credential forms inject it, is none."""
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


@dataclasses.dataclass(frozen=True)
class ModuleSpec:
    """What a module does, the same behind each of its doors.

    :param work: called with the options (None for what was not given) and ``check_mode``; returns the result, with ``warnings`` and
        ``diff`` where there are any
    :param argument_spec: Ansible's, for the options
    :param rules: what holds between options, as keywords of Ansible's ``AnsibleModule``
    :param reports_progress: whether the work may take long, and is also called with ``progress``, which takes a few words on how far it is
    """

    work: t.Callable[..., dict[str, t.Any]]
    argument_spec: dict[str, t.Any]
    rules: dict[str, t.Any]
    reports_progress: bool = False

    def run(
        self, params: t.Mapping[str, t.Any], *, check_mode: bool, diff_mode: bool, progress: t.Callable[[str], None] = lambda words: None
    ) -> dict[str, t.Any]:
        """Do the work and return the task's result, ``failed`` and ``msg`` where it could not be done.

        :param progress: shows a line at once; a module's process, whose output is its result, has nobody to show it to
        """
        further = {"progress": progress} if self.reports_progress else {}
        result = _result_of(lambda: self.work(params, check_mode=check_mode, **further))
        if not diff_mode or result.get("failed"):
            result.pop("diff", None)
        return result

    def run_in(self, module: AnsibleModule) -> t.NoReturn:
        """Do the work of an ``AnsibleModule`` and end its process."""
        result = self.run(module.params, check_mode=module.check_mode, diff_mode=module._diff)
        for warning in result.pop("warnings", []):
            module.warn(warning)
        if result.get("failed"):
            module.fail_json(**result)
        module.exit_json(**result)


def without_empty(arguments: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Drop what is empty: credential forms and surveys give an empty string for what was left blank."""
    return {name: value for name, value in arguments.items() if value is not None and value != ""}


def reject_private_key(arguments: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Return the failed result of a key that is none, or an empty one.

    For the way to a module of its own, whose arguments are written to disk and shown: a private key must not get that far.
    """
    text = arguments.get("business_public_key")

    def examine() -> dict[str, t.Any]:
        if isinstance(text, str):
            parse_public_key(text)
        return {}

    return _result_of(examine)


def _result_of(work: t.Callable[[], dict[str, t.Any]]) -> dict[str, t.Any]:
    try:
        return work()
    except KaleyraError as exc:
        return {**exc.details, "failed": True, "msg": str(exc)}
