# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Certificates of all kinds, and forward proxies as the environment names them: one table for the core, and parts of it in both execution modes.

Folders of certificates and files that cannot be used are in tests/unit/plugins/module_utils/test_http.py.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from support.authority import Authority
from support.cases import ToDo, try_all
from support.keys import KeyPair
from support.playbook_runs import ACCOUNTS, API_KEY, EXECUTION_MODES, SID, Playbooks
from support.processes import in_child, options, register
from support.servers import Answering, Proxy, Servers, closed_port, saying_nothing, speaking_plain_http
from support.simulator.client import Simulator

PASSWORD = "Proxy-Password-4711"
CREDENTIALS = f"somebody:{PASSWORD}"
NETRC = "machine 127.0.0.1 login somebody password netrc-secret\ndefault login somebody password netrc-secret\n"


@dataclasses.dataclass(frozen=True)
class Case:
    """One way to the API. In URL, environment and options, ``@NAME@`` stands for a port or a file of :class:`Network`.

    :param options: of the module, on top of account, number and key
    :param says: regular expression for the message, None for a success
    :param outcome: of a failure
    :param via: the proxy that must have been used
    """

    name: str
    api_url: str
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    says: str | None = None
    outcome: str | None = "unknown"
    http_status: int | None = None
    via: str | None = None

    @property
    def number(self) -> str:
        return f"+91988{CASES.index(self):07}"


HTTPS, HTTP = "https://127.0.0.1:@HTTPS@", "http://127.0.0.1:@HTTP@"
CA = {"ca_path": "@AUTHORITY@"}
UNKNOWN_ISSUER = r"certificate verify failed: unable to get local issuer certificate\. .*set ca_path"
CHECK_CLOCK = r"Check pod or api_url, and the clock of this machine"
WRONG_NAME = r"certificate verify failed: Hostname mismatch, certificate is not valid for 'localhost'.* Check pod or api_url"
TLS = [
    Case("authority-by-ca-path", HTTPS, {}, CA),
    Case("authority-unknown", HTTPS, says=UNKNOWN_ISSUER),
    Case("authority-in-the-system-s-file", HTTPS, {"SSL_CERT_FILE": "@AUTHORITY@", "REQUESTS_CA_BUNDLE": "@NOTHING@"}),
    # Only what OpenSSL on this system trusts counts, as with curl; and with ca_path nothing else does.
    Case("authority-for-requests-alone", HTTPS, dict.fromkeys(("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"), "@AUTHORITY@"), says=UNKNOWN_ISSUER),
    Case("ca-path-wins", HTTPS, {"SSL_CERT_FILE": "@AUTHORITY@"}, {"ca_path": "@OTHER@"}, UNKNOWN_ISSUER),
    Case("expired", "https://127.0.0.1:@EXPIRED@", {}, CA, rf"certificate verify failed: certificate has expired\. {CHECK_CLOCK}"),
    Case("not-yet-valid", "https://127.0.0.1:@EARLY@", {}, CA, rf"certificate verify failed: certificate is not yet valid\. {CHECK_CLOCK}"),
    Case("wrong-name", "https://localhost:@ELSEWHERE@", {}, CA, WRONG_NAME),
    Case("self-signed", "https://127.0.0.1:@SELF@", says=r"certificate verify failed: self.signed certificate\. .*set ca_path"),
    Case("self-signed-not-validated", "https://127.0.0.1:@SELF@", {}, {"validate_certs": False}),
    Case("ca-path-missing", HTTPS, {}, {"ca_path": "@NOTHING@"}, r"ca_path .* cannot be used: .*Set it to a PEM file.*or leave it out", None),
    Case("plain-http-on-the-port", "https://127.0.0.1:@PLAIN@", says=r"(wrong version number|record layer failure|SSL).*Check pod or api_url"),
    Case("handshake-hangs", "https://127.0.0.1:@SILENT@", {}, {"timeout": 2}, r"(within 2 seconds|timed out).*Check pod or api_url"),
    Case("https-on-ipv6", "https://[::1]:@IPV6@", {}, CA),
    Case("no-such-name", "https://no-such-host.invalid", says=r"(not known|resolution).*Check pod or api_url, the network"),
]

OPEN = "http://127.0.0.1:@OPEN@"
BOTH = {"HTTPS_PROXY": OPEN, "HTTP_PROXY": "http://127.0.0.1:@SECOND@", "NO_PROXY": "example.com,localhost"}
WITH_PASSWORD = dict.fromkeys(("HTTPS_PROXY", "HTTP_PROXY"), f"http://{CREDENTIALS}@127.0.0.1:@ASKS@")
REFUSING = dict.fromkeys(("HTTPS_PROXY", "HTTP_PROXY"), "http://127.0.0.1:@FORBIDS@")
WRONG_PASSWORD = dict.fromkeys(("HTTPS_PROXY", "HTTP_PROXY"), "http://somebody:wrong-secret@127.0.0.1:@ASKS@")
SETTINGS = r"proxy settings in the environment"
# The proxies, each with its port's name.
PROXIES: Mapping[str, Mapping[str, Any]] = {
    "OPEN": {},
    "SECOND": {},
    "FORBIDS": {"refusal": "403 Forbidden"},
    "LOUD": {"refusal": f"403 \x1b[31m{'no ' * 5000}"},
    "ASKS": {"credentials": CREDENTIALS},
}
PROXIED = [
    Case("https-through", HTTPS, BOTH, CA, via="OPEN"),
    Case("http-through", HTTP, BOTH, via="SECOND"),
    Case("https-past", "https://localhost:@HTTPS@", BOTH, CA),
    Case("http-past", "http://localhost:@HTTP@", BOTH),
    Case("https-through-lower-case", HTTPS, {name.lower(): value for name, value in BOTH.items()}, CA, via="OPEN"),
    Case("past-all", HTTPS, {"HTTPS_PROXY": OPEN, "NO_PROXY": "*"}, CA),
    Case("lower-case-past-a-network", HTTPS, {"https_proxy": OPEN, "no_proxy": "10.0.0.0/8, 127.0.0.0/8"}, CA),
    Case("all-proxy", HTTPS, {"ALL_PROXY": OPEN}, CA, via="OPEN"),
    Case("https-with-password", HTTPS, WITH_PASSWORD, CA, via="ASKS"),
    Case("http-with-password", HTTP, WITH_PASSWORD, via="ASKS"),
    Case("https-refused", HTTPS, REFUSING, CA, rf"proxy: .*403 Forbidden.*{SETTINGS}", via="FORBIDS"),
    # The proxy's answer is all that is seen of the API: it has refused for it.
    Case("http-refused", HTTP, REFUSING, {}, r"HTTP 403\.", "rejected", 403, via="FORBIDS"),
    Case("https-refused-loudly", HTTPS, {"HTTPS_PROXY": "http://127.0.0.1:@LOUD@"}, CA, rf"proxy: .*403 .*{SETTINGS}", via="LOUD"),
    Case("https-wrong-password", HTTPS, WRONG_PASSWORD, CA, rf"proxy: .*407 Proxy Authentication Required.*{SETTINGS}", via="ASKS"),
    Case("http-wrong-password", HTTP, WRONG_PASSWORD, {}, r"HTTP 407\. .*user and password of the proxy", "rejected", 407, via="ASKS"),
    Case("proxy-down", HTTPS, {"HTTPS_PROXY": f"http://{CREDENTIALS}@127.0.0.1:@DOWN@"}, CA, rf"proxy: Connection refused\. .*{SETTINGS}"),
    # An API host that the proxy cannot reach is the proxy's 502.
    Case("far-side-down", "https://127.0.0.1:@DOWN@", BOTH, CA, r"proxy: .*502 Bad Gateway", via="OPEN"),
    # A password with a sign that was not percent-encoded: nothing is sent, so nothing can have come back, and nothing of it is shown.
    Case(
        "password-with-slash", HTTPS, {"HTTPS_PROXY": f"http://somebody:{PASSWORD}/x@127.0.0.1:@OPEN@"}, CA,
        rf"^(?!.*is not valid HTTP).*{SETTINGS}",
    ),
]
CASES = [*TLS, *PROXIED]
BY_NAME = {case.name: case for case in CASES}


class Network:
    """Servers, proxies and certificates.

    :ivar places: name -> port or path
    """

    def __init__(self, folder: Path, servers: Servers, stack: contextlib.ExitStack) -> None:
        authority = Authority(folder, "Authority")
        good = authority.issue("127.0.0.1", "::1", "localhost")
        certificates = {
            "EXPIRED": authority.issue("127.0.0.1", last=-1),
            "EARLY": authority.issue("127.0.0.1", first=1),
            "ELSEWHERE": authority.issue("api.example"),
            "SELF": authority.issue("127.0.0.1", self_signed=True),
        }
        # Those with a wrong certificate say yes to whoever asks, so it is the client that has asked nothing.
        self._answering = Answering()
        self._simulators = {
            "HTTPS": stack.enter_context(Simulator(ACCOUNTS, certfile=good)),
            "IPV6": stack.enter_context(Simulator(ACCOUNTS, certfile=good, host="::1")),
            "HTTP": stack.enter_context(Simulator(ACCOUNTS)),
        }
        self.proxies = {name: Proxy(**given) for name, given in PROXIES.items()}
        self.places = {
            "AUTHORITY": str(authority.path),
            "OTHER": str(Authority(folder, "Other").path),
            "NOTHING": str(folder / "none"),
            "DOWN": str(stack.enter_context(closed_port())),
            "SILENT": str(servers.start(saying_nothing)),
            "PLAIN": str(servers.start(speaking_plain_http)),
            **{name: str(servers.start(self._answering, certificate=path)) for name, path in certificates.items()},
            **{name: simulator.url.rpartition(":")[2] for name, simulator in self._simulators.items()},
            **{name: str(servers.start(proxy)) for name, proxy in self.proxies.items()},
        }

    def fill(self, value: Any) -> Any:
        return re.sub("@([A-Z0-9]+)@", lambda found: self.places[found[1]], value) if isinstance(value, str) else value

    def options(self, case: Case) -> dict[str, Any]:
        given = {"api_url": case.api_url, "timeout": 20, "retries": 0, **case.options}
        return {name: self.fill(value) for name, value in given.items()}

    def environment(self, case: Case) -> dict[str, str]:
        return {name: self.fill(value) for name, value in case.environment.items()}

    def reset(self) -> None:
        for simulator in self._simulators.values():
            simulator.reset()
        self._answering.requests.clear()
        for proxy in self.proxies.values():
            proxy.heads.clear()
            proxy.received.clear()

    def requests(self) -> list[str]:
        """What reached a server, headers and all."""
        asked = [request for simulator in self._simulators.values() for request in simulator.requests()]
        return [*self._answering.requests, *(f"{request['path']} {request['headers']}" for request in asked)]


@pytest.fixture(scope="module")
def _network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    with contextlib.ExitStack() as stack:
        yield Network(tmp_path_factory.mktemp("certificates"), stack.enter_context(Servers()), stack)


@pytest.fixture
def network(_network: Network) -> Network:
    """Nothing has been asked yet."""
    _network.reset()
    return _network


def assert_outcome(case: Case, facts: Mapping[str, Any], then: Mapping[str, Any], requests: list[str]) -> None:
    """Only a trusted server, by the way that the environment names, gets the key."""
    reached = [request for request in requests if case.number in request]
    assert not [request for request in requests if "authorization" in request.lower()]  # from the netrc
    assert (bool(facts.get("failed")), facts["changed"]) == (case.says is not None, case.says is None), facts
    if case.says is None:
        assert facts["http_status"] == 200 and then["reason"] == "up_to_date", facts
        assert len(reached) == 1 and API_KEY in reached[0]
        return
    assert reached == []
    message = facts["msg"]
    assert re.search(case.says, message) and message.isprintable() and len(message) < 1000, message[:1500]
    assert not re.search(rf"object at 0x|Pool\(|Errno|urllib3|Traceback|{SID}|{PASSWORD}|wrong-secret|{API_KEY}", message), message
    assert (facts.get("outcome"), facts.get("http_status")) == (case.outcome, case.http_status)
    assert then["reason"] == ("unconfirmed" if case.outcome == "unknown" else "absent")


@pytest.mark.parametrize("name", BY_NAME)
def test_connection_by_the_core(name: str, network: Network, key: KeyPair, tmp_path: Path) -> None:
    case = BY_NAME[name]
    params = options(public_key=key.public, cache_path=tmp_path / "records", phone_number=case.number, **network.options(case))
    (tmp_path / "netrc").write_text(NETRC)

    def work() -> tuple[dict[str, Any], dict[str, Any]]:
        os.environ.update(network.environment(case), NETRC=str(tmp_path / "netrc"))
        return register(params), register(params, check_mode=True)

    facts, then = in_child(work)
    assert_outcome(case, facts, then, network.requests())
    for proxy, used in network.proxies.items():
        heads, received = used.heads, used.received.decode("latin-1")
        if proxy != case.via:
            assert heads == []
        elif case.api_url.startswith("https"):
            # It learns the host alone.
            (head,) = heads
            assert head.startswith(f"CONNECT {params['api_url'].removeprefix('https://')} HTTP/1.")
            assert not [text for text in (SID, API_KEY, case.number) if text in received] and "api-key" not in head.lower()
        else:  # plain http is for the loopback alone
            (head,) = heads
            assert case.number in head and received.count(API_KEY) == 1


# With two environments of ansible-playbook, as each costs a run.
IN_BOTH_MODES = [
    *("authority-by-ca-path", "authority-unknown", "expired", "self-signed-not-validated", "https-on-ipv6"),
    *("https-wrong-password", "http-wrong-password"),
]


@pytest.mark.parametrize("mode", EXECUTION_MODES)
def test_connections_in_each_mode(mode: str, network: Network, key: KeyPair, tmp_path_factory: pytest.TempPathFactory) -> None:
    cases = [BY_NAME[name] for name in IN_BOTH_MODES]
    playbooks = Playbooks(tmp_path_factory.mktemp("f"), "")
    netrc = playbooks.home / ".netrc"
    netrc.write_text(NETRC)
    netrc.chmod(0o600)
    to_do = [ToDo(case.name, case.number, network.options(case), network.environment(case)) for case in cases]
    tries, everything = try_all(playbooks, to_do, key, mode, forks=6)
    requests = network.requests()
    for case in cases:
        assert_outcome(case, tries[case.name].facts, tries[case.name].then, requests)
    # No terminal, log file of Ansible, record or temporary file tells them.
    for secret in (PASSWORD, "wrong-secret", API_KEY):
        assert [line[:600] for line in everything.split("\n") if secret in line and "netrc" not in line] == []
