# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plans a run of the role flows_encryption, for all hosts at once if the strategy allows it."""

from __future__ import annotations

import functools
import os
import typing as t

import ansible.template
from ansible.errors import AnsibleError
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.playbook.task_include import TaskInclude
from ansible.plugins.action import ActionBase
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._public_key import PublicKey
from ansible_collections.kaleyra.whatsapp.plugins.modules.kaleyra_flows_encryption import SPEC
from ansible_collections.kaleyra.whatsapp.plugins.plugin_utils._role_plan import (
    LOCAL_NAMES,
    NAMES,
    PREFIX,
    Stop,
    Surroundings,
    is_blank,
    make_plan,
    user_folder,
)

# Before ansible-core 2.19 all templates of a task are trusted.
_trust_as_template: t.Callable[[str], str] = getattr(ansible.template, "trust_as_template", str)

_WITHOUT_VARIABLE = ("business_public_key", "business_public_key_path", "known_fingerprint", "phone_number")
_OPTIONS = (*NAMES, *(name for name in SPEC.argument_spec if name not in _WITHOUT_VARIABLE))


class ActionModule(ActionBase):
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        result = super().run(tmp, task_vars)
        own = task_vars or {}
        everybody = boolean(self._task.args.get("all_hosts", False))
        whole_play = boolean(self._task.args.get("whole_play", False))
        # Other strategies do not support run_once: each host plans for itself.
        shared = everybody and str(self._task.get_play().strategy).rpartition(".")[2] in ("linear", "debug")
        if everybody and not shared and not whole_play:
            return {**result, "changed": False, "shared": False}
        names = own["ansible_play_hosts_all" if whole_play else "ansible_play_batch"] if everybody else [own["inventory_hostname"]]
        requests = {}
        templar = ansible.template.Templar(loader=self._loader)
        for name in names:
            variables = own if name == own["inventory_hostname"] else self._variables_of(name, own)
            templar.available_variables = variables
            if variables is own or self._takes_part(templar):
                requests[name] = _read(templar, variables)
        hostvars = own["hostvars"]
        surroundings = Surroundings(
            environment=os.environ,
            folder=user_folder(own["playbook_dir"], os.getcwd()),
            is_local=functools.partial(_is_local, hostvars),
            is_in_inventory=hostvars.__contains__,
            in_awx="awx_job_id" in own or "tower_job_id" in own,
            read_private_key=_read_private_key,
            check_option=_OptionChecks(),
            registers=boolean(self._task.args.get("registers", True)),
            inventory_is_empty=not own["groups"].get("all"),
        )
        plan = make_plan(requests, surroundings)
        for warning in plan.pop("warnings"):
            self._display.warning(warning)  # shown here because no_log hides the warnings of a result
        return {**result, "changed": False, "shared": shared, **plan}

    def _variables_of(self, name: str, own: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
        """Return the variables of another host as it would see them in this task. hostvars lacks those of the play, the role and the include."""
        hostvars = own["hostvars"]
        # Ansible has no public way to the variables of another host in a task. The rest of this file does without private attributes of hostvars.
        host, manager = hostvars._inventory.get_host(name), hostvars._variable_manager
        variables: dict[str, t.Any] = manager.get_vars(play=self._task.get_play(), host=host, task=self._task)
        return variables

    def _takes_part(self, templar: ansible.template.Templar) -> bool:
        """Whether a host will run this task, judging by the conditions around the role."""
        conditions = list(self._task.when or [])
        parent = self._task._parent
        while parent:
            if isinstance(parent, TaskInclude):
                conditions += list(parent.when or [])
            parent = parent._parent
        try:
            return all(bool(templar.template(_trust_as_template(f"{{{{ true if ({condition}) else false }}}}"))) for condition in conditions)
        except AnsibleError:
            return False


def _read(templar: ansible.template.Templar, variables: t.Mapping[str, t.Any]) -> dict[str, t.Any] | Stop:
    found = {}
    for name in _OPTIONS:
        if PREFIX + name in variables:
            try:
                found[name] = templar.template(variables[PREFIX + name])
            except AnsibleError as exc:
                return Stop(f"{PREFIX}{name} cannot be read: {exc}")
    if is_blank(found.get("meta_phone_number_ids")) and variables.get("waba_phone_number_id"):
        # The inventory plugin waba_numbers knows it.
        found["meta_phone_number_ids"] = {variables["inventory_hostname"]: variables["waba_phone_number_id"]}
    return found


def _is_local(hostvars: t.Any, name: str) -> bool:
    connection = hostvars.raw_get(name).get("ansible_connection") if name in hostvars else None
    if connection is None:
        return name in LOCAL_NAMES
    return str(connection) in ("local", "ansible.builtin.local")


class _OptionChecks:
    """Checks values against the module's specification, each value once: most hosts share them."""

    def __init__(self) -> None:
        self._checked: dict[tuple[str, str], str] = {}

    def __call__(self, name: str, value: t.Any) -> str:
        if name in ("pod", "phone_numbers"):  # checked by the plan itself
            return ""
        key = name, repr(value)
        if key not in self._checked:
            spec = {part: option for part, option in SPEC.argument_spec[name].items() if part in ("type", "elements", "choices")}
            errors = ArgumentSpecValidator({name: spec}).validate({name: value}).error_messages
            self._checked[key] = errors[0] if errors else ""
        return self._checked[key]


def _read_private_key(path: str, passphrase: str) -> tuple[str, str]:
    """Return the public key and the fingerprint of the private key that an AWX credential provides."""
    from cryptography.hazmat.primitives import serialization

    option = "KALEYRA_FLOWS_PRIVATE_KEY_FILE"
    try:
        with open(path, "rb") as file:
            key = serialization.load_pem_private_key(file.read(), passphrase.encode() or None)
    except OSError as exc:
        raise Stop(f"{option} {path} cannot be read: {exc.strerror}.") from exc
    except TypeError:
        raise Stop(
            f"{option} {path}: the private key {'has no' if passphrase else 'needs a'} passphrase. "
            f"{'Unset' if passphrase else 'Set'} flows_encryption_private_key_passphrase or KALEYRA_FLOWS_PRIVATE_KEY_PASSPHRASE."
        ) from None
    except ValueError:
        raise Stop(f"{option} {path} holds no private key in PEM, or flows_encryption_private_key_passphrase is wrong for it.") from None
    public_key = PublicKey(key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo))
    return public_key.pem + "\n", public_key.fingerprint
