# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module flows_endpoint_ping in real runs, in the worker and as a module, against endpoints that decrypt with pywa."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.endpoint.client import Endpoint
from support.endpoint.misbehaving import MisbehavingEndpoint, Reply, healthy
from support.keys import KeyPair, secret_lines
from support.playbook_runs import AS_A_MODULE, EXECUTION_MODES, WORKER, Playbooks, assert_nowhere

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


def test_both_modes_give_the_same_results(playbooks: Playbooks, endpoint: Endpoint, key: KeyPair, other_key: KeyPair) -> None:
    public = playbooks.inputs / "public.pem"
    public.write_text(key.public)
    given = {"url": endpoint.url, "app_secret": APP_SECRET}
    tasks: dict[str, dict[str, Any]] = {
        "active": {**given, "business_public_key": key.public},
        "by path": {**given, "business_public_key_path": str(public)},
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
    named = {WORKER: list(tasks), AS_A_MODULE: ["by path", "empty strings", "other key", "unsigned", "timeout", "both", "empty url", "unknown"]}
    runs = {mode: playbooks.run_tasks([ping(name, mode, **tasks[name]) for name in names]) for mode, names in named.items()}
    assert (runs[WORKER].modules.count("flows_endpoint_ping"), runs[AS_A_MODULE].modules.count("flows_endpoint_ping")) == (0, 8)
    results = {mode: {name: steady(runs[mode].one(name)) for name in names} for mode, names in named.items()}
    for mode, name in ((mode, name) for mode, names in named.items() for name in names):
        assert results[mode][name]["failed"] == (name not in ("active", "by path", "empty strings")), name
    for name in ("by path", "empty strings", "other key", "unsigned", "timeout"):  # for the rest Ansible itself has other words
        assert results[WORKER][name] == results[AS_A_MODULE][name], name
    verified = {
        "changed": False,
        "failed": False,
        "active": True,
        "fingerprint": key.fingerprint,
        "http_status": 200,
        "foreign_key": {"http_status": 421, "refused": True},
        "wrong_signature": {"http_status": 432, "refused": True},
    }
    for name in ("active", "by path", "empty strings"):
        assert results[WORKER][name] == verified
    causes = {"other key": "key_mismatch", "unsigned": "signature_refused", "nobody there": "connection"}
    for name, cause in causes.items():
        assert results[WORKER][name]["cause"] == cause
    assert results[WORKER]["other key"]["fingerprint"] == other_key.fingerprint
    for name in ("http", "timeout"):
        assert "cause" not in results[WORKER][name]
    assert "one of the following is required: business_public_key, business_public_key_path" in results[WORKER]["neither"]["msg"]
    for mode in EXECUTION_MODES:
        assert "parameters are mutually exclusive: business_public_key|business_public_key_path" in results[mode]["both"]["msg"]
        assert "missing required arguments: url" in results[mode]["empty url"]["msg"]
        assert "Unsupported parameters for (kaleyra.whatsapp.flows_endpoint_ping) module: sid. " in results[mode]["unknown"]["msg"]
    assert endpoint.answered() == [*([200, 421, 432] * 3), 421, 432, *([200, 421, 432] * 2), 421, 432]


@pytest.mark.slow
def test_check_mode_sends_and_changes_nothing(playbooks: Playbooks, endpoint: Endpoint, key: KeyPair) -> None:
    tasks = [ping(mode, mode, url=endpoint.url, app_secret=APP_SECRET, business_public_key=key.public) for mode in EXECUTION_MODES]
    for arguments in (["--check", "--diff"], ["--diff"]):
        run = playbooks.run_tasks(tasks, *arguments)
        assert run.changed() == 0
        assert all(run.one(mode)["active"] and "diff" not in run.one(mode) for mode in EXECUTION_MODES)
    assert endpoint.answered() == [200, 421, 432] * 4


@pytest.mark.slow
def test_until_waits_for_the_key(playbooks: Playbooks, endpoint: Endpoint, other_key: KeyPair) -> None:
    private = playbooks.inputs / "other.pem"
    private.write_text(other_key.private)

    def hold_after_the_first_answer() -> None:
        while not endpoint.answered():
            time.sleep(0.05)
        endpoint.hold([private])
        endpoint.reload()

    holder = threading.Thread(target=hold_after_the_first_answer, daemon=True)
    holder.start()
    until = {"register": "flows_endpoint", "until": "flows_endpoint is success", "retries": 60, "delay": 1}
    run = playbooks.run_tasks([ping("ping", keywords=until, url=endpoint.url, app_secret=APP_SECRET, business_public_key=other_key.public)])
    holder.join()
    assert run.one("ping")["active"]
    answered = endpoint.answered()
    assert answered[0] == 421 and answered[-3:] == [200, 421, 432]


@pytest.mark.slow
def test_async(playbooks: Playbooks, endpoint: Endpoint, key: KeyPair, other_key: KeyPair) -> None:
    background = {"async": 60, "poll": 1}
    given = {"url": endpoint.url, "app_secret": APP_SECRET}
    run = playbooks.run_tasks(
        [
            ping("right", keywords=background, **given, business_public_key=key.public),
            ping("wrong", keywords=background, **given, business_public_key=other_key.public),
        ],
        "-vvvv",
    )
    assert run.one("right")["active"]
    assert (run.one("wrong")["failed"], run.one("wrong")["cause"]) == (True, "key_mismatch")
    # Ansible itself removes the module with its arguments, some seconds after the end.
    left = {path: text for path, text in playbooks.leftovers().items() if not path.name.startswith("AnsiballZ_")}
    assert_nowhere([APP_SECRET], {"the output": run.output, **left})


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
    tasks += [
        ping("private key", mode, **somewhere, business_public_key=key.private),
        ping("private key in a line", mode, **somewhere, business_public_key=key.private.replace("\n", "\\n")),
        ping("neither", mode, **somewhere),
        ping("bad timeout", mode, **somewhere, business_public_key=key.public, timeout="{{ app_secret }}"),
    ]
    env = {
        "ANSIBLE_STDOUT_CALLBACK": callback,
        "ANSIBLE_LOG_PATH": str(playbooks.logs / "ansible.log"),
        "ANSIBLE_INJECT_INVOCATION": "1",  # results with the module's arguments, as all had them before core 2.21
    }
    run = playbooks.run_tasks(tasks, "-vvvv", "--diff", env=env, variables={"app_secret": APP_SECRET})
    for endpoint in endpoints.values():
        endpoint.__exit__()
    # Neither a private key nor a misplaced secret reaches a process.
    assert run.modules.count("flows_endpoint_ping") == (5 if mode == AS_A_MODULE else 0)
    assert {name: run.one(name).get("cause") for name in ways} == {
        "active": None,
        "status line": "http_status",
        "body": "not_base64",
        "decrypted status": "not_active",
    }
    assert run.one("active")["active"] and run.one("active")["wrong_signature"] == {"http_status": 200, "refused": False}
    assert "'no ****" in run.one("decrypted status")["msg"]
    for name in ("private key", "private key in a line"):
        assert "a PRIVATE key" in run.one(name)["msg"]
    assert len(endpoints["active"].requests) == 3
    assert ('"module_args"' in run.stdout) == (mode == AS_A_MODULE)
    secrets = [APP_SECRET, APP_SECRET[::-1], base64.b64encode(APP_SECRET.encode()).decode().rstrip("=")[:-1], *secret_lines(key.private)]
    assert_nowhere(secrets, {"the output": run.output, **playbooks.leftovers()})
