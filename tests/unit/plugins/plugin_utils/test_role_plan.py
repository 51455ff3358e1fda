# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan of a run of the role: what its hosts share, which of them cannot go on and why, for each type that a value comes in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.kaleyra.whatsapp.plugins.plugin_utils._role_plan import (
    Stop,
    Surroundings,
    as_bool,
    endpoints_to_verify,
    known_keys,
    make_plan,
    pairs_to_create,
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
        (None, "0600"),
        ("", "0600"),
        ("0600", "0600"),
        ("600", "0600"),
        (0o600, "0600"),  # an unquoted 0600, as YAML reads it
        (0o640, "0640"),
        ("416", "0640"),  # the same, as text from -e or a survey
        (0o400, "0400"),
        ("256", "0400"),
        (600, "0600"),
        ("u=rw,g=r", "u=rw,g=r"),
    ],
)
def test_the_mode_is_what_was_meant(value: Any, mode: str) -> None:
    assert private_key_mode(value) == mode


@pytest.mark.parametrize("value", ["0644", 0o644, 0o604, "u=rw,o=r", "a=r", "rw", 1, True, "0000", "07777"])
def test_a_mode_that_lets_others_read_is_refused(value: Any) -> None:
    with pytest.raises(Stop, match="flows_encryption_private_key_mode"):
        private_key_mode(value)


@pytest.mark.parametrize("value", [True, "true", "Yes", "on", 1, "1", 1.0])
def test_yes(value: Any) -> None:
    assert as_bool(value)


@pytest.mark.parametrize("value", [None, "", " ", False, "no", "false", 0, "0"])
def test_no(value: Any) -> None:
    assert not as_bool(value)


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
    ],
)
def test_numbers_of_each_type(value: Any, numbers: list[str]) -> None:
    assert phone_numbers(value, THREE) == numbers


def test_numbers_that_hold_none_are_refused() -> None:
    with pytest.raises(Stop, match="holds no number"):
        phone_numbers(", ,", THREE)


@pytest.mark.parametrize("odd", [None, "", 0, 17, 1.0, True, "text"])
@pytest.mark.parametrize(
    "option", ["private_key_passphrase", "private_key_owner", "public_key_path", "key_host", "api_host", "app_secret", "endpoint_url"]
)
def test_no_type_of_a_value_breaks_the_plan(option: str, odd: Any) -> None:
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
def test_one_path_with_different_attributes_stops_its_hosts_alone(attribute: str) -> None:
    other = {"mode": "0640", "format": "pkcs1"}.get(attribute, "other")
    hosts = {ONE: HOST, TWO: {**HOST, f"private_key_{attribute}": other}, THREE: {**HOST, "private_key_path": "/keys/another.pem"}}
    plan = make_plan(hosts, around())
    assert set(stops(plan)) == {ONE, TWO}
    for message in stops(plan).values():
        assert f"{ONE} and {TWO} name the private key /keys/private.pem on localhost" in message
        assert f"flows_encryption_private_key_{attribute}" in message
    assert [pair["private_key_path"] for pair in plan["pairs"]] == ["/keys/another.pem"]
    same = make_plan({host: {**HOST, f"private_key_{attribute}": other} for host in (ONE, TWO)}, around())
    assert not stops(same)


def test_relative_paths_never_start_in_an_installed_collection() -> None:
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
        ({"private_key_path": "-----BEGIN PRIVATE KEY-----\nMIIE"}, "holds the text of a key"),
        ({"public_key": "-----BEGIN PRIVATE KEY-----\nMIIE"}, "holds a private key"),
        ({"public_key": "public.pem"}, "takes the PEM text of a public key, and no path"),
        ({"private_key_format": "der"}, "must be one of pkcs1, pkcs8"),
        ({"endpoint_url": "https://example.com", "verify_endpoint": "sometimes"}, "must be one of both, before, after, never"),
    ],
)
def test_what_stops_a_host_is_told_to_that_host_alone(changes: dict[str, Any], told: str) -> None:
    plan = make_plan({ONE: {**HOST, **changes}, TWO: HOST}, around())
    assert list(stops(plan)) == [ONE]
    assert told in stops(plan)[ONE]
    assert "MIIE" not in stops(plan)[ONE]


def test_a_host_that_is_no_number_hears_which_variable_to_set() -> None:
    assert "Set flows_encryption_phone_numbers" in stops(make_plan({"web1": HOST}, around()))["web1"]


def test_environment_and_credential_stand_in_for_variables() -> None:
    environment = {"KALEYRA_SID": "HXAP1", "KALEYRA_API_KEY": "secret", "KALEYRA_POD": "in", "KALEYRA_FLOWS_PRIVATE_KEY_FILE": "/runner/key"}
    plan = make_plan({ONE: {}}, around(environment=environment))
    assert not stops(plan) and not plan["pairs"]
    part = what_to_register(plan, known_keys(plan, {}, {}, {}, {}, False), {}, ONE)
    assert part == {"numbers": [ONE], "public_key": "PEM of /runner/key", "stop": "", "pending": False}


def test_a_key_is_not_created_where_it_would_vanish() -> None:
    plan = make_plan({ONE: HOST}, around(in_awx=True))
    absent = looped(plan, state="absent")
    assert pairs_to_create(plan, absent) == []
    assert "would vanish with this job's container" in known_keys(plan, absent, {}, {}, {}, False)[plan["pairs"][0]["id"]]["stop"]
    assert plan["warnings"]
    lasting = make_plan({ONE: {**HOST, "key_path_is_persistent": "yes", "cache_path_is_persistent": 1}}, around(in_awx=True))
    assert pairs_to_create(lasting, looped(lasting, state="absent")) == lasting["pairs"]
    assert not lasting["warnings"]


def test_what_became_of_a_pair() -> None:
    plan = make_plan({ONE: HOST}, around())
    identity = plan["pairs"][0]["id"]
    here, read, written = (
        looped(plan, state="file"),
        looped(plan, public_key="PEM", public_key_fingerprints={"sha256": "aa"}),
        looped(plan, filename="/keys/private.pub.pem"),
    )

    def key(file: Any, info: Any, public: Any, failures: Any = None, check_mode: bool = False) -> dict[str, Any]:
        return known_keys(plan, file, info, public, failures or {}, check_mode)[identity]

    assert key(here, read, written) == {"public_key": "PEM", "fingerprint": "aa", "place": "/keys/private.pem", "stop": "", "pending": False}
    assert key(looped(plan, state="absent"), {}, {}, check_mode=True)["pending"]
    assert key(looped(plan, state="absent"), {}, {}, failures={identity: "no space"})["stop"] == "no space"
    assert "key host localhost cannot run modules: no Python" in key(looped(plan, unreachable=True, msg="no Python"), {}, {})["stop"]
    assert "flows_encryption_private_key_path /keys/private.pem on localhost" in key(looped(plan, state="directory", msg="a folder"), {}, {})["stop"]
    assert "KALEYRA_FLOWS_PRIVATE_KEY_PASSPHRASE" in key(here, looped(plan, msg="Wrong or empty passphrase"), {})["stop"]
    assert "flows_encryption_public_key_path" in key(here, read, looped(plan, msg="no space"))["stop"]


@pytest.mark.parametrize("is_in_inventory", [True, False])
def test_key_host_unreachable_outside_the_inventory_advises(is_in_inventory: bool) -> None:
    """A slice of a job of AWX lacks the key host."""
    plan = make_plan({ONE: {**HOST, "key_host": "endpoint"}}, around(is_in_inventory=lambda host: is_in_inventory))
    (key,) = known_keys(plan, looped(plan, unreachable=True, msg="timed out"), {}, {}, {}, False).values()
    assert key["stop"].startswith("The key host endpoint cannot be reached: timed out.")
    assert ("kaleyra.whatsapp.flows_key_pair" in key["stop"]) is not is_in_inventory


def test_an_endpoint_is_verified_once_and_stops_its_own_hosts() -> None:
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


def test_the_summary_waits_for_hosts_at_work_and_names_those_that_tried_nothing() -> None:
    number = {"phone_number": ONE, "changed": True, "reason": "absent", "fingerprint": "aa"}
    hosts: dict[str, dict[str, Any]] = {ONE: {"flows_encryption_registration": {"numbers": [number]}}, TWO: {}}
    assert summarise(hosts, [ONE, TWO], [ONE, TWO], False) == {"numbers": {}, "message": ""}
    hosts[TWO] = {"flows_encryption_registration": {"msg": "stopped"}}
    assert summarise(hosts, [ONE, TWO], [ONE, TWO], False) == {
        "numbers": {ONE: {"changed": True, "status": "absent", "fingerprint": "aa"}},
        "message": f"1 numbers: 1 changed, 0 unchanged, 0 failed. Key aa: 1. No number was tried on {TWO}.",
    }


def test_a_default_is_stated_once() -> None:
    """Defaults of variables and of the argument specification agree."""
    role = Path(__file__).resolve().parents[4] / "roles/flows_encryption"
    defaults = yaml.safe_load((role / "defaults/main.yml").read_text())
    for name, entry in yaml.safe_load((role / "meta/argument_specs.yml").read_text())["argument_specs"].items():
        for option, spec in entry["options"].items():
            if "default" in spec and option in defaults:
                assert spec["default"] == defaults[option], (name, option)
