# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plans a run of the role flows_encryption: the distinct key pairs and endpoints of its hosts, and why a host cannot continue."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import typing as t

from ansible_collections.kaleyra.whatsapp.plugins.module_utils._account import PODS
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._errors import InvalidInput
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._phone_number import normalise_phone_number

PREFIX = "flows_encryption_"
LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")

# Variables that the plan is made from, without their prefix, in addition to the module's options.
NAMES = (
    "api_host",
    "key_host",
    "private_key_path",
    "public_key_path",
    "private_key_passphrase",
    "private_key_format",
    "private_key_owner",
    "private_key_group",
    "private_key_mode",
    "public_key",
    "key_path_is_persistent",
    "cache_path_is_persistent",
    "endpoint_url",
    "app_secret",
    "verify_endpoint",
    "endpoint_validate_certs",
    "endpoint_ca_path",
)
_FORMATS = ("pkcs1", "pkcs8", "auto", "auto_ignore")
_MOMENTS = {"both": ("before", "after"), "before": ("before",), "after": ("after",), "never": ()}
_SECRET_OPTIONS = ("api_key", "meta_access_token")
_FROM_ENVIRONMENT = ("sid", "api_key", "meta_access_token", "meta_waba_ids")

Variables = t.Mapping[str, t.Any]


class Stop(Exception):
    """A host cannot continue. The message is the cause and what to do."""


@dataclasses.dataclass(frozen=True)
class Surroundings:
    """What the plan depends on in addition to the hosts' variables.

    :param environment: of the controller
    :param folder: that relative paths on the controller start from
    :param is_local: whether a host is the controller itself
    :param is_in_inventory: whether a host is in the inventory, or the implicit localhost
    :param in_awx: whether this is a job of AWX, whose container vanishes
    :param read_private_key: returns public key (PEM) and fingerprint of a private key file on the controller, given path and passphrase
    :param registers: whether numbers are registered, and endpoints verified, in this run
    :param inventory_is_empty: whether the inventory has no hosts, so that the run is on the implicit localhost
    :param check_option: returns what is wrong with the value of an option of the module, given its name and value, or an empty string
    """

    environment: t.Mapping[str, str]
    folder: str
    is_local: t.Callable[[str], bool]
    is_in_inventory: t.Callable[[str], bool]
    in_awx: bool
    read_private_key: t.Callable[[str, str], tuple[str, str]]
    check_option: t.Callable[[str, t.Any], str]
    registers: bool = True
    inventory_is_empty: bool = False


def is_blank(value: t.Any) -> bool:
    """Whether a value counts as not set: null or blank text, as forms give for a blank field."""
    return value is None or (isinstance(value, str) and not value.strip())


def as_text(value: t.Any) -> str:
    """Return a value as text: empty if it is not set, and without the decimal that spreadsheets add to whole numbers."""
    if is_blank(value):
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def as_bool(value: t.Any) -> bool:
    """Return whether a value means yes, in one of Ansible's spellings."""
    return as_text(value).strip().lower() in ("yes", "on", "1", "true", "t", "y")


def phone_numbers(value: t.Any, host: str) -> list[str]:
    """Return a host's numbers.

    :param value: a list, or what forms make of one: text with a number in each line or with commas between them, or one integer
    :param host: the inventory host's name, which is the number where none is given
    :raises Stop: numbers were asked for, but there are none
    """
    if is_blank(value):
        return [host]
    given = value if isinstance(value, (list, tuple)) else re.split(r"[,;\r\n]", as_text(value))
    found = [text for text in (as_text(one).strip() for one in given) if text]
    if given and not found:
        raise Stop(f"flows_encryption_phone_numbers is {value!r}, which contains no number.")
    return found


def private_key_mode(value: t.Any) -> str:
    """Return the permissions of a private key as text that every ansible-core understands the same way.

    YAML reads an unquoted 0640 as the octal number 416, and ansible-core 2.16 to 2.18 take that for 0416.

    :raises Stop: others could read the key, or the meaning is not clear
    """
    text = as_text(value).strip() or "0600"
    if re.fullmatch(r"[ug]+=[rwx]*(,[ug]+=[rwx]*)*", text):
        return text
    allowed = (0o400, 0o440, 0o600, 0o640, 0o660)
    if re.fullmatch(r"0?[0-7]{3}", text) and int(text, 8) in allowed:
        return f"0{int(text, 8):o}"
    if text.isdigit() and not text.startswith("0") and int(text) in allowed:
        return f"0{int(text):o}"
    raise Stop(
        f"flows_encryption_private_key_mode is {text[:20]}, which is not a mode that keeps the private key from others. "
        "Use one of 0600, 0640, 0400, 0440 and 0660, in quotes."
    )


def absolute_path(path: t.Any, folder: str) -> str:
    """Return an absolute path on the controller, and an empty string for none."""
    text = as_text(path)
    return os.path.normpath(os.path.join(folder, os.path.expanduser(text))) if text else ""


def user_folder(playbook_folder: str, working_folder: str) -> str:
    """Return the folder of relative paths: the playbook's, unless that belongs to an installed collection."""
    return working_folder if "ansible_collections" in playbook_folder.split(os.sep) else playbook_folder


def absolute_path_on(path: t.Any, host: str, playbook_folder: str, working_folder: str) -> str:
    """Return a path as an absolute one if it is on the controller: a module would start from the playbook's folder, installed or not."""
    return absolute_path(path, user_folder(playbook_folder, working_folder)) if host in LOCAL_NAMES else as_text(path)


def public_key_path(private_key_path: str) -> str:
    """Return the path beside a private key: ``private.pem`` has ``private.pub.pem``."""
    return os.path.splitext(private_key_path)[0] + ".pub.pem"


def make_plan(hosts: t.Mapping[str, Variables | Stop], around: Surroundings) -> dict[str, t.Any]:
    """Return what a run has to do.

    :param hosts: name -> variables of the role without their prefix, or why they cannot be read
    :return: ``hosts``, for each its ``pair`` and ``endpoint`` (or null), ``stop`` (empty where nothing stops it), ``numbers`` and ``options``
        (index); ``options``, the distinct ones to register with; ``pairs`` to be ensured on key hosts and ``endpoints`` to be verified, each
        once; ``keys``, the public keys that are known already; ``secrets`` of pairs and endpoints by their ids; ``records``, the distinct
        folders of records and their hosts; ``warnings``
    """
    plan: dict[str, t.Any] = {
        "hosts": {}, "options": [], "pairs": [], "endpoints": [], "keys": {}, "secrets": {}, "records": [], "warnings": []
    }
    pairs: dict[str, dict[str, t.Any]] = {}
    endpoints: dict[str, dict[str, t.Any]] = {}
    vanishing = False
    for host, variables in hosts.items():
        entry: dict[str, t.Any] = {"pair": None, "endpoint": None, "moments": [], "stop": "", "numbers": [], "options": None}
        plan["hosts"][host] = entry
        try:
            if isinstance(variables, Stop):
                raise variables
            if around.inventory_is_empty:
                _require_without_inventory(variables, host, around)
            records = {"api_host": as_text(variables.get("api_host")) or "localhost", "cache_path": as_text(variables.get("cache_path"))}
            if records not in plan["records"]:
                plan["records"].append(records)
            if around.registers:
                _check_account(variables, around)
                entry["numbers"] = _numbers(variables, host)
                options = _options(variables, around)
                if options not in plan["options"]:
                    plan["options"].append(options)
                entry["options"] = plan["options"].index(options)
            entry["pair"] = _add_pair(plan, pairs, host, variables, around)
            if around.registers:
                _add_endpoint(plan, endpoints, entry, variables, around)
            # What is read back takes the place of records.
            keeps = as_bool(variables.get("cache_path_is_persistent")) or as_text(variables.get("read_back")) in ("meta", "kaleyra")
            vanishing |= around.registers and around.in_awx and around.is_local(records["api_host"]) and not keeps
        except Stop as exc:
            entry["stop"] = str(exc)
    _stop_contradictions(plan, pairs)
    used = {entry["pair"] for entry in plan["hosts"].values() if not entry["stop"]}
    plan["pairs"] = [{key: value for key, value in pair.items() if key != "named_by"} for pair in pairs.values() if pair["id"] in used]
    plan["endpoints"] = list(endpoints.values())
    if vanishing:
        plan["warnings"].append(
            "The records are written in this job's container and lost with it, so every job registers every number again. That is "
            "harmless, but slow. Set flows_encryption_read_back to read what each number carries. Or, to keep the records, set "
            "flows_encryption_api_host to a persistent host of the inventory; or make AWX expose a path to the container, and set "
            "flows_encryption_cache_path to it and flows_encryption_cache_path_is_persistent to true."
        )
    return plan


def _require_without_inventory(variables: Variables, host: str, around: Surroundings) -> None:
    """Stop if there is no inventory, although one was probably intended."""
    if around.registers and phone_numbers(variables.get("phone_numbers"), host) == [host]:
        missing = "so there is no number to register, and flows_encryption_phone_numbers is not set (in AWX: the survey was not answered)"
    elif not as_text(variables.get("private_key_path")) and not as_text(variables.get("public_key")) and not _provided_file(around):
        missing = "and flows_encryption_private_key_path is not set"
    else:
        return
    raise Stop(
        f"The inventory has no hosts, {missing}. If Ansible warned above that it could not parse the inventory, a common cause is a number without "
        'quotes as the name of a host in YAML: write "+919876543210":, with the quotes.'
    )


def _provided_file(around: Surroundings) -> str:
    return around.environment.get("KALEYRA_FLOWS_PRIVATE_KEY_FILE", "")


def _numbers(variables: Variables, host: str) -> list[str]:
    numbers = phone_numbers(variables.get("phone_numbers"), host)
    if numbers == [host]:
        try:
            normalise_phone_number(host)
        except InvalidInput:
            raise Stop(
                f"The host name {host!r} is not a number in E.164. Set flows_encryption_phone_numbers to the numbers of this host, "
                "for example ['+919876543210']."
            ) from None
    return numbers


def _check_account(variables: Variables, around: Surroundings) -> None:
    missing = [
        f"Set flows_encryption_{name} or KALEYRA_{name.upper()}."
        for name in ("sid", "api_key")
        if not as_text(variables.get(name)) and not around.environment.get(f"KALEYRA_{name.upper()}")
    ]
    pod, api_url = api_of(variables, around.environment)
    if not pod and not api_url:
        missing.append("Set flows_encryption_pod or KALEYRA_POD.")
    if missing:
        raise Stop(" ".join(missing))
    if pod and pod not in PODS:
        raise Stop(f"flows_encryption_pod or KALEYRA_POD is {pod[:20]!r}, but must be one of {', '.join(PODS)}.")


def api_of(variables: Variables, environment: t.Mapping[str, str]) -> tuple[str, str]:
    """Return pod and API URL, one of them empty: the URL takes precedence over the pod, and variables over the environment."""
    if as_text(variables.get("api_url")):
        return "", as_text(variables.get("api_url"))
    if as_text(variables.get("pod")):
        return as_text(variables.get("pod")), ""
    if environment.get("KALEYRA_API_URL"):
        return "", environment["KALEYRA_API_URL"]
    return environment.get("KALEYRA_POD", ""), ""


def _options(variables: Variables, around: Surroundings) -> dict[str, t.Any]:
    """Return the module's options for a host's numbers, without numbers and key."""
    options = {name: value for name, value in variables.items() if name not in (*NAMES, "phone_numbers") and not is_blank(value)}
    for name, value in options.items():
        wrong = "" if name in _SECRET_OPTIONS else around.check_option(name, value)
        if wrong:
            raise Stop(f"flows_encryption_{name}: {wrong}")
    for name in _FROM_ENVIRONMENT:
        options.setdefault(name, around.environment.get(name.upper() if name.startswith("meta_") else f"KALEYRA_{name.upper()}", ""))
    options["pod"], options["api_url"] = api_of(variables, around.environment)
    return options


def _choice(variables: Variables, name: str, choices: t.Iterable[str], default: str) -> str:
    chosen = as_text(variables.get(name)).strip() or default
    if chosen not in choices:
        raise Stop(f"flows_encryption_{name} is {chosen[:20]!r}, but must be one of {', '.join(choices)}.")
    return chosen


def _id(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _add_pair(
    plan: dict[str, t.Any], pairs: dict[str, dict[str, t.Any]], host: str, variables: Variables, around: Surroundings
) -> str:
    given = as_text(variables.get("public_key"))
    passphrase = as_text(variables.get("private_key_passphrase")) or around.environment.get("KALEYRA_FLOWS_PRIVATE_KEY_PASSPHRASE", "")
    file = _provided_file(around)
    if given:
        if "PRIVATE KEY" in given:
            raise Stop("flows_encryption_public_key contains a private key. It was not sent. Set it to the PEM of the public key.")
        if "BEGIN" not in given:
            raise Stop(
                "flows_encryption_public_key must be the PEM of a public key, not a path. "
                "Read a file with lookup('ansible.builtin.file', 'private.pub.pem')."
            )
        identity = _id("given", given)
        plan["keys"][identity] = {"public_key": given, "fingerprint": "", "stop": "", "pending": False, "place": "flows_encryption_public_key"}
        return identity
    if file:
        identity = _id("file", file, passphrase)
        if identity not in plan["keys"]:
            public_key, fingerprint = around.read_private_key(file, passphrase)
            plan["keys"][identity] = {"public_key": public_key, "fingerprint": fingerprint, "stop": "", "pending": False, "place": file}
        return identity
    key_host = as_text(variables.get("key_host")) or "localhost"
    path, public = as_text(variables.get("private_key_path")), as_text(variables.get("public_key_path"))
    if not path:
        raise Stop(
            f"Set flows_encryption_private_key_path to the path of the private key on {key_host}, where it is created if needed, "
            "or flows_encryption_public_key to the PEM of a key that was created elsewhere."
        )
    if "PRIVATE KEY" in path + public:
        raise Stop("flows_encryption_private_key_path or flows_encryption_public_key_path contains the text of a key. Set it to a path.")
    if around.is_local(key_host):
        path, public = absolute_path(path, around.folder), absolute_path(public, around.folder)
    attributes = {
        "format": _choice(variables, "private_key_format", _FORMATS, "pkcs8"),
        "owner": as_text(variables.get("private_key_owner")),
        "group": as_text(variables.get("private_key_group")),
        "mode": private_key_mode(variables.get("private_key_mode")),
        "passphrase": hashlib.sha256(passphrase.encode()).hexdigest(),  # compared below, and dropped
    }
    public = public or public_key_path(path)
    identity = _id(key_host, path, public)
    pair = pairs.setdefault(
        identity,
        {
            "id": identity,
            "key_host": key_host,
            "private_key_path": path,
            "public_key_path": public,
            "temporary_path": f"{path}.flows_encryption.new",
            "folder": os.path.dirname(path) or ".",
            **{name: value for name, value in attributes.items() if name != "passphrase"},
            "is_local": around.is_local(key_host),
            "is_in_inventory": around.is_in_inventory(key_host),
            "vanishes": around.in_awx and around.is_local(key_host) and not as_bool(variables.get("key_path_is_persistent")),
            "named_by": {},
        },
    )
    pair["named_by"][host] = attributes
    plan["secrets"][identity] = passphrase
    return identity


def _stop_contradictions(plan: dict[str, t.Any], pairs: t.Mapping[str, t.Mapping[str, t.Any]]) -> None:
    """Stop the hosts that use one private key with different attributes, because it is not clear which ones apply."""
    by_path: dict[tuple[str, str], dict[str, t.Mapping[str, str]]] = {}
    for pair in pairs.values():
        by_path.setdefault((pair["key_host"], pair["private_key_path"]), {}).update(pair["named_by"])
    for (key_host, path), named_by in by_path.items():
        names = list(named_by)
        for attribute in ("format", "owner", "group", "mode", "passphrase"):
            other = next((name for name in names if named_by[name][attribute] != named_by[names[0]][attribute]), None)
            if other:
                for name in names:
                    plan["hosts"][name]["stop"] = plan["hosts"][name]["stop"] or (
                        f"{names[0]} and {other} use the private key {path} on {key_host} with different values of "
                        f"flows_encryption_private_key_{attribute}. Set the same value for both."
                    )
                break


def _add_endpoint(
    plan: dict[str, t.Any],
    endpoints: dict[str, dict[str, t.Any]],
    entry: dict[str, t.Any],
    variables: Variables,
    around: Surroundings,
) -> None:
    url = as_text(variables.get("endpoint_url")).strip()
    moments = _MOMENTS[_choice(variables, "verify_endpoint", _MOMENTS, "both")]
    if not url or not moments:
        return
    # The API's TLS options are used for the endpoint, too, unless it has its own.
    validate_certs = as_text(variables.get("endpoint_validate_certs")) or as_text(variables.get("validate_certs"))
    ca_path = as_text(variables.get("endpoint_ca_path")) or as_text(variables.get("ca_path"))
    api_host = as_text(variables.get("api_host")) or "localhost"
    secret = as_text(variables.get("app_secret")) or around.environment.get("KALEYRA_FLOWS_APP_SECRET", "")
    identity = _id(url, entry["pair"], api_host, validate_certs, ca_path, secret)
    endpoint = endpoints.setdefault(
        identity,
        {
            "id": identity,
            "url": url,
            "pair": entry["pair"],
            "api_host": api_host,
            "validate_certs": validate_certs,
            "ca_path": ca_path,
            "before": False,
            "after": False,
        },
    )
    for moment in moments:
        endpoint[moment] = True
    plan["secrets"][identity] = secret
    entry["endpoint"], entry["moments"] = identity, list(moments)


def would_vanish(pair: Variables) -> str:
    """Return why a private key is not created in the container of a job."""
    return (
        f"There is no private key at {_place(pair)}, and one created there would be lost with this job's container, while the numbers would carry "
        "its public key. Do one of these: set flows_encryption_key_host to a persistent host of the inventory, such as the server of the Flow "
        "endpoint; make AWX expose a path to the container, create the key there, and set "
        "flows_encryption_key_path_is_persistent to true; or provide the private key in a credential (KALEYRA_FLOWS_PRIVATE_KEY_FILE)."
    )


def cannot_create(pair: Variables, why: str) -> str:
    """Return why the key pair was not created."""
    return f"{pair['private_key_path']} cannot be created on {pair['key_host']}: {_short(why)}"


def cannot_use(pair: Variables, file: Variables) -> str:
    """Return why the permissions of the private key cannot be set.

    :param file: result of :ansplugin:`ansible.builtin.file#module`
    """
    return f"flows_encryption_private_key_path {_place(pair)}: {_short(file.get('msg'))}"


def cannot_read(pair: Variables, info: Variables) -> str:
    """Return why the private key cannot be read.

    :param info: result of :ansplugin:`community.crypto.openssl_privatekey_info#module`
    """
    why = f"The private key {_place(pair)} cannot be read: {_short(info.get('msg'))}"
    if "passphrase" in why.lower():
        why += " Check flows_encryption_private_key_passphrase or KALEYRA_FLOWS_PRIVATE_KEY_PASSPHRASE."
    return why


def cannot_register(pair: Variables, info: Variables) -> str:
    """Return why the API does not accept the public key of the key pair, empty if it does.

    :param info: result of :ansplugin:`community.crypto.openssl_privatekey_info#module`
    """
    kind, bits = info["type"], info["public_data"].get("size")
    if (kind, bits) == ("RSA", 2048):
        return ""
    found = f"RSA with {bits} bits" if kind == "RSA" else f"of the type {kind}"
    return (
        f"The private key {_place(pair)} is {found}, but the API only accepts RSA with 2048 bits. It was not changed. "
        "Set flows_encryption_private_key_path to a new path, where the role creates a key pair."
    )


def cannot_write(pair: Variables, public: Variables) -> str:
    """Return why the public key cannot be written.

    :param public: result of :ansplugin:`community.crypto.openssl_publickey#module`
    """
    return f"flows_encryption_public_key_path {pair['public_key_path']} on {pair['key_host']}: {_short(public.get('msg'))}"


_NOT_IN_INVENTORY = (
    "It is not a host of this inventory. In a sliced job, which sees only part of the inventory, create the key pair in a separate job "
    "with the playbook kaleyra.whatsapp.flows_key_pair, and pass its public key on as flows_encryption_public_key."
)


def known_keys(plan: t.Mapping[str, t.Any], done: t.Mapping[str, t.Any]) -> dict[str, dict[str, t.Any]]:
    """Return the public key of each pair, or why the hosts that share the pair cannot continue.

    :param done: result of the loop over the plan's pairs with :ansplugin:`kaleyra.whatsapp.flows_encryption_key_pair#module`
    :return: id -> ``public_key``, ``fingerprint``, ``place``, ``stop`` (empty where nothing does), ``pending`` (check mode: to be created)
    """
    results = {result["flows_encryption_pair"]["id"]: result for result in done.get("results") or []}
    keys: dict[str, dict[str, t.Any]] = dict(plan.get("keys", {}))
    for pair in plan.get("pairs", []):
        result = results.get(pair["id"], {})
        if result.get("unreachable"):
            stop = f"The key host {pair['key_host']} {'cannot run modules' if pair['is_local'] else 'cannot be reached'}: {_short(result.get('msg'))}"
            stop += "" if pair["is_in_inventory"] else f" {_NOT_IN_INVENTORY}"
        else:
            stop = result["stop"] if "stop" in result else cannot_read(pair, result)
        keys[pair["id"]] = {
            "public_key": result.get("public_key") or "",
            "fingerprint": result.get("fingerprint") or "",
            "place": pair["private_key_path"],
            "stop": stop,
            "pending": bool(result.get("pending")),
        }
    return keys


def _place(pair: Variables) -> str:
    return f"{pair['private_key_path']} on {pair['key_host']}"


def _short(message: t.Any) -> str:
    text = " ".join(as_text(message).split())[:300] or "no cause was given"
    return text if text.endswith(".") else f"{text}."


def endpoints_to_verify(
    plan: t.Mapping[str, t.Any], keys: t.Mapping[str, t.Any], moment: str, hosts: t.Iterable[str]
) -> list[dict[str, t.Any]]:
    """Return the endpoints to verify now, each with its ``public_key``; endpoints without a key are left out.

    :param hosts: that have not failed
    """
    needed = {
        plan["hosts"][host]["endpoint"]
        for host in hosts
        if host in plan["hosts"] and moment in plan["hosts"][host]["moments"] and not plan["hosts"][host]["stop"]
    }
    return [
        {**endpoint, "public_key": keys[endpoint["pair"]]["public_key"]}
        for endpoint in plan["endpoints"]
        if endpoint["id"] in needed and keys[endpoint["pair"]]["public_key"] and not keys[endpoint["pair"]]["stop"]
    ]


_VERIFICATION = ("cause", "fingerprint", "foreign_key", "http_status", "latency_ms", "msg", "wrong_signature")


def verifications(plan: t.Mapping[str, t.Any], pings: t.Mapping[str, t.Any]) -> list[dict[str, t.Any]]:
    """Return for each host whose endpoint was verified the ``host`` and the ``verification``.

    :param pings: result of the loop over :func:`endpoints_to_verify`
    """
    by_id = {}
    for result in pings.get("results") or []:
        verification = {name: result[name] for name in _VERIFICATION if name in result}
        # The query may contain a secret.
        verification.update(url=result["flows_encryption_endpoint"]["url"].partition("?")[0], active=bool(result.get("active")))
        by_id[result["flows_encryption_endpoint"]["id"]] = verification
    return [
        {"host": host, "verification": by_id[entry["endpoint"]]}
        for host, entry in plan.get("hosts", {}).items()
        if entry["endpoint"] in by_id
    ]


def what_to_register(
    plan: t.Mapping[str, t.Any], keys: t.Mapping[str, t.Any], verification: t.Mapping[str, t.Any], host: str
) -> dict[str, t.Any]:
    """Return a host's part of the plan.

    :param verification: what came of its endpoint
    :return: ``registration``, the module's options; ``stop`` (why it cannot go on, or empty); ``pending`` (check mode: the key is to be
        created first)
    """
    entry = plan.get("hosts", {}).get(host)
    if entry is None:
        stop = "This host is not in the plan. Run it again. If that does not help, please report it with the playbook."
        return {"registration": {}, "stop": stop, "pending": False}
    key = keys.get(entry["pair"], {"public_key": "", "stop": "The key pair was not read.", "pending": False})
    stop = entry["stop"] or key["stop"]
    if not stop and not key["pending"] and "before" in entry["moments"] and not verification.get("active"):
        stop = f"{verification.get('msg') or 'The endpoint was not verified.'} No key was registered in this run."
    return {"registration": registration(plan, host, key["public_key"]), "stop": stop, "pending": key["pending"]}


def registration(plan: t.Mapping[str, t.Any], host: str, public_key: str) -> dict[str, t.Any]:
    """Return the options of the module that registers a public key (PEM) for a host's numbers."""
    entry = plan["hosts"][host]
    options = {} if entry["options"] is None else plan["options"][entry["options"]]
    return {**options, "phone_numbers": entry["numbers"], "business_public_key": public_key}


def part_of(variables: t.Mapping[str, t.Any], host: str) -> dict[str, t.Any]:
    """Return a host's part of the plan that was made for all hosts of the batch, or for it alone.

    :param variables: of the host, with what the role's tasks have registered
    :return: as :func:`what_to_register`
    """

    def registered(name: str) -> dict[str, t.Any]:
        return variables.get(PREFIX + name) or {}

    plan = registered("plan")
    if not plan.get("shared"):
        plan = registered("own_plan")
    return what_to_register(plan, known_keys(plan, registered("key_pairs")), registered("endpoint_verification"), host)


def summarise(
    hosts: t.Mapping[str, t.Mapping[str, t.Any]], play_hosts: t.Iterable[str], waiting_for: t.Iterable[str], check_mode: bool
) -> dict[str, t.Any]:
    """Return the outcome of each number of the play: ``numbers``, to be published, and ``message``, one line for users.

    Both are empty while a host has not tried its numbers yet, or where nobody did.

    :param hosts: variables of all hosts of the play
    :param waiting_for: hosts that are at work
    """
    registrations = {host: hosts[host].get("flows_encryption_registration") for host in play_hosts}
    nothing: dict[str, t.Any] = {"numbers": {}, "message": ""}
    if any(registrations.get(host) is None for host in waiting_for):
        return nothing
    numbers = [number for result in registrations.values() for number in (result or {}).get("numbers") or []]
    if not numbers and not any("numbers" in (result or {}) for result in registrations.values()):
        return nothing
    published: dict[str, t.Any] = {}
    keys: dict[str, int] = {}
    for number in numbers:
        failed = bool(number.get("failed"))
        published[number["phone_number"]] = {
            "changed": number["changed"],
            "status": "failed" if failed else number["reason"],
            "fingerprint": None if failed else number["fingerprint"],
        }
        if not failed:
            keys[number["fingerprint"]] = keys.get(number["fingerprint"], 0) + 1
    untried = sorted(host for host, result in registrations.items() if result is not None and "numbers" not in result)
    unchanged = sum(1 for number in numbers if not number["changed"] and not number.get("failed"))
    message = (
        f"{len(numbers)} numbers: {sum(1 for number in numbers if number['changed'])} {'would change' if check_mode else 'changed'}, "
        f"{unchanged} unchanged, {sum(1 for number in numbers if number.get('failed'))} failed."
        + "".join(f" Key {key}: {keys[key]}." for key in sorted(keys))
        + (f" No number was tried on {', '.join(untried)}." if untried else "")
    )
    return {"numbers": published, "message": message}


def shared_pair(hosts: t.Mapping[str, t.Mapping[str, t.Any]], play_hosts: t.Iterable[str]) -> str:
    """Return the ID of the key pair that all hosts of the play share, and an empty string if they have several.

    :param hosts: variables of all hosts of the play
    """
    found = set()
    for host in play_hosts:
        plan = hosts[host].get("flows_encryption_plan") or {}
        if not plan.get("shared"):
            plan = hosts[host].get("flows_encryption_own_plan") or {}
        found.add((plan.get("hosts") or {}).get(host, {}).get("pair"))
    return found.pop() or "" if len(found) == 1 else ""
