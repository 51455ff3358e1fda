# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A small AWX: as much of ``/api/v2`` as a set-up needs, in memory, with AWX's own rules for what is posted.

It has objects with IDs, lists that are searched by name, relations, surveys, secrets that are not given back, and project updates. Beyond
AWX it refuses fields that it does not know, so that nothing is posted in vain. It runs no jobs.
"""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import itertools
import json
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from aiohttp import web
from awx import _rules

TOKEN = "Controller-Token-4711"
ENCRYPTED = "$encrypted$"
_PREFIX = "/api/v2"


@dataclasses.dataclass(frozen=True)
class Kind:
    """What objects of a kind are.

    :param fields: what can be written, and what it is if it is not
    :param needed: fields without which none is made
    :param unique: fields that no two objects have alike
    :param refers: fields with the ID of an object of another kind
    :param relations: lists of other objects, and their kind
    :param ignored: read-only fields that the modules post all the same
    """

    fields: Mapping[str, Any]
    needed: tuple[str, ...] = ("name",)
    unique: tuple[str, ...] = ("name",)
    refers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    relations: Mapping[str, str] = dataclasses.field(default_factory=dict)
    ignored: tuple[str, ...] = ()


_ASKED = (
    "credential diff_mode execution_environment forks instance_groups inventory job_slice_count job_type labels limit scm_branch skip_tags"
    " tags timeout variables verbosity"
)
_ASKS: dict[str, Any] = {f"ask_{name}_on_launch": False for name in _ASKED.split()}
_IN_ORGANIZATION = {"organization": "organizations"}
KINDS: dict[str, Kind] = {
    "organizations": Kind({"name": "", "description": ""}),
    "credential_types": Kind(
        {"name": "", "description": "", "kind": "", "inputs": {}, "injectors": {}},
        needed=("name", "kind"),
        unique=("name", "kind"),
        ignored=("managed",),
    ),
    "credentials": Kind(
        {"name": "", "description": "", "organization": None, "credential_type": None, "inputs": {}},
        needed=("name", "credential_type"),
        unique=("organization", "name", "credential_type"),
        refers={**_IN_ORGANIZATION, "credential_type": "credential_types"},
    ),
    "execution_environments": Kind(
        {"name": "", "description": "", "organization": None, "image": "", "pull": "", "credential": None},
        needed=("name", "image"),
        refers={**_IN_ORGANIZATION, "credential": "credentials"},
    ),
    "projects": Kind(
        {"name": "", "description": "", "organization": None, "scm_type": "", "scm_url": "", "scm_branch": "", "credential": None},
        unique=("organization", "name"),
        refers={**_IN_ORGANIZATION, "credential": "credentials"},
    ),
    "inventories": Kind(
        {"name": "", "description": "", "organization": None, "kind": "", "host_filter": None, "variables": ""},
        needed=("name", "organization"),
        unique=("organization", "name"),
        refers=_IN_ORGANIZATION,
    ),
    "hosts": Kind(
        {"name": "", "description": "", "inventory": None, "enabled": True, "variables": ""},
        needed=("name", "inventory"),
        unique=("inventory", "name"),
        refers={"inventory": "inventories"},
    ),
    "groups": Kind(
        {"name": "", "description": "", "inventory": None, "variables": ""},
        needed=("name", "inventory"),
        unique=("inventory", "name"),
        refers={"inventory": "inventories"},
        relations={"hosts": "hosts", "children": "groups"},
    ),
    "job_templates": Kind(
        {
            "name": "", "description": "", "inventory": None, "project": None, "playbook": "", "execution_environment": None,
            "job_type": "run", "forks": 0, "limit": "", "verbosity": 0, "extra_vars": "", "diff_mode": False, "use_fact_cache": False,
            "survey_enabled": False, "allow_simultaneous": False, "job_slice_count": 1, "become_enabled": False, "timeout": 0,
            **_ASKS,
        },
        needed=("name", "inventory", "project", "playbook"),
        unique=("organization", "name"),
        refers={"inventory": "inventories", "project": "projects", "execution_environment": "execution_environments"},
        relations={"credentials": "credentials"},
        # That of the project.
        ignored=("organization",),
    ),
    "workflow_job_templates": Kind(
        {
            "name": "", "description": "", "organization": None, "inventory": None, "limit": "", "extra_vars": "",
            "survey_enabled": False, "allow_simultaneous": False,
            **_ASKS,
        },
        unique=("organization", "name"),
        refers={**_IN_ORGANIZATION, "inventory": "inventories"},
    ),
    "workflow_job_template_nodes": Kind(
        {"identifier": "", "workflow_job_template": None, "unified_job_template": None, "extra_data": {}, "all_parents_must_converge": False},
        needed=("identifier", "workflow_job_template"),
        unique=("workflow_job_template", "identifier"),
        refers={"workflow_job_template": "workflow_job_templates", "unified_job_template": "unified_job_templates"},
        relations=dict.fromkeys(("success_nodes", "failure_nodes", "always_nodes"), "workflow_job_template_nodes"),
        ignored=("type",),
    ),
}
# One numbering for all templates, as AWX has it.
_UNIFIED = ("job_templates", "workflow_job_templates", "projects")


class Controller:
    """The server, in a thread of its own, from the constructor to `stop` or the end of `with`.

    :param project: folder with what is in the repository of any project
    :ivar url: what CONTROLLER_HOST is set to
    :ivar objects: the objects by kind and ID, secrets in clear
    :ivar written: method and path of each request that was not a GET
    """

    url: str

    def __init__(self, project: Path) -> None:
        self.project = project
        self.objects: dict[str, dict[int, dict[str, Any]]] = {kind: {} for kind in KINDS}
        self.written: list[tuple[str, str]] = []
        self._ids = itertools.count(1)
        self._updates: dict[int, int] = {}  # how often each project's was asked after
        self._started = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        assert self._started.wait(30)
        self.add("organizations", name="Default")

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app)
        self._loop.run_until_complete(runner.setup())
        site = web.TCPSite(runner, "127.0.0.1", 0)
        self._loop.run_until_complete(site.start())
        self.url = "http://{}:{}".format(*runner.addresses[0][:2])
        self._started.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def __enter__(self) -> Controller:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        self.stop()

    def named(self, kind: str, name: str) -> dict[str, Any]:
        """The one object with that name."""
        (found,) = [item for item in self.objects[kind].values() if item.get("name", item.get("identifier")) == name]
        return found

    def names(self, kind: str) -> list[str]:
        return [str(item.get("name", item.get("identifier"))) for item in self.objects[kind].values()]

    # What is posted.

    def add(self, kind: str, /, **values: Any) -> dict[str, Any]:
        """Make an object, or raise Refused."""
        rules = KINDS[kind]
        missing = [name for name in rules.needed if values.get(name) in (None, "")]
        if missing:
            raise _rules.Refused(f"{kind} needs {missing}")
        item = {"id": next(self._ids), **copy.deepcopy(dict(rules.fields)), **{name: [] for name in rules.relations}}
        if kind in ("job_templates", "workflow_job_templates"):
            item["survey_spec"] = {}
        self._write(kind, item, values)
        self.objects[kind][item["id"]] = item
        return item

    def _write(self, kind: str, item: dict[str, Any], values: Mapping[str, Any]) -> None:
        rules = KINDS[kind]
        wanted = {name: value for name, value in values.items() if name not in rules.ignored}
        unknown = set(wanted) - set(rules.fields)
        if unknown:
            raise _rules.Refused(f"{kind} has no {sorted(unknown)}")
        for name, given in wanted.items():
            default = rules.fields[name]
            value: Any = "" if given is None and isinstance(default, str) else given
            wanted[name] = value
            if name in rules.refers:
                if value is not None and not self._find(rules.refers[name], value):
                    raise _rules.Refused(f"{name} {value!r} is not there")
            elif default is not None and value is not None and type(value) is not type(default):
                raise _rules.Refused(f"{name} is {value!r}")
        after = {**item, **wanted}
        for other in self.objects[kind].values():
            if other["id"] != item["id"] and all(other.get(name) == after.get(name) for name in rules.unique):
                raise _rules.Refused(f"{kind} with this {rules.unique} already exists")
        getattr(self, f"_check_{kind}", lambda *dummy: None)(item, after)
        if kind == "projects" and any(item[name] != after[name] for name in ("scm_type", "scm_url", "scm_branch")):
            self._updates[item["id"]] = 0
        item.update(after)

    def _find(self, kind: str, number: int) -> dict[str, Any] | None:
        kinds = _UNIFIED if kind == "unified_job_templates" else (kind,)
        return next((self.objects[name][number] for name in kinds if number in self.objects[name]), None)

    def _check_credential_types(self, before: dict[str, Any], after: dict[str, Any]) -> None:
        _rules.check_credential_type(after)
        for field in after["inputs"]["fields"]:
            field.setdefault("type", "string")
        used = any(credential["credential_type"] == before["id"] for credential in self.objects["credentials"].values())
        if used and before["inputs"] != after["inputs"]:
            raise PermissionError("inputs of a credential type that is in use")

    def _check_credentials(self, before: dict[str, Any], after: dict[str, Any]) -> None:
        inputs = {name: before["inputs"][name] if value == ENCRYPTED else value for name, value in after["inputs"].items()}
        after["inputs"] = _rules.check_credential(self.objects["credential_types"][after["credential_type"]]["inputs"], inputs)

    def _check_job_templates(self, before: dict[str, Any], after: dict[str, Any]) -> None:
        project = self.objects["projects"][after["project"]]
        after["organization"] = project["organization"]
        if after["playbook"] not in self._playbooks(project):
            raise _rules.Refused(f"Playbook {after['playbook']} not found for project.")
        if after["survey_enabled"] and after["job_type"] not in ("run", "check"):
            raise _rules.Refused("job_type")

    def _playbooks(self, project: Mapping[str, Any]) -> list[str]:
        """What AWX offers of a project. Before its update has ended, nothing."""
        if not self._is_fetched(project):
            return []
        return [path.name for path in self.project.glob("*.yml") if _rules.could_be_playbook(path.read_text())]

    def _is_fetched(self, project: Mapping[str, Any]) -> bool:
        return self._updates.get(project["id"], 0) >= 2

    def _relate(self, kind: str, item: dict[str, Any], relation: str, asked: Mapping[str, Any]) -> None:
        other = self._find(KINDS[kind].relations[relation], asked["id"])
        if other is None:
            raise _rules.Refused(f"{relation} {asked['id']} is not there")
        if asked.get("disassociate"):
            item[relation].remove(other["id"])
            return
        if relation == "hosts" and other["inventory"] != item["inventory"]:
            raise _rules.Refused("host of another inventory")
        if relation == "credentials":
            types = [self.objects["credentials"][number]["credential_type"] for number in item["credentials"]]
            if other["credential_type"] in types:
                raise _rules.Refused("Cannot assign multiple credentials of one type.")
        item[relation].append(other["id"])

    # What is answered.

    def _shown(self, kind: str, item: Mapping[str, Any]) -> dict[str, Any]:
        rules = KINDS[kind]
        url = f"{_PREFIX}/{kind}/{item['id']}/"
        shown = {name: value for name, value in item.items() if name not in rules.relations and name != "survey_spec"}
        shown |= {"url": url, "type": kind.rstrip("s"), "summary_fields": {}}
        shown["related"] = {name: f"{url}{name}/" for name in (*rules.relations, *(["survey_spec"] if "survey_spec" in item else []))}
        if kind == "credential_types":
            shown["managed"] = False
        if kind == "credentials":
            fields = self.objects["credential_types"][item["credential_type"]]["inputs"]["fields"]
            secret = {field["id"] for field in fields if field.get("secret")}
            shown["inputs"] = {name: ENCRYPTED if name in secret and value else value for name, value in item["inputs"].items()}
        if kind == "projects":
            shown["scm_revision"] = "0" * 40 if self._is_fetched(item) else ""
            if not self._is_fetched(item):
                shown["summary_fields"] = {"current_update": {"id": item["id"], "status": "running"}}
        return shown

    def _list(self, kind: str, query: Mapping[str, str]) -> list[dict[str, Any]]:
        kinds = _UNIFIED if kind == "unified_job_templates" else (kind,)
        found = []
        for name in kinds:
            known = {"id", *KINDS[name].fields, *KINDS[name].ignored}
            for asked in query:
                if asked.removeprefix("or__") not in known:
                    raise _rules.Refused(f"{name} has no field {asked}")
            for item in self.objects[name].values():
                all_of = [str(item.get(field)) == value for field, value in query.items() if not field.startswith("or__")]
                any_of = [str(item.get(field[4:])) == value for field, value in query.items() if field.startswith("or__")]
                if all(all_of) and (not any_of or any(any_of)):
                    found.append(self._shown(name, item))
        return found

    async def _answer(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return web.json_response({"detail": "Authentication credentials were not provided."}, status=401)
        if not request.path.startswith(f"{_PREFIX}/") or not request.path.endswith("/"):
            return web.json_response({"detail": "Not found."}, status=404)
        if request.method != "GET":
            self.written.append((request.method, request.path))
        body = json.loads(await request.text() or "{}")
        try:
            status, answer = self._handle(request.method, request.path.removeprefix(_PREFIX).strip("/").split("/"), request.query, body)
        except _rules.Refused as exc:
            status, answer = 400, {"__all__": [str(exc)]}
        except PermissionError as exc:
            status, answer = 403, {"detail": str(exc)}
        except (KeyError, ValueError):
            status, answer = 404, {"detail": "Not found."}
        headers = {"X-API-Product-Name": "AWX", "X-API-Product-Version": "24.6.1"}
        if answer is None:
            return web.Response(status=status, headers=headers)
        return web.Response(status=status, headers=headers, text=json.dumps(answer), content_type="application/json")

    def _handle(self, method: str, path: list[str], query: Mapping[str, str], body: dict[str, Any]) -> tuple[int, Any]:
        kind, *rest = path
        if kind == "project_updates" and method == "GET":
            number = int(rest[0])
            self._updates[number] += 1
            return 200, {"status": "successful" if self._updates[number] >= 2 else "running", "failed": False}
        match method, rest:
            case "GET", []:
                found = self._list(kind, query)
                return 200, {"count": len(found), "next": None, "previous": None, "results": found}
            case "POST", []:
                return 201, self._shown(kind, self.add(kind, **body))
        item = self.objects[kind][int(rest[0])]
        match method, rest[1:]:
            case "GET", []:
                return 200, self._shown(kind, item)
            case "PATCH", []:
                self._write(kind, item, body)
                return 200, self._shown(kind, item)
            case "GET", ["survey_spec"]:
                return 200, item["survey_spec"]
            case "POST", ["survey_spec"]:
                _rules.check_survey(body)
                item["survey_spec"] = body
                return 200, None
            case "GET", [relation]:
                other = KINDS[kind].relations[relation]
                found = [self._shown(other, self.objects[other][number]) for number in item[relation]]
                return 200, {"count": len(found), "next": None, "previous": None, "results": found}
            case "POST", [relation]:
                self._relate(kind, item, relation, body)
                return 204, None
        return 405, {"detail": f"Method {method} not allowed."}
