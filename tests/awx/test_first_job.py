# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From an empty AWX to registered numbers: what the set-up has stored is what ansible-runner runs, with a key host by SSH."""

from __future__ import annotations

import json
from typing import Any

from awx._controller import Controller
from awx._rules import answer_survey
from awx._runner import AWX, Credential, Inventory, Job, on_cores
from awx._set_up import NAME, NUMBERS, SetUp, ok
from awx._sshd import Host
from support.keys import fingerprint_of
from support.playbook_runs import API_KEY, SID
from support.simulator.client import Simulator


class Launcher:
    """Runs job templates as the controller has stored them.

    :param machine: user name and private key of the machine credential
    """

    def __init__(self, controller: Controller, awx: AWX, machine: tuple[str, str]) -> None:
        self._controller = controller
        self._objects = controller.objects
        self._awx = awx
        self._machine = machine

    def _inventory(self, number: int) -> Inventory:
        hosts = {item["id"]: item for item in self._objects["hosts"].values() if item["inventory"] == number}
        variables: dict[str, dict[str, Any]] = {item["name"]: {} for item in hosts.values()}
        groups = {}
        for group in self._objects["groups"].values():
            groups[group["name"]] = [hosts[host]["name"] for host in group["hosts"]]
            for name in groups[group["name"]]:
                variables[name].update(json.loads(group.get("variables") or "{}"))
        for host in hosts.values():
            variables[host["name"]].update(json.loads(host.get("variables") or "{}"))
        return Inventory(variables, groups, json.loads(self._objects["inventories"][number]["variables"]))

    def job(self, name: str, artifacts: dict[str, Any]) -> list[Job]:
        """Run a job template without answers to its survey, and return the job, or those of its slices."""
        template = self._controller.named("job_templates", name)
        kinds = self._objects["credential_types"]
        credentials = [self._objects["credentials"][number] for number in template.get("credentials", [])]
        answers = answer_survey(template["survey_spec"], {}) if template["survey_spec"] else {}
        slices = template.get("job_slice_count", 1)
        return [
            self._awx.run(
                template["playbook"],
                self._inventory(template["inventory"]),
                credentials=[Credential(kinds[item["credential_type"]], item["inputs"]) for item in credentials],
                machine=self._machine,
                extra_vars={**json.loads(template.get("extra_vars") or "{}"), **answers, **artifacts},
                check=template.get("job_type") == "check",
                diff=template.get("diff_mode", False),
                slice_of=(number, slices),
            )
            for number in range(1, slices + 1)
        ]

    def workflow(self, name: str) -> list[list[Job]]:
        """Run the nodes of a workflow one after the other, each with what those before it have published."""
        number = self._controller.named("workflow_job_templates", name)["id"]
        nodes = {item["id"]: item for item in self._objects["workflow_job_template_nodes"].values() if item["workflow_job_template"] == number}
        children = {child for node in nodes.values() for child in node["success_nodes"]}
        (at,) = [node for node in nodes.values() if node["id"] not in children]
        artifacts: dict[str, Any] = {}
        done = []
        while True:
            done.append(self.job(self._objects["job_templates"][at["unified_job_template"]]["name"], artifacts))
            assert {job.status for job in done[-1]} == {"successful"}, "\n".join(job.stdout for job in done[-1])
            for job in done[-1]:
                artifacts.update(job.artifacts)
            if not at["success_nodes"]:
                return done
            (at,) = [nodes[child] for child in at["success_nodes"]]


@on_cores("newest", "2.16")
def test_empty_awx_to_registered_and_checked_numbers(set_up: SetUp, awx: AWX, simulator: Simulator, host: Host) -> None:
    ok(
        set_up(
            env={"KALEYRA_API_URL": simulator.url, "KALEYRA_SID": SID, "KALEYRA_API_KEY": API_KEY},
            key_host="flows-endpoint",
            key_host_variables=host.variables(),
            private_key_path="~/keys/private.pem",
            endpoint_url=None,
            machine_credential="SSH to the endpoint",
            slices=3,
        )
    )
    launcher = Launcher(set_up.controller, awx, host.machine)
    workflow = f"{NAME} - Ensure key pair and register"

    (ensured,), registered = launcher.workflow(workflow)
    fingerprint = fingerprint_of((host.login.home / "keys/private.pub.pem").read_text())
    assert ensured.artifacts["flows_encryption_fingerprint"] == fingerprint
    # The key host is in the last of the three slices alone, which has no number. All have succeeded, with their records on the key host.
    assert len(registered) == 3 and not registered[2].reasons()
    assert simulator.registered() == {SID: dict.fromkeys(NUMBERS, fingerprint)}
    assert {number: reason for job in registered for number, reason in job.reasons().items()} == dict.fromkeys(NUMBERS, "absent")
    assert len(list(host.login.records.glob("[!.]*"))) == len(NUMBERS)

    (ensured,), registered = launcher.workflow(workflow)
    assert not ensured.summary("changed")
    assert {number: reason for job in registered for number, reason in job.reasons().items()} == dict.fromkeys(NUMBERS, "up_to_date")
    assert simulator.count() == len(NUMBERS)

    (checked,) = launcher.job(f"{NAME} - Check", {})
    assert checked.status == "successful" and not checked.summary("changed"), checked.stdout
    assert checked.artifacts["flows_encryption_check"]["by_state"] == {"ok": len(NUMBERS)}
    next(host.login.records.glob(f"*{NUMBERS[0].removeprefix('+')}*")).unlink()
    (failed,) = launcher.job(f"{NAME} - Check", {})
    assert failed.status == "failed" and failed.artifacts["flows_encryption_check"]["by_state"] == {"ok": 1, "absent": 1}, failed.stdout
    assert f"{NUMBERS[0]}: no key is known" in failed.text and simulator.count() == len(NUMBERS)
