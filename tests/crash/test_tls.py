# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Certificates of all kinds, trusted by a file or by the system, in both execution modes.

Folders of certificates and files that cannot be used are in tests/unit/plugins/module_utils/test_http.py.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from support.authority import Authority
from support.cases import ToDo, Try, load, once, try_all
from support.keys import KeyPair
from support.playbook_runs import ACCOUNTS, API_KEY, AS_A_MODULE, EXECUTION_MODES, SID, WORKER, Playbooks
from support.servers import Answering, Servers, saying_nothing, speaking_plain_http
from support.simulator.client import Simulator


@dataclasses.dataclass(frozen=True)
class Case:
    """One way to meet a server.

    :param api_url: ``@NAME@`` stands for the port of that server
    :param ca: file of :func:`results`, for ``ca_path``
    :param trust: environment, its values files of :func:`results`
    :param says: regular expression for the message, None for a success
    :param sent: whether the API key may have been sent
    """

    name: str
    api_url: str
    ca: str | None = None
    says: str | None = None
    validate: bool = True
    trust: Mapping[str, str] = dataclasses.field(default_factory=dict)
    outcome: str | None = "unknown"
    timeout: int = 20


GOOD = "https://127.0.0.1:@GOOD@"
UNKNOWN_ISSUER = r"certificate verify failed: unable to get local issuer certificate\. .*set ca_path"
CHECK_CLOCK = r"Check pod or api_url, and the clock of this machine"

CASES = [
    Case("authority-by-ca-path", GOOD, "authority"),
    Case("authority-unknown", GOOD, None, UNKNOWN_ISSUER),
    Case("authority-in-the-system-s-file", GOOD, trust={"SSL_CERT_FILE": "authority", "REQUESTS_CA_BUNDLE": "no-such-file"}),
    # Only what OpenSSL on this system trusts counts, as with curl; and with ca_path nothing else does.
    Case("authority-for-requests-alone", GOOD, None, UNKNOWN_ISSUER, trust={"REQUESTS_CA_BUNDLE": "authority", "CURL_CA_BUNDLE": "authority"}),
    Case("ca-path-wins", GOOD, "other-authority", UNKNOWN_ISSUER, trust={"SSL_CERT_FILE": "authority"}),
    Case("expired", "https://127.0.0.1:@EXPIRED@", "authority", rf"certificate verify failed: certificate has expired\. {CHECK_CLOCK}"),
    Case("not-yet-valid", "https://127.0.0.1:@EARLY@", "authority", rf"certificate verify failed: certificate is not yet valid\. {CHECK_CLOCK}"),
    Case(
        "wrong-name",
        "https://localhost:@ELSEWHERE@",
        "authority",
        r"certificate verify failed: Hostname mismatch, certificate is not valid for 'localhost'.* Check pod or api_url",
    ),
    Case("self-signed", "https://127.0.0.1:@SELF@", None, r"certificate verify failed: self.signed certificate\. .*set ca_path"),
    Case("self-signed-not-validated", "https://127.0.0.1:@SELF@", validate=False),
    Case("ca-path-missing", GOOD, "no-such-file", r"ca_path .* cannot be used: .*Set it to a PEM file.*or leave it out", outcome=None),
    Case("plain-http-on-the-port", "https://127.0.0.1:@PLAIN@", None, r"(wrong version number|record layer failure|SSL).*Check pod or api_url"),
    Case("handshake-hangs", "https://127.0.0.1:@SILENT@", None, r"(within 2 seconds|timed out).*Check pod or api_url", timeout=2),
    Case("https-on-ipv6", "https://[::1]:@GOOD6@", "authority"),
    Case("no-such-name", "https://no-such-host.invalid", None, r"(not known|resolution).*Check pod or api_url, the network"),
]
BY_NAME = {case.name: case for case in CASES}


def number_of(case: Case) -> str:
    return f"+91988{CASES.index(case):07}"


@dataclasses.dataclass(frozen=True)
class Results:
    """What came of it.

    :param tries: mode -> case -> what came of it
    :param requests: mode -> requests that the servers got, the simulators' by their headers
    """

    tries: dict[str, dict[str, Try]]
    requests: dict[str, list[str]]
    everything: dict[str, str]


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory, key: KeyPair) -> Results:
    """Every case in both execution modes, with as many runs of Ansible as there are different environments."""

    def run(folder: Path) -> dict[str, Any]:
        files = tmp_path_factory.mktemp("certificates")
        authority, other = Authority(files, "Authority"), Authority(files, "Other")
        good = authority.issue("127.0.0.1", "::1")
        paths = {"authority": authority.path, "other-authority": other.path, "no-such-file": files / "none"}
        certificates = {
            "EXPIRED": authority.issue("127.0.0.1", last=-1),
            "EARLY": authority.issue("127.0.0.1", first=1),
            "ELSEWHERE": authority.issue("api.example"),
            "SELF": authority.issue("127.0.0.1", self_signed=True),
        }
        servers, untrusted = Servers(), {name: Answering() for name in certificates}
        with Simulator(ACCOUNTS, certfile=good) as simulator, Simulator(ACCOUNTS, certfile=good, host="::1") as simulator6:
            simulators = {"GOOD": simulator, "GOOD6": simulator6}
            ports = {name: servers.start(server, certificate=certificates[name]) for name, server in untrusted.items()}
            ports |= {"SILENT": servers.start(saying_nothing), "PLAIN": servers.start(speaking_plain_http)}
            ports |= {name: int(one.url.rpartition(":")[2]) for name, one in simulators.items()}
            to_do = [
                ToDo(
                    case.name,
                    number_of(case),
                    {
                        "api_url": re.sub("@(.+)@", lambda found: str(ports[found[1]]), case.api_url),
                        **({"ca_path": str(paths[case.ca])} if case.ca else {}),
                        "validate_certs": case.validate, "timeout": case.timeout, "retries": 0,
                    },
                    {name: str(paths[value]) for name, value in case.trust.items()},
                )
                for case in CASES
            ]
            made: dict[str, Any] = {"tries": {}, "requests": {}, "everything": {}}
            for mode, forks in ((WORKER, 20), (AS_A_MODULE, 6)):
                for one in simulators.values():
                    one.reset()
                for server in untrusted.values():
                    server.requests.clear()
                (folder / mode).mkdir()
                playbooks = Playbooks(folder / mode, simulator.url)
                netrc = playbooks.home / ".netrc"
                netrc.write_text("machine 127.0.0.1 login somebody password netrc-secret\ndefault login somebody password netrc-secret\n")
                netrc.chmod(0o600)
                made["tries"][mode], made["everything"][mode] = try_all(playbooks, to_do, key, mode, forks=forks)
                seen = [request for server in untrusted.values() for request in server.requests]
                seen += [f"{request['path']} {request['headers']}" for one in simulators.values() for request in one.requests()]
                made["requests"][mode] = seen
        return made

    made = once(tmp_path_factory, "tls", run)
    return Results(**{**made, "tries": {mode: load(made["tries"][mode]) for mode in EXECUTION_MODES}})


@pytest.mark.parametrize("name", BY_NAME)
@pytest.mark.parametrize("mode", EXECUTION_MODES)
def test_only_a_trusted_server_gets_the_key(mode: str, name: str, results: Results) -> None:
    case, one = BY_NAME[name], results.tries[mode][name]
    facts = one.facts
    reached = [request for request in results.requests[mode] if number_of(case) in request]
    if case.says is None:
        assert not facts["failed"] and facts["changed"] and facts["http_status"] == 200, facts
        assert one.then["reason"] == "up_to_date"
        assert len(reached) == 1 and API_KEY in reached[0]
        return
    assert facts["failed"] and not facts["changed"] and "http_status" not in facts, facts
    assert re.search(case.says, facts["msg"]), facts["msg"]
    assert not re.search(rf"object at 0x|Pool\(|Errno|urllib3|Traceback|{SID}", facts["msg"]), facts["msg"]
    assert facts.get("outcome") == case.outcome
    assert one.then["reason"] == ("unconfirmed" if case.outcome else "absent")
    # Servers with a wrong certificate say yes to whoever asks, so it is the client that has asked nothing.
    assert reached == []


@pytest.mark.parametrize("name", BY_NAME)
def test_both_modes_give_the_same_facts(name: str, results: Results) -> None:
    worker, module = (results.tries[mode][name] for mode in EXECUTION_MODES)
    if name != "handshake-hangs":  # whose message depends on which of two clocks comes first
        assert worker.facts == module.facts
    assert worker.then == module.then


@pytest.mark.parametrize("mode", EXECUTION_MODES)
def test_no_secret_goes_anywhere_else(mode: str, results: Results) -> None:
    """The credentials of a netrc to no server, the API key into no output or file."""
    assert results.requests[mode]
    assert not [request for request in results.requests[mode] if "authorization" in request.lower()]
    assert API_KEY not in results.everything[mode]
