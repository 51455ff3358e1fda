# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan of a run of the role: what its hosts share, which of them cannot go on and why, for each type that a value comes in."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.kaleyra.whatsapp.plugins.modules.kaleyra_flows_encryption import SPEC
from ansible_collections.kaleyra.whatsapp.plugins.plugin_utils._role_plan import (
    PREFIX,
    Stop,
    Surroundings,
    as_bool,
    cannot_register,
    endpoints_to_verify,
    known_keys,
    make_plan,
    part_of,
    phone_numbers,
    private_key_mode,
    summarise,
    user_folder,
    verifications,
    what_to_register,
)

ONE, TWO, THREE = "+919876543210", "+919876543211", "+919876543212"
ACCOUNT = {"sid": "HXAP1", "api_key": "secret", "pod": "in"}
HOST = {**ACCOUNT, "private_key_path": "/keys/private.pem"}


def around(**changes: Any) -> Surroundings:
    of_all: dict[str, Any] = {
        "environment": {},
        "folder": "/play",
        "is_local": lambda host: host == "localhost",
        "is_in_inventory": lambda host: True,
        "in_awx": False,
        "read_private_key": lambda path, passphrase: (f"PEM of {path}", "aa:bb"),
        "check_option": lambda name, value: "",
    }
    return Surroundings(**{**of_all, **changes})


def stops(plan: dict[str, Any]) -> dict[str, str]:
    return {host: entry["stop"] for host, entry in plan["hosts"].items() if entry["stop"]}


def looped(plan: dict[str, Any], **result: Any) -> dict[str, Any]:
    """The result of a loop over the plan's key pairs."""
    return {"results": [{"flows_encryption_pair": pair, **result} for pair in plan["pairs"]]}


@pytest.mark.parametrize(
    ("value", "mode"),
    [
        *((None, "0600"), ("", "0600"), ("0600", "0600"), ("600", "0600"), (600, "0600"), ("u=rw,g=r", "u=rw,g=r")),
        *((0o600, "0600"), (0o640, "0640"), (0o400, "0400")),  # unquoted, as YAML reads it
        *(("416", "0640"), ("256", "0400")),  # the same, as text from -e or a survey
        *((value, None) for value in ("0644", 0o644, 0o604, "u=rw,o=r", "a=r", "rw", 1, True, "0000", "07777")),  # others could read it
    ],
)
def test_mode_is_what_was_meant_or_refused(value: Any, mode: str | None) -> None:
    if mode:
        assert private_key_mode(value) == mode
    else:
        with pytest.raises(Stop, match="flows_encryption_private_key_mode"):
            private_key_mode(value)


def test_boolean_of_any_type() -> None:
    assert all(map(as_bool, (True, "true", "Yes", "on", 1, "1", 1.0)))
    assert not any(map(as_bool, (None, "", " ", False, "no", "false", 0, "0")))


@pytest.mark.parametrize(
    ("value", "numbers"),
    [
        (None, [THREE]),
        (" \n", [THREE]),
        ([ONE, TWO], [ONE, TWO]),
        (f"{ONE}\r\n\r\n{TWO},", [ONE, TWO]),
        (f"{ONE};{TWO}", [ONE, TWO]),
        (919876543210, ["919876543210"]),
        (919876543210.0, ["919876543210"]),
        ([919876543210, None, ""], ["919876543210"]),
        ([], []),
        (", ,", None),
    ],
)
def test_numbers_of_any_type(value: Any, numbers: list[str] | None) -> None:
    if numbers is None:
        with pytest.raises(Stop, match="contains no number"):
            phone_numbers(value, THREE)
    else:
        assert phone_numbers(value, THREE) == numbers


@pytest.mark.parametrize("odd", [None, "", 0, 17, 1.0, True, "text"])
@pytest.mark.parametrize(
    "option", ["private_key_passphrase", "private_key_owner", "public_key_path", "key_host", "api_host", "app_secret", "endpoint_url"]
)
def test_unusual_type_does_not_break_the_plan(option: str, odd: Any) -> None:
    assert stops(make_plan({ONE: {**HOST, option: odd}}, around())) == {}


def test_hosts_share_a_pair_by_key_host_and_path() -> None:
    elsewhere = {**HOST, "key_host": "web"}
    plan = make_plan({ONE: HOST, TWO: {**HOST, "key_host": ""}, THREE: elsewhere}, around())
    assert [(pair["key_host"], pair["private_key_path"], pair["public_key_path"]) for pair in plan["pairs"]] == [
        ("localhost", "/keys/private.pem", "/keys/private.pub.pem"),
        ("web", "/keys/private.pem", "/keys/private.pub.pem"),
    ]
    assert plan["hosts"][ONE]["pair"] == plan["hosts"][TWO]["pair"] != plan["hosts"][THREE]["pair"]


@pytest.mark.parametrize("attribute", ["owner", "group", "mode", "format", "passphrase"])
def test_contradicting_attributes_stop_their_hosts_alone(attribute: str) -> None:
    other = {"mode": "0640", "format": "pkcs1"}.get(attribute, "other")
    hosts = {ONE: HOST, TWO: {**HOST, f"private_key_{attribute}": other}, THREE: {**HOST, "private_key_path": "/keys/another.pem"}}
    plan = make_plan(hosts, around())
    assert set(stops(plan)) == {ONE, TWO}
    for message in stops(plan).values():
        assert f"{ONE} and {TWO} use the private key /keys/private.pem on localhost" in message
        assert f"flows_encryption_private_key_{attribute}" in message
    assert [pair["private_key_path"] for pair in plan["pairs"]] == ["/keys/another.pem"]
    same = make_plan({host: {**HOST, f"private_key_{attribute}": other} for host in (ONE, TWO)}, around())
    assert not stops(same)


def test_relative_paths_start_outside_the_collection() -> None:
    installed = "/home/me/.ansible/collections/ansible_collections/kaleyra/whatsapp/playbooks"
    assert user_folder("/project/playbooks", "/project") == "/project/playbooks"
    assert user_folder(installed, "/project") == "/project"
    pair = make_plan({ONE: {**HOST, "private_key_path": "keys/private key"}}, around(folder="/project"))["pairs"][0]
    assert (pair["private_key_path"], pair["public_key_path"]) == ("/project/keys/private key", "/project/keys/private key.pub.pem")
    # On another host they are that host's matter.
    assert make_plan({ONE: {**HOST, "private_key_path": "k.pem", "key_host": "web"}}, around())["pairs"][0]["private_key_path"] == "k.pem"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"sid": ""}, "Set flows_encryption_sid or KALEYRA_SID."),
        ({"api_key": None}, "Set flows_encryption_api_key or KALEYRA_API_KEY."),
        ({"pod": ""}, "Set flows_encryption_pod or KALEYRA_POD."),
        ({"pod": "mars"}, "must be one of in, sg, eu, na"),
        ({"private_key_path": ""}, "Set flows_encryption_private_key_path"),
        ({"private_key_path": "-----BEGIN PRIVATE KEY-----\nMIIE"}, "contains the text of a key"),
        ({"public_key": "-----BEGIN PRIVATE KEY-----\nMIIE"}, "contains a private key"),
        ({"public_key": "public.pem"}, "must be the PEM of a public key, not a path"),
        ({"private_key_format": "der"}, "must be one of pkcs1, pkcs8"),
        ({"endpoint_url": "https://example.com", "verify_endpoint": "sometimes"}, "must be one of both, before, after, never"),
    ],
)
def test_invalid_variable_stops_its_host_alone(changes: dict[str, Any], told: str) -> None:
    plan = make_plan({ONE: {**HOST, **changes}, TWO: HOST}, around())
    assert list(stops(plan)) == [ONE]
    assert told in stops(plan)[ONE]
    assert "MIIE" not in stops(plan)[ONE]
    assert "Set flows_encryption_phone_numbers" in stops(make_plan({"web1": HOST}, around()))["web1"]


def test_environment_and_credential_replace_variables() -> None:
    environment = {"KALEYRA_SID": "HXAP1", "KALEYRA_API_KEY": "secret", "KALEYRA_POD": "in", "KALEYRA_FLOWS_PRIVATE_KEY_FILE": "/runner/key"}
    plan = make_plan({ONE: {}}, around(environment=environment))
    assert not stops(plan) and not plan["pairs"]
    part = what_to_register(plan, known_keys(plan, {}), {}, ONE)
    assert (part["stop"], part["pending"]) == ("", False)
    account = {**ACCOUNT, "api_url": "", "meta_access_token": "", "meta_waba_ids": ""}
    assert part["registration"] == {**account, "phone_numbers": [ONE], "business_public_key": "PEM of /runner/key"}


def test_registration_has_the_options_of_its_host() -> None:
    plan = make_plan({ONE: {**HOST, "timeout": "7", "retries": ""}, TWO: {**HOST, "api_url": "https://other.example.com"}, THREE: HOST}, around())
    options = {host: what_to_register(plan, {}, {}, host)["registration"] for host in (ONE, TWO, THREE)}
    assert (options[ONE]["timeout"], options[ONE]["pod"], "retries" in options[ONE]) == ("7", "in", False)
    assert (options[TWO]["api_url"], options[TWO]["pod"], "timeout" in options[TWO]) == ("https://other.example.com", "", False)
    assert (options[THREE]["pod"], options[THREE]["phone_numbers"]) == ("in", [THREE])
    names = {name for of_host in options.values() for name in of_host}
    assert not names & {"private_key_path", "key_host", "endpoint_url", "app_secret", "private_key_passphrase"}


def test_part_comes_from_the_shared_or_the_own_plan() -> None:
    shared, alone = make_plan({ONE: HOST, TWO: HOST}, around()), make_plan({ONE: HOST}, around())
    variables: dict[str, Any] = {
        "flows_encryption_plan": {**shared, "shared": True},
        "flows_encryption_own_plan": alone,  # of an earlier play
        "flows_encryption_key_pairs": looped(shared, public_key="PEM", stop=""),
    }
    assert part_of(variables, TWO) == {
        "registration": {**shared["options"][0], "phone_numbers": [TWO], "business_public_key": "PEM"}, "stop": "", "pending": False
    }
    variables["flows_encryption_plan"] = {"shared": False}
    assert part_of(variables, ONE)["registration"]["business_public_key"] == "PEM"
    assert "is not in the plan" in part_of(variables, TWO)["stop"]
    assert "is not in the plan" in part_of({}, ONE)["stop"]


def test_key_is_not_created_where_it_would_vanish() -> None:
    plan = make_plan({ONE: HOST}, around(in_awx=True))
    assert plan["pairs"][0]["vanishes"] and plan["warnings"]
    lasting = make_plan({ONE: {**HOST, "key_path_is_persistent": "yes", "cache_path_is_persistent": 1}}, around(in_awx=True))
    assert not lasting["pairs"][0]["vanishes"] and not lasting["warnings"]


def test_known_keys_have_what_became_of_a_pair() -> None:
    plan = make_plan({ONE: HOST}, around())

    def key(**result: Any) -> dict[str, Any]:
        return known_keys(plan, looped(plan, **result))[plan["pairs"][0]["id"]]

    assert key(stop="", public_key="PEM", fingerprint="aa", pending=False) == {
        "public_key": "PEM", "fingerprint": "aa", "place": "/keys/private.pem", "stop": "", "pending": False
    }
    assert key(stop="", public_key="", pending=True)["pending"]
    assert key(stop="no space", public_key="")["stop"] == "no space"
    assert "key host localhost cannot run modules: no Python" in key(unreachable=True, msg="no Python")["stop"]
    assert "private.pem on localhost cannot be read: It ended." in key(failed=True, msg="It ended")["stop"]  # not by what the action returns
    assert known_keys(plan, {})[plan["pairs"][0]["id"]]["stop"]


def test_unreachable_key_host_outside_the_inventory_has_advice() -> None:
    """A slice of a job of AWX lacks the key host."""
    for is_in_inventory in (True, False):
        plan = make_plan({ONE: {**HOST, "key_host": "endpoint"}}, around(is_in_inventory=lambda host, known=is_in_inventory: known))
        (key,) = known_keys(plan, looped(plan, unreachable=True, msg="timed out")).values()
        assert key["stop"].startswith("The key host endpoint cannot be reached: timed out.")
        assert ("kaleyra.whatsapp.flows_key_pair" in key["stop"]) is not is_in_inventory


def test_endpoint_is_verified_once_for_its_hosts() -> None:
    endpoint = {**HOST, "endpoint_url": "https://example.com/flow?token=x"}
    plan = make_plan({ONE: endpoint, TWO: {**endpoint, "verify_endpoint": "after"}, THREE: HOST}, around())
    keys = {plan["pairs"][0]["id"]: {"public_key": "PEM", "fingerprint": "aa", "stop": "", "pending": False}}
    (before,) = endpoints_to_verify(plan, keys, "before", [ONE, TWO, THREE])
    assert (before["url"], before["public_key"]) == (endpoint["endpoint_url"], "PEM")
    assert endpoints_to_verify(plan, keys, "before", [TWO, THREE]) == []
    assert len(endpoints_to_verify(plan, keys, "after", [TWO])) == 1
    told = verifications(plan, {"results": [{"flows_encryption_endpoint": before, "active": False, "msg": "It holds another key."}]})
    assert told == [
        {"host": host, "verification": {"url": "https://example.com/flow", "active": False, "msg": "It holds another key."}} for host in (ONE, TWO)
    ]
    assert what_to_register(plan, keys, told[0]["verification"], ONE)["stop"] == "It holds another key. No key was registered in this run."
    assert what_to_register(plan, keys, told[1]["verification"], TWO)["stop"] == ""  # asked after the registration
    assert what_to_register(plan, keys, {}, THREE)["stop"] == ""


def test_summary_waits_for_all_hosts() -> None:
    number = {"phone_number": ONE, "changed": True, "reason": "absent", "fingerprint": "aa"}
    hosts: dict[str, dict[str, Any]] = {ONE: {"flows_encryption_registration": {"numbers": [number]}}, TWO: {}}
    assert summarise(hosts, [ONE, TWO], [ONE, TWO], False) == {"numbers": {}, "message": ""}
    hosts[TWO] = {"flows_encryption_registration": {"msg": "stopped"}}
    assert summarise(hosts, [ONE, TWO], [ONE, TWO], False) == {
        "numbers": {ONE: {"changed": True, "status": "absent", "fingerprint": "aa"}},
        "message": f"1 numbers: 1 changed, 0 unchanged, 0 failed. Key aa: 1. No number was tried on {TWO}.",
    }


def stated_default(spec: dict[str, Any]) -> str | None:
    """The default of an option, as its specification or its description has it."""
    if "default" in spec:
        return str(spec["default"]).lower()
    found = re.search(r"[Bb]y default,? V\((.*?)\)|V\(([^()]*)\) \(the default\)", " ".join(str(spec["description"]).split()))
    return (found[1] or found[2]).lower() if found else None


def test_defaults_agree_everywhere() -> None:
    """The role's variables, their specification, the module's options and the README agree."""
    checkout = Path(__file__).resolve().parents[4]
    role = checkout / "roles/flows_encryption"
    defaults = yaml.safe_load((role / "defaults/main.yml").read_text())
    del defaults[PREFIX + "phone_numbers"]  # the host's name
    assert defaults.pop(PREFIX + "report_formats") == ["json", "csv", "html"]
    readme = dict(re.findall(r"`([a-z_]+)` \(`([a-z0-9]+)`\)", (checkout / "README.md").read_text()))
    entries = yaml.safe_load((role / "meta/argument_specs.yml").read_text())["argument_specs"]
    for option, value in defaults.items():
        stated = {name: stated_default(entry["options"][option]) for name, entry in entries.items() if option in entry["options"]}
        assert set(stated.values()) == {str(value).lower()}, (option, stated)
        assert readme.get(option.removeprefix(PREFIX), str(value).lower()) == str(value).lower(), option
    for option, spec in entries["main"]["options"].items():
        of_module = SPEC.argument_spec.get(option.removeprefix(PREFIX), {})
        if "default" in of_module and stated_default(spec) is not None:
            assert stated_default(spec) == str(of_module["default"]).lower(), option
    assert {"key_host", "api_host", "verify_endpoint", "private_key_mode", "summary"} <= set(readme)


def test_options_come_in_the_order_of_need() -> None:
    path = Path(__file__).resolve().parents[4] / "roles/flows_encryption/meta/argument_specs.yml"
    first = ["pod", "api_url", "sid", "api_key", "private_key_path", "phone_numbers", "endpoint_url"]
    for name, entry in yaml.safe_load(path.read_text())["argument_specs"].items():
        options = [option.removeprefix(PREFIX) for option in entry["options"]]
        assert [option for option in options if option in first] == [option for option in first if option in options], name
        assert "example" in " ".join(entry["description"]) and entry["examples"], name


@pytest.mark.parametrize(
    ("kind", "bits", "found"),
    [("RSA", 2048, ""), ("RSA", 4096, "RSA with 4096 bits"), ("DSA", 2048, "of the type DSA"), ("ECC", None, "of the type ECC")]
)
def test_key_that_the_api_rejects_is_named(kind: str, bits: int | None, found: str) -> None:
    pair = {"private_key_path": "/etc/flows/private.pem", "key_host": "flows01"}
    why = cannot_register(pair, {"type": kind, "public_data": {"size": bits}})
    assert bool(why) is bool(found) and found in why and ("/etc/flows/private.pem on flows01" in why) is bool(why)
