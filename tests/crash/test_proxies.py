# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real forward proxies, as the environment names them, in both execution modes."""

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
from support.servers import Proxy, Servers, closed_port
from support.simulator.client import Simulator

PASSWORD = "Proxy-Password-4711"
CREDENTIALS = f"somebody:{PASSWORD}"

# The proxies of all tests; in an environment, @NAME@ stands for the port of one.
PROXIES: Mapping[str, Mapping[str, Any]] = {
    "OPEN": {},
    "OTHER": {},
    "FORBIDS": {"refusal": "403 Forbidden"},
    "LOUD": {"refusal": f"403 \x1b[31m{'no ' * 5000}"},
    "ASKS": {"credentials": CREDENTIALS},
}


@dataclasses.dataclass(frozen=True)
class Case:
    """One way to the API.

    :param scheme: which of two simulators is asked; only https has a tunnel, http is for the loopback alone
    :param via: the proxy that must have been used, None for none
    :param says: regular expression for the message, None for a success
    """

    name: str
    environment: Mapping[str, str]
    scheme: str = "https"
    host: str = "127.0.0.1"
    via: str | None = None
    says: str | None = None
    outcome: str | None = "unknown"
    http_status: int | None = None


OPEN, OTHER = "http://127.0.0.1:@OPEN@", "http://127.0.0.1:@OTHER@"
BOTH = {"HTTPS_PROXY": OPEN, "HTTP_PROXY": OTHER, "NO_PROXY": "example.com,localhost"}
WITH_PASSWORD = dict.fromkeys(("HTTPS_PROXY", "HTTP_PROXY"), f"http://{CREDENTIALS}@127.0.0.1:@ASKS@")
REFUSING = {"HTTPS_PROXY": "http://127.0.0.1:@FORBIDS@", "HTTP_PROXY": "http://127.0.0.1:@FORBIDS@"}
ASKING = dict.fromkeys(("HTTPS_PROXY", "HTTP_PROXY"), "http://somebody:wrong-secret@127.0.0.1:@ASKS@")
PROXY_SETTINGS = r"proxy settings in the environment"
# Nothing was sent, so nothing can have come back.
UNREADABLE = rf"^(?!.*is not valid HTTP).*{PROXY_SETTINGS}"

CASES = [
    Case("https-through", BOTH, via="OPEN"),
    Case("http-through", BOTH, "http", via="OTHER"),
    Case("https-past", BOTH, host="localhost"),
    Case("http-past", BOTH, "http", "localhost"),
    Case("https-through-lower-case", {name.lower(): value for name, value in BOTH.items()}, via="OPEN"),
    Case("past-all", {"HTTPS_PROXY": OPEN, "NO_PROXY": "*"}),
    Case("lower-case-past-a-network", {"https_proxy": OPEN, "no_proxy": "10.0.0.0/8, 127.0.0.0/8"}),
    Case("all-proxy", {"ALL_PROXY": OPEN}, via="OPEN"),
    Case("https-with-password", WITH_PASSWORD, via="ASKS"),
    Case("http-with-password", WITH_PASSWORD, "http", via="ASKS"),
    Case("https-refused", REFUSING, via="FORBIDS", says=rf"proxy: .*403 Forbidden.*{PROXY_SETTINGS}"),
    # The proxy's answer is all that is seen of the API: it has refused for it.
    Case("http-refused", REFUSING, "http", via="FORBIDS", says=r"HTTP 403\.", outcome="rejected", http_status=403),
    Case("https-refused-loudly", {"HTTPS_PROXY": "http://127.0.0.1:@LOUD@"}, via="LOUD", says=rf"proxy: .*403 .*{PROXY_SETTINGS}"),
    Case("https-wrong-password", ASKING, via="ASKS", says=rf"proxy: .*407 Proxy Authentication Required.*{PROXY_SETTINGS}"),
    Case("http-wrong-password", ASKING, "http", via="ASKS", says=r"HTTP 407\. .*user and password of the proxy", outcome="rejected", http_status=407),
    Case("proxy-down", {"HTTPS_PROXY": f"http://{CREDENTIALS}@127.0.0.1:@DOWN@"}, says=rf"proxy: Connection refused\. .*{PROXY_SETTINGS}"),
    # An API host that the proxy cannot reach is the proxy's 502.
    Case("far-side-down", BOTH, "down", via="OPEN", says=r"proxy: .*502 Bad Gateway"),
    # A password with a sign that was not percent-encoded: nothing is sent, and nothing of it shown.
    Case("password-with-slash", {"HTTPS_PROXY": f"http://somebody:{PASSWORD}/x@127.0.0.1:@OPEN@"}, says=UNREADABLE),
]
BY_NAME = {case.name: case for case in CASES}


def number_of(case: Case) -> str:
    return f"+91989{CASES.index(case):07}"


@dataclasses.dataclass(frozen=True)
class Results:
    """What came of it.

    :param used: mode -> proxy -> heads of the requests that it got
    :param received: mode -> proxy -> all bytes that it was sent, as latin-1
    :param paths: mode -> paths that the API was asked
    """

    tries: dict[str, dict[str, Try]]
    used: dict[str, dict[str, list[str]]]
    received: dict[str, dict[str, str]]
    paths: dict[str, list[str]]
    everything: dict[str, str]
    ports: dict[str, int]


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory, key: KeyPair) -> Results:
    """Every case in both execution modes, with as many runs of Ansible as there are different environments."""

    def run(folder: Path) -> dict[str, Any]:
        authority = Authority(tmp_path_factory.mktemp("certificates"), "Authority")
        certificate = authority.issue("127.0.0.1", "localhost")
        servers = Servers()
        with (
            Simulator(ACCOUNTS, certfile=certificate) as https,
            Simulator(ACCOUNTS) as http,
            closed_port() as down,
        ):
            ports = {"https": int(https.url.rpartition(":")[2]), "http": int(http.url.rpartition(":")[2]), "down": down}
            made: dict[str, Any] = {name: {} for name in ("tries", "used", "received", "paths", "everything")}
            made["ports"] = ports
            for mode, forks in ((WORKER, 20), (AS_A_MODULE, 6)):
                https.reset()
                http.reset()
                proxies = {name: Proxy(**options) for name, options in PROXIES.items()}
                listening = {name: servers.start(proxy) for name, proxy in proxies.items()} | {"DOWN": down}
                to_do = [
                    ToDo(
                        case.name,
                        number_of(case),
                        {
                            "api_url": f"{'http' if case.scheme == 'http' else 'https'}://{case.host}:{ports[case.scheme]}",
                            "ca_path": str(authority.path), "retries": 0, "timeout": 20,
                        },
                        {
                            name: re.sub("@([A-Z]+)@", lambda found: str(listening[found[1]]), value)
                            for name, value in case.environment.items()
                        },
                    )
                    for case in CASES
                ]
                (folder / mode).mkdir()
                playbooks = Playbooks(folder / mode, https.url)
                made["tries"][mode], made["everything"][mode] = try_all(playbooks, to_do, key, mode, forks=forks)
                made["used"][mode] = {name: list(proxy.heads) for name, proxy in proxies.items()}
                made["received"][mode] = {name: proxy.received.decode("latin-1") for name, proxy in proxies.items()}
                made["paths"][mode] = [request["path"] for one in (https, http) for request in one.requests()]
        return made

    made = once(tmp_path_factory, "proxies", run)
    return Results(**{**made, "tries": {mode: load(made["tries"][mode]) for mode in EXECUTION_MODES}})


@pytest.mark.parametrize("name", BY_NAME)
@pytest.mark.parametrize("mode", EXECUTION_MODES)
def test_environment_names_the_way_to_the_api(mode: str, name: str, results: Results) -> None:
    case, one = BY_NAME[name], results.tries[mode][name]
    facts = one.facts
    asked = sum(number_of(case) in path for path in results.paths[mode])
    if case.says is None:
        assert not facts["failed"] and facts["changed"] and facts["http_status"] == 200, facts
        assert one.then["reason"] == "up_to_date"
        assert asked == 1
    else:
        assert facts["failed"] and not facts["changed"], facts
        assert re.search(case.says, facts["msg"]), facts["msg"]
        assert facts["msg"].isprintable() and len(facts["msg"]) < 1000, facts["msg"][:1500]
        assert (facts.get("outcome"), facts.get("http_status")) == (case.outcome, case.http_status)
        assert one.then["reason"] == ("unconfirmed" if case.outcome == "unknown" else "absent")
        assert asked == 0
    if case.scheme == "http":  # without a tunnel, the proxy has seen the number
        seen_by = [proxy for proxy, heads in results.used[mode].items() if any(number_of(case) in head for head in heads)]
        assert seen_by == [case.via] * bool(case.via)


@pytest.mark.parametrize("mode", EXECUTION_MODES)
def test_proxy_learns_the_host_alone_of_an_https_call(mode: str, results: Results) -> None:
    """By one tunnel for each case that needs one."""
    for proxy, heads in results.used[mode].items():
        tunnels = [head for head in heads if head.startswith("CONNECT ")]
        wanted = [f"CONNECT {case.host}:{results.ports[case.scheme]} HTTP/1." for case in CASES if case.via == proxy and case.scheme != "http"]
        assert sorted(head.split("\r\n", 1)[0][:-1] for head in tunnels) == sorted(wanted)
        assert not [head for head in tunnels if SID in head or "api-key" in head.lower()]
        received = results.received[mode][proxy]
        assert not [case for case in CASES if case.scheme != "http" and number_of(case) in received]
        # Plain http is for the loopback alone; all that stands in clear comes from there.
        plain = [head for head in heads if not head.startswith("CONNECT ")]
        assert received.count(API_KEY) == sum(API_KEY in head for head in plain) == len(plain)


@pytest.mark.parametrize("name", BY_NAME)
def test_both_modes_give_the_same_facts(name: str, results: Results) -> None:
    worker, module = (results.tries[mode][name] for mode in EXECUTION_MODES)
    assert worker.facts == module.facts
    assert worker.then == module.then


@pytest.mark.parametrize("mode", EXECUTION_MODES)
def test_no_password_and_no_api_key_is_told(mode: str, results: Results) -> None:
    """In no result, terminal, log file of Ansible, record or temporary file."""
    told = [*results.everything[mode].split("\n"), *(str(one.facts) for one in results.tries[mode].values())]
    for secret in (PASSWORD, "wrong-secret", API_KEY):
        assert [line[:600] for line in told if secret in line] == []
