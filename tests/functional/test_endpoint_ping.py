# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module flows_endpoint_ping in real runs, in the worker and as a module, against endpoints that decrypt with pywa."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.endpoint.client import Endpoint
from support.endpoint.misbehaving import MisbehavingEndpoint, Reply, healthy
from support.keys import KeyPair, secret_lines
from support.playbook_runs import AS_A_MODULE, WORKER, Playbooks, assert_nowhere

PING = "kaleyra.whatsapp.flows_endpoint_ping"
APP_SECRET = "Meta-App-Secret-5d1c0f"


def ping(name: str, mode: str = WORKER, keywords: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    task: dict[str, Any] = {"name": name, PING: options}
    if mode == AS_A_MODULE:
        task["environment"] = {"ASKS_FOR_A_PROCESS": "yes"}
    return {**task, **(keywords or {})}


def steady(result: dict[str, Any]) -> dict[str, Any]:
    """The result without what differs from one run to the next."""
    warnings = [warning for warning in result.get("warnings", []) if " took " not in warning]
    rest = {name: value for name, value in result.items() if name not in ("latency_ms", "warnings", "deprecations")}
    return {**rest, **({"warnings": warnings} if warnings else {})}


@pytest.fixture
def endpoint(tmp_path: Path, key: KeyPair) -> Iterator[Endpoint]:
    private = tmp_path / "private.pem"
    private.write_text(key.private)
    with Endpoint(tmp_path / "keys", [private], app_secret=APP_SECRET) as started:
        yield started


@pytest.mark.slow
def test_both_modes_give_the_same_results(playbooks: Playbooks, endpoint: Endpoint, key: KeyPair, other_key: KeyPair) -> None:
    public = playbooks.inputs / "public.pem"
    public.write_text(key.public)
    given = {"url": endpoint.url, "app_secret": APP_SECRET}
    tasks: dict[str, dict[str, Any]] = {
        "active": {**given, "business_public_key": key.public},
        "by path": {**given, "business_public_key_path": str(public)},
        "in check mode": {**given, "business_public_key": key.public},
        "empty strings": {
            **given, "business_public_key": key.public, "business_public_key_path": "", "timeout": "", "validate_certs": "", "ca_path": ""
        },
        "other key": {**given, "business_public_key": other_key.public},
        "unsigned": {"url": endpoint.url, "business_public_key": key.public, "app_secret": ""},
        "nobody there": {"url": "http://127.0.0.1:1/", "business_public_key": key.public},
        "http": {"url": "http://flows.example.com/", "business_public_key": key.public},
        "timeout": {**given, "business_public_key": key.public, "timeout": 0},
        "both": {**given, "business_public_key": key.public, "business_public_key_path": str(public)},
        "neither": given,
        "empty url": {"url": "", "business_public_key": key.public},
        "unknown": {**given, "business_public_key": key.public, "sid": "x"},
    }
    # As a module each takes a process.
    as_modules = ["by path", "in check mode", "other key", "timeout", "both", "unknown"]
    named = {WORKER: list(tasks), AS_A_MODULE: as_modules}
    keywords = {"in check mode": {"check_mode": True}}
    all_tasks = [ping(f"{name} {mode}", mode, keywords.get(name), **tasks[name]) for mode, names in named.items() for name in names]
    run = playbooks.run_tasks(all_tasks, "--diff")
    assert run.modules == ["flows_endpoint_ping"] * len(as_modules)
    results = {mode: {name: steady(run.one(f"{name} {mode}")) for name in names} for mode, names in named.items()}
    verified = {
        "changed": False,
        "failed": False,
        "active": True,
        "fingerprint": key.fingerprint,
        "http_status": 200,
        "foreign_key": {"http_status": 421, "refused": True},
        "wrong_signature": {"http_status": 432, "refused": True},
    }
    good = ("active", "by path", "in check mode", "empty strings")
    for mode, names in named.items():
        for name in names:
            assert results[mode][name] == verified if name in good else results[mode][name]["failed"], name
        assert "parameters are mutually exclusive: business_public_key|business_public_key_path" in results[mode]["both"]["msg"]
        assert "Unsupported parameters for (kaleyra.whatsapp.flows_endpoint_ping) module: sid. " in results[mode]["unknown"]["msg"]
    for name in ("other key", "timeout"):  # for the rest Ansible itself has other words
        assert results[WORKER][name] == results[AS_A_MODULE][name], name
    causes = {"other key": "key_mismatch", "unsigned": "signature_refused", "nobody there": "connection", "http": None, "timeout": None}
    assert {name: results[WORKER][name].get("cause") for name in causes} == causes
    assert results[WORKER]["other key"]["fingerprint"] == other_key.fingerprint
    assert "one of the following is required: business_public_key, business_public_key_path" in results[WORKER]["neither"]["msg"]
    assert "missing required arguments: url" in results[WORKER]["empty url"]["msg"]
    assert endpoint.answered() == [*([200, 421, 432] * 4), 421, 432, *([200, 421, 432] * 2), 421]


@pytest.mark.parametrize(("mode", "callback"), [(WORKER, "ansible.posix.json"), (AS_A_MODULE, "ansible.builtin.default")])
@pytest.mark.slow
def test_secrets_are_nowhere(playbooks: Playbooks, key: KeyPair, mode: str, callback: str) -> None:
    """The endpoint repeats the secret wherever it can."""
    ways = {
        "active": healthy,
        "status line": lambda asked: Reply(500, APP_SECRET.encode(), reason=APP_SECRET),
        "body": lambda asked: Reply(200, APP_SECRET.encode()),
        "decrypted status": lambda asked: Reply(200, asked.answer({"data": {"status": f"no {APP_SECRET}"}})),
    }
    endpoints = {name: MisbehavingEndpoint(key.private, behave) for name, behave in ways.items()}
    given: dict[str, Any] = {"business_public_key": key.public, "app_secret": "{{ app_secret }}"}
    tasks = [ping(name, mode, url=endpoint.url, **given) for name, endpoint in endpoints.items()]
    somewhere: dict[str, Any] = {"url": endpoints["active"].url, "app_secret": "{{ app_secret }}"}
    tasks.append(ping("private key", mode, **somewhere, business_public_key=key.private))
    tasks.append(ping("bad timeout", mode, **somewhere, business_public_key=key.public, timeout="{{ app_secret }}"))
    env = {
        "ANSIBLE_STDOUT_CALLBACK": callback,
        "ANSIBLE_LOG_PATH": str(playbooks.logs / "ansible.log"),
        "ANSIBLE_INJECT_INVOCATION": "1",  # results with the module's arguments, as all had them before core 2.21
    }
    run = playbooks.run_tasks(tasks, "-vvvv", "--diff", env=env, variables={"app_secret": APP_SECRET})
    for endpoint in endpoints.values():
        endpoint.__exit__()
    # Neither a private key nor a misplaced secret reaches a process.
    assert run.modules.count("flows_endpoint_ping") == (4 if mode == AS_A_MODULE else 0)
    assert {name: run.one(name).get("cause") for name in ways} == {
        "active": None,
        "status line": "http_status",
        "body": "not_base64",
        "decrypted status": "not_active",
    }
    assert run.one("active")["active"] and run.one("active")["wrong_signature"] == {"http_status": 200, "refused": False}
    assert "'no ****" in run.one("decrypted status")["msg"]
    assert "a PRIVATE key" in run.one("private key")["msg"]
    assert len(endpoints["active"].requests) == 3
    assert ('"module_args"' in run.stdout) == (mode == AS_A_MODULE)
    secrets = [APP_SECRET, APP_SECRET[::-1], base64.b64encode(APP_SECRET.encode()).decode().rstrip("=")[:-1], *secret_lines(key.private)]
    assert_nowhere(secrets, {"the output": run.output, **playbooks.leftovers()})
