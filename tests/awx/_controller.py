# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The part of AWX's ``/api/v2`` that the set-up uses, in memory, without jobs. Above each rule is its place in AWX 24.6.1."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from awx import _rules

TOKEN = "Controller-Token-4711"
_PREFIX = "/api/v2"

# Kind of an object -> its lists of other objects -> their kind.
_RELATIONS = {
    "groups": {"hosts": "hosts"},
    "job_templates": {"credentials": "credentials"},
    "workflow_job_template_nodes": dict.fromkeys(("success_nodes", "failure_nodes", "always_nodes"), "workflow_job_template_nodes"),
}
_KINDS = (
    "organizations credential_types credentials execution_environments projects inventories hosts groups job_templates workflow_job_templates"
    " workflow_job_template_nodes"
).split()
_WITH_SURVEY = ("job_templates", "workflow_job_templates")

Object = dict[str, Any]


class Controller:
    """The server, in a thread from the constructor to :meth:`stop`.

    :param project: folder that is the repository of every project
    :ivar url: value of CONTROLLER_HOST
    :ivar objects: the objects by kind and ID, secrets in clear
    :ivar written: method and path of each request that was not a GET
    :ivar failing_updates: how many of the next project updates fail
    """

    def __init__(self, project: Path) -> None:
        self.objects: dict[str, dict[int, Object]] = {kind: {} for kind in _KINDS}
        self.written: list[tuple[str, str]] = []
        self.failing_updates = 0
        self._playbooks = [path.name for path in project.glob("*.yml") if _rules.could_be_playbook(path.read_text())]
        self._updates: dict[int, str] = {}  # status of each project's last update
        controller = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                is_known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
                status, answer = controller._answer(self.command, self.path, json.loads(body or b"{}")) if is_known else (401, {})
                text = b"" if answer is None else json.dumps(answer).encode()
                self.send_response(status)
                product = {"X-API-Product-Name": "AWX", "X-API-Product-Version": "24.6.1"}
                for name, value in {"Content-Type": "application/json", "Content-Length": str(len(text)), **product}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_PATCH = _answer  # noqa: N815

            def log_message(self, *dummy: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.add("organizations", name="Default")

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def named(self, kind: str, name: str) -> Object:
        """Return the one object with this name."""
        (found,) = [item for item in self.objects[kind].values() if item.get("name", item.get("identifier")) == name]
        return found

    def names(self, kind: str) -> list[str]:
        return [item["name"] for item in self.objects[kind].values()]

    def add(self, resource: str, /, **values: Any) -> Object:
        """Create an object, or raise Refused."""
        item: Object = {"id": 1 + sum(map(len, self.objects.values())), **{name: [] for name in _RELATIONS.get(resource, {})}}
        if resource in _WITH_SURVEY:
            item["survey_spec"] = {}
        self._write(resource, item, values)
        self.objects[resource][item["id"]] = item
        # awx/main/models/projects.py: Project.save
        if resource == "projects":
            self._update(item)
        return item

    def _write(self, kind: str, item: Object, values: Mapping[str, Any]) -> None:
        after = {**item, **values}
        if kind == "credential_types":
            _rules.check_credential_type(after)
        elif kind == "credentials":
            # awx/main/models/credential.py: Credential.save keeps secrets that come back as $encrypted$
            inputs = {name: item["inputs"][name] if value == "$encrypted$" else value for name, value in after["inputs"].items()}
            after["inputs"] = _rules.save_credential(self.objects["credential_types"][after["credential_type"]]["inputs"]["fields"], inputs)
        # awx/api/serializers.py: JobOptionsSerializer.validate; the files are known once an update has succeeded
        elif kind == "job_templates" and (self._updates[after["project"]] != "successful" or after["playbook"] not in self._playbooks):
            raise _rules.Refused("Playbook not found for project.")
        item.update(after)

    def _update(self, project: Object) -> None:
        self._updates[project["id"]] = "failed" if self.failing_updates else "successful"
        self.failing_updates = max(0, self.failing_updates - 1)

    def _shown(self, kind: str, item: Object) -> Object:
        url = f"{_PREFIX}/{kind}/{item['id']}/"
        related = [*_RELATIONS.get(kind, {}), "update", *(["survey_spec"] if kind in _WITH_SURVEY else [])]
        hidden = [*_RELATIONS.get(kind, {}), "survey_spec"]
        shown = {name: value for name, value in item.items() if name not in hidden}
        shown |= {"url": url, "type": kind.rstrip("s"), "summary_fields": {}, "related": {name: f"{url}{name}/" for name in related}}
        if kind == "credentials":
            # awx/main/models/credential.py: Credential.display_inputs
            fields = self.objects["credential_types"][item["credential_type"]]["inputs"]["fields"]
            secret = {field["id"] for field in fields if field.get("secret")}
            shown["inputs"] = {name: "$encrypted$" if name in secret and value else value for name, value in item["inputs"].items()}
        if kind == "projects":
            # awx/main/models/projects.py: Project._get_current_status
            shown["status"] = self._updates[item["id"]]
            shown["scm_revision"] = "0" * 40 if shown["status"] == "successful" else ""
            shown["summary_fields"] = {"current_update": {"id": item["id"]}}
        return shown

    def _list(self, kind: str, query: Mapping[str, str]) -> list[Object]:
        """Return the objects that a query finds: ``name=x``, or any of ``or__id=1&or__name=x``."""
        # awx/main/models/unified_jobs.py: UnifiedJobTemplate, of which templates and projects are kinds
        kinds = ("job_templates", "workflow_job_templates", "projects") if kind == "unified_job_templates" else (kind,)
        found = []
        for name in kinds:
            for item in self.objects[name].values():
                matches = {field: str(item.get(field.removeprefix("or__"))) == value for field, value in query.items()}
                any_of = [match for field, match in matches.items() if field.startswith("or__")] or [True]
                if any(any_of) and all(match for field, match in matches.items() if not field.startswith("or__")):
                    found.append(self._shown(name, item))
        return found

    def _answer(self, method: str, target: str, body: Object) -> tuple[int, Any]:
        url = urlsplit(target)
        if method != "GET":
            self.written.append((method, url.path))
        try:
            return self._handle(method, url.path.removeprefix(_PREFIX).strip("/").split("/"), dict(parse_qsl(url.query)), body)
        except _rules.Refused as exc:
            return 400, {"__all__": [str(exc)]}
        except (KeyError, ValueError):
            return 404, {"detail": "Not found."}

    def _handle(self, method: str, path: list[str], query: Mapping[str, str], body: Object) -> tuple[int, Any]:
        kind, *rest = path
        match method, rest:
            case "GET", []:
                return 200, _page(self._list(kind, query))
            case "POST", []:
                return 201, self._shown(kind, self.add(kind, **body))
            case "GET", [number] if kind == "project_updates":
                status = self._updates[int(number)]
                return 200, {"id": int(number), "status": status, "failed": status == "failed", "finished": "now", "scm_revision": "0" * 40}
        item = self.objects[kind][int(rest[0])]
        match method, rest[1:]:
            case "GET", []:
                return 200, self._shown(kind, item)
            case "PATCH", []:
                self._write(kind, item, body)
                return 200, self._shown(kind, item)
            case "POST", ["update"]:
                # awx/api/views/__init__.py: ProjectUpdateView.post
                self._update(item)
                return 202, {"id": item["id"], "status": "pending", "url": f"{_PREFIX}/project_updates/{item['id']}/"}
            case "GET", ["survey_spec"]:
                return 200, item["survey_spec"]
            case "POST", ["survey_spec"]:
                _rules.check_survey(body)
                item["survey_spec"] = body
                return 200, None
            case "GET", [relation]:
                other = _RELATIONS[kind][relation]
                return 200, _page([self._shown(other, self.objects[other][number]) for number in item[relation]])
            case "POST", [relation]:
                item[relation].append(self.objects[_RELATIONS[kind][relation]][body["id"]]["id"])
                return 204, None
        return 405, {}


def _page(found: list[Object]) -> Object:
    return {"count": len(found), "next": None, "previous": None, "results": found}
