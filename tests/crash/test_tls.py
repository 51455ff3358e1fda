# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who the server proves to be, for real: certificates of all kinds, trust from a file or from the system, through both doors."""

from __future__ import annotations

import dataclasses
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from support.authority import Authority
from support.cases import ToDo, Try, load, once, try_all
from support.keys import KeyPair, openssl
from support.playbook_runs import ACCOUNTS, API_KEY, AS_A_MODULE, EXECUTION_MODES, SID, WORKER, Playbooks
from support.servers import Answering, Servers, hanging_up, saying_nothing, speaking_plain_http
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

    @property
    def succeeds(self) -> bool:
        return self.says is None


GOOD = "https://127.0.0.1:@GOOD@"
UNKNOWN_ISSUER = r"certificate verify failed: unable to get local issuer certificate\. .*set ca_path"
CHECK_CLOCK = r"Check pod or api_url, and the clock of this machine"
CA_PATH = r"ca_path .* cannot be used: .*Set it to a PEM file.*or leave it out"

CASES = [
    Case("authority-by-ca-path", GOOD, "authority"),
    Case("authority-by-folder", GOOD, "hashed-folder"),
    Case("authority-unknown", GOOD, None, UNKNOWN_ISSUER),
    Case("another-authority", GOOD, "other-authority", UNKNOWN_ISSUER),
    Case("authority-in-the-system-s-file", GOOD, trust={"SSL_CERT_FILE": "authority", "REQUESTS_CA_BUNDLE": "no-such-file"}),
    Case("authority-in-the-system-s-folder", GOOD, trust={"SSL_CERT_DIR": "hashed-folder", "SSL_CERT_FILE": "no-such-file"}),
    # Only what OpenSSL on this system trusts counts, as with curl.
    Case(
        "authority-for-requests-alone", GOOD, None, UNKNOWN_ISSUER, trust={"REQUESTS_CA_BUNDLE": "authority", "CURL_CA_BUNDLE": "authority"}
    ),
    # ca_path names the only ones that count.
    Case("ca-path-wins-over-the-system", GOOD, "other-authority", UNKNOWN_ISSUER, trust={"SSL_CERT_FILE": "authority"}),
    Case("expired", "https://127.0.0.1:@EXPIRED@", "authority", rf"certificate verify failed: certificate has expired\. {CHECK_CLOCK}"),
    Case("not-yet-valid", "https://127.0.0.1:@EARLY@", "authority", rf"certificate verify failed: certificate is not yet valid\. {CHECK_CLOCK}"),
    Case(
        "wrong-address",
        "https://127.0.0.1:@ELSEWHERE@",
        "authority",
        r"certificate verify failed: IP address mismatch, certificate is not valid for '127\.0\.0\.1'.* Check pod or api_url",
    ),
    Case(
        "wrong-name",
        "https://localhost:@ELSEWHERE@",
        "authority",
        r"certificate verify failed: Hostname mismatch, certificate is not valid for 'localhost'.* Check pod or api_url",
    ),
    Case("right-name", "https://localhost:@NAMED@", "authority"),
    Case("self-signed", "https://127.0.0.1:@SELF@", None, r"certificate verify failed: self.signed certificate\. .*set ca_path"),
    Case("self-signed-by-ca-path", "https://127.0.0.1:@SELF@", "self-signed"),
    *(
        Case(f"{name}-not-validated", f"https://127.0.0.1:@{server}@", validate=False)
        for name, server in (("unknown", "GOOD"), ("expired", "EXPIRED"), ("wrong-host", "ELSEWHERE"), ("self-signed", "SELF"))
    ),
    Case("ca-path-missing", GOOD, "no-such-file", rf"{CA_PATH}.*", outcome=None),
    Case("ca-path-not-pem", GOOD, "text", rf"{CA_PATH}.*", outcome=None),
    Case("ca-path-empty", GOOD, "empty", rf"{CA_PATH}.*", outcome=None),
    Case("plain-http-on-the-port", "https://127.0.0.1:@PLAIN@", None, r"(wrong version number|record layer failure|SSL).*Check pod or api_url"),
    Case("handshake-hangs", "https://127.0.0.1:@SILENT@", None, r"(within 2 seconds|timed out).*Check pod or api_url", timeout=2),
    Case("handshake-cut-off", "https://127.0.0.1:@RUDE@", None, r"(EOF|reset by peer|closed).*Check pod or api_url"),
    Case("https-on-ipv6", "https://[::1]:@GOOD6@", "authority"),
    Case("wrong-host-on-ipv6", "https://[::1]:@ELSEWHERE6@", "authority", r"IP address mismatch, certificate is not valid for '::1'"),
    Case("http-on-ipv6", "http://[::1]:@HTTP6@"),
    Case("no-such-name", "https://no-such-host.invalid", None, r"(not known|resolution).*Check pod or api_url, the network"),
]
BY_NAME = {case.name: case for case in CASES}

ODD_SERVERS = ("EXPIRED", "EARLY", "ELSEWHERE", "ELSEWHERE6", "SELF", "NAMED")


def number_of(case: Case) -> str:
    return f"+91988{CASES.index(case):07}"


@dataclasses.dataclass(frozen=True)
class Results:
    """What came of it.

    :param tries: door -> case -> what came of it
    :param requests: door -> requests that the servers got, the simulators' by their headers
    """

    tries: dict[str, dict[str, Try]]
    requests: dict[str, list[str]]
    everything: dict[str, str]


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory, key: KeyPair) -> Results:
    """Every case through both doors, with as many runs of Ansible as there are different environments."""

    def run(folder: Path) -> dict[str, Any]:
        files = tmp_path_factory.mktemp("certificates")
        authority, other = Authority(files, "Authority"), Authority(files, "Other")
        good = authority.issue("127.0.0.1", "::1")
        elsewhere = authority.issue("api.example", "192.0.2.7")
        self_signed = authority.issue("127.0.0.1", self_signed=True)
        folder_of_hashes = files / "hashed"
        folder_of_hashes.mkdir()
        (folder_of_hashes / "authority.pem").write_bytes(authority.path.read_bytes())
        openssl("rehash", folder_of_hashes)
        (files / "text").write_text("not a certificate\n")
        (files / "empty").touch()
        paths = {
            "authority": authority.path, "other-authority": other.path, "hashed-folder": folder_of_hashes,
            "no-such-file": files / "none", "text": files / "text", "empty": files / "empty",
        }
        # Of a certificate and its key, the certificate.
        paths["self-signed"] = files / "self-alone.pem"
        paths["self-signed"].write_text(openssl("x509", "-in", self_signed))

        servers, odd = Servers(), {name: Answering() for name in ODD_SERVERS}
        with (
            Simulator(ACCOUNTS, certfile=good) as simulator,
            Simulator(ACCOUNTS, certfile=good, host="::1") as simulator6,
            Simulator(ACCOUNTS, host="::1") as http6,
        ):
            certificates = {
                "EXPIRED": authority.issue("127.0.0.1", last=-1),
                "EARLY": authority.issue("127.0.0.1", first=1),
                "ELSEWHERE": elsewhere, "ELSEWHERE6": elsewhere, "SELF": self_signed,
                "NAMED": authority.issue("localhost"),
            }
            ports = {
                name: servers.start(server, host="::1" if name.endswith("6") else "127.0.0.1", certificate=certificates.get(name))
                for name, server in odd.items()
            }
            ports |= {"SILENT": servers.start(saying_nothing), "RUDE": servers.start(hanging_up)}
            ports["PLAIN"] = servers.start(speaking_plain_http)
            simulators = {"GOOD": simulator, "GOOD6": simulator6, "HTTP6": http6}
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
            for door, forks in ((WORKER, 20), (AS_A_MODULE, 6)):
                for one in simulators.values():
                    one.reset()
                for server in odd.values():
                    server.requests.clear()
                (folder / door).mkdir()
                playbooks = Playbooks(folder / door, simulator.url)
                netrc = playbooks.home / ".netrc"
                netrc.write_text("machine 127.0.0.1 login somebody password netrc-secret\ndefault login somebody password netrc-secret\n")
                netrc.chmod(0o600)
                made["tries"][door], made["everything"][door] = try_all(playbooks, to_do, key, door, forks=forks)
                seen = [request for server in odd.values() for request in server.requests]
                seen += [f"{request['path']} {request['headers']}" for one in simulators.values() for request in one.requests()]
                made["requests"][door] = seen
        return made

    made = once(tmp_path_factory, "tls", run)
    return Results(**{**made, "tries": {door: load(made["tries"][door]) for door in EXECUTION_MODES}})


@pytest.mark.parametrize("name", BY_NAME)
@pytest.mark.parametrize("door", EXECUTION_MODES)
def test_only_a_server_that_is_trusted_gets_the_key_and_the_message_says_why(door: str, name: str, results: Results) -> None:
    case, one = BY_NAME[name], results.tries[door][name]
    facts = one.facts
    reached = [request for request in results.requests[door] if number_of(case) in request]
    if case.succeeds:
        assert not facts["failed"] and facts["changed"] and facts["http_status"] == 200, facts
        assert one.then["reason"] == "up_to_date"
        assert len(reached) == 1 and API_KEY in reached[0]
        return
    assert facts["failed"] and not facts["changed"] and "http_status" not in facts, facts
    assert re.search(case.says or "", facts["msg"]), facts["msg"]
    assert facts.get("outcome") == case.outcome
    assert one.then["reason"] == ("unconfirmed" if case.outcome else "absent")
    # Servers with a wrong certificate say yes to whoever asks, so it is the client that has asked nothing.
    assert reached == []


@pytest.mark.parametrize("name", BY_NAME)
def test_both_doors_give_the_same_facts(name: str, results: Results) -> None:
    worker, module = (results.tries[door][name] for door in EXECUTION_MODES)
    if name != "handshake-hangs":  # whose message depends on which of two clocks comes first
        assert worker.facts == module.facts
    assert worker.then == module.then


@pytest.mark.parametrize("door", EXECUTION_MODES)
def test_credentials_of_a_netrc_are_sent_nowhere(door: str, results: Results) -> None:
    assert results.requests[door]
    assert not [request for request in results.requests[door] if "authorization" in request.lower()]


@pytest.mark.parametrize("door", EXECUTION_MODES)
def test_messages_are_for_people_and_without_secrets(door: str, results: Results) -> None:
    for one in results.tries[door].values():
        message = one.facts.get("msg", "")
        assert not re.search(r"object at 0x|Pool\(|Errno|urllib3|Traceback", message), message
        assert SID not in message
    assert API_KEY not in results.everything[door]


def test_a_name_that_does_not_resolve_is_named_as_the_system_does(results: Results) -> None:
    with pytest.raises(socket.gaierror) as caught:
        socket.getaddrinfo("no-such-host.invalid", 443)
    for door in EXECUTION_MODES:
        assert f"no-such-host.invalid gave no answer: {caught.value.strerror}." in results.tries[door]["no-such-name"].facts["msg"]
