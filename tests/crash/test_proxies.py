# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real forward proxies, as the environment names them, through both doors."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
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
LOWER = {name.lower(): value for name, value in BOTH.items()}
WITH_PASSWORD = dict.fromkeys(("HTTPS_PROXY", "HTTP_PROXY"), f"http://{CREDENTIALS}@127.0.0.1:@ASKS@")
REFUSING = {"HTTPS_PROXY": "http://127.0.0.1:@FORBIDS@", "HTTP_PROXY": "http://127.0.0.1:@FORBIDS@"}
ASKING = dict.fromkeys(("HTTPS_PROXY", "HTTP_PROXY"), "http://somebody:wrong-secret@127.0.0.1:@ASKS@")
DOWN = dict.fromkeys(("HTTPS_PROXY", "HTTP_PROXY"), f"http://{CREDENTIALS}@127.0.0.1:@DOWN@")
PROXY_SETTINGS = r"proxy settings in the environment"
# Nothing was sent, so nothing can have come back.
UNREADABLE = rf"^(?!.*is not valid HTTP).*{PROXY_SETTINGS}"


def broken(url: str) -> dict[str, str]:
    return {"HTTPS_PROXY": url}


CASES = [
    *(
        # Names in lower case are for all programs, those in upper case are as common.
        Case(f"{scheme}-through-{case}", environment, scheme, via=via)
        for case, environment in (("upper-case", BOTH), ("lower-case", LOWER))
        for scheme, via in (("https", "OPEN"), ("http", "OTHER"))
    ),
    *(
        Case(f"{scheme}-past-{case}", environment, scheme, "localhost")
        for case, environment in (("upper-case", BOTH), ("lower-case", LOWER))
        for scheme in ("https", "http")
    ),
    *(
        Case(f"{scheme}-through-{variable}", {variable: OPEN}, scheme, via="OPEN")
        for variable in ("ALL_PROXY", "all_proxy")
        for scheme in ("https", "http")
    ),
    Case("past-all", {"HTTPS_PROXY": OPEN, "NO_PROXY": "*"}),
    Case("past-a-network", {"https_proxy": OPEN, "no_proxy": "10.0.0.0/8, 127.0.0.0/8"}),
    Case("https-with-password", WITH_PASSWORD, via="ASKS"),
    Case("http-with-password", WITH_PASSWORD, "http", via="ASKS"),
    Case("https-refused", REFUSING, via="FORBIDS", says=rf"proxy: .*403 Forbidden.*{PROXY_SETTINGS}"),
    Case("https-refused-loudly", {"HTTPS_PROXY": "http://127.0.0.1:@LOUD@"}, via="LOUD", says=rf"proxy: .*403 .*{PROXY_SETTINGS}"),
    # The proxy's answer is all that is seen of the API: it has refused for it.
    Case("http-refused", REFUSING, "http", via="FORBIDS", says=r"HTTP 403\.", outcome="rejected", http_status=403),
    Case("https-wrong-password", ASKING, via="ASKS", says=rf"proxy: .*407 Proxy Authentication Required.*{PROXY_SETTINGS}"),
    Case("http-wrong-password", ASKING, "http", via="ASKS", says=r"HTTP 407\. .*user and password of the proxy", outcome="rejected", http_status=407),
    Case("https-proxy-down", DOWN, says=rf"proxy: Connection refused\. .*{PROXY_SETTINGS}"),
    Case("http-proxy-down", DOWN, "http", says=rf"proxy: Connection refused\. .*{PROXY_SETTINGS}"),
    # An API host that the proxy cannot reach is the proxy's 502.
    Case("far-side-down", BOTH, "down", via="OPEN", says=r"proxy: .*502 Bad Gateway"),
    # Passwords with signs that were not percent-encoded, and a host that was left out: nothing is sent, and nothing of them shown.
    Case("password-with-slash", broken(f"http://somebody:{PASSWORD}/x@127.0.0.1:@OPEN@"), says=UNREADABLE),
    Case("password-with-hash", broken(f"http://somebody:{PASSWORD}#x@127.0.0.1:@OPEN@"), says=UNREADABLE),
    Case("password-and-no-host", broken(f"http://{CREDENTIALS}@"), says=UNREADABLE),
]
BY_NAME = {case.name: case for case in CASES}


def number_of(case: Case) -> str:
    return f"+91989{CASES.index(case):07}"


@dataclasses.dataclass(frozen=True)
class Results:
    """What came of it.

    :param used: door -> proxy -> heads of the requests that it got
    :param received: door -> proxy -> all bytes that it was sent, as latin-1
    :param paths: door -> paths that the API was asked
    """

    tries: dict[str, dict[str, Try]]
    used: dict[str, dict[str, list[str]]]
    received: dict[str, dict[str, str]]
    paths: dict[str, list[str]]
    everything: dict[str, str]
    ports: dict[str, int]


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory, key: KeyPair) -> Results:
    """Every case through both doors, with as many runs of Ansible as there are different environments."""

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
            for door, forks in ((WORKER, 20), (AS_A_MODULE, 6)):
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
                (folder / door).mkdir()
                playbooks = Playbooks(folder / door, https.url)
                made["tries"][door], made["everything"][door] = try_all(playbooks, to_do, key, door, forks=forks)
                made["used"][door] = {name: list(proxy.heads) for name, proxy in proxies.items()}
                made["received"][door] = {name: proxy.received.decode("latin-1") for name, proxy in proxies.items()}
                made["paths"][door] = [request["path"] for one in (https, http) for request in one.requests()]
        return made

    made = once(tmp_path_factory, "proxies", run)
    return Results(**{**made, "tries": {door: load(made["tries"][door]) for door in EXECUTION_MODES}})


def _http_uses(results: Results, door: str, case: Case) -> Iterator[str]:
    """Proxies that have seen the number, as they do without a tunnel."""
    return (name for name, heads in results.used[door].items() if any(number_of(case) in head for head in heads))


@pytest.mark.parametrize("name", BY_NAME)
@pytest.mark.parametrize("door", EXECUTION_MODES)
def test_the_way_to_the_api_is_the_environment_s(door: str, name: str, results: Results) -> None:
    case, one = BY_NAME[name], results.tries[door][name]
    facts = one.facts
    asked = sum(number_of(case) in path for path in results.paths[door])
    if case.says is None:
        assert not facts["failed"] and facts["changed"] and facts["http_status"] == 200, facts
        assert one.then["reason"] == "up_to_date"
        assert asked == 1
    else:
        assert facts["failed"] and not facts["changed"], facts
        assert re.search(case.says, facts["msg"]), facts["msg"]
        assert (facts.get("outcome"), facts.get("http_status")) == (case.outcome, case.http_status)
        assert one.then["reason"] == ("unconfirmed" if case.outcome == "unknown" else "absent")
        assert asked == 0
    if case.scheme == "http":
        assert list(_http_uses(results, door, case)) == [case.via] * bool(case.via)


@pytest.mark.parametrize("door", EXECUTION_MODES)
def test_a_tunnel_is_asked_for_by_each_case_that_needs_one_and_by_no_other(door: str, results: Results) -> None:
    for proxy in PROXIES:
        tunnels = [head.split("\r\n", 1)[0] for head in results.used[door][proxy] if head.startswith("CONNECT ")]
        wanted = [
            f"CONNECT {case.host}:{results.ports[case.scheme]} HTTP/1." for case in CASES if case.via == proxy and case.scheme != "http"
        ]
        assert sorted(line[:-1] for line in tunnels) == sorted(wanted)


@pytest.mark.parametrize("door", EXECUTION_MODES)
def test_a_proxy_learns_the_host_alone_of_an_https_call(door: str, results: Results) -> None:
    for proxy, received in results.received[door].items():
        https_numbers = [number_of(case) for case in CASES if case.scheme != "http"]
        assert not [number for number in https_numbers if number in received]
        # Plain http is for the loopback alone; all that stands in clear comes from there.
        plain = [head for head in results.used[door][proxy] if not head.startswith("CONNECT ")]
        assert received.count(API_KEY) == sum(API_KEY in head for head in plain) == len(plain)
        tunnels = [head for head in results.used[door][proxy] if head.startswith("CONNECT ")]
        assert not [head for head in tunnels if SID in head or "api-key" in head.lower()]


@pytest.mark.parametrize("name", BY_NAME)
def test_both_doors_give_the_same_facts(name: str, results: Results) -> None:
    worker, module = (results.tries[door][name] for door in EXECUTION_MODES)
    assert worker.facts == module.facts
    assert worker.then == module.then


@pytest.mark.parametrize("name", BY_NAME)
def test_no_result_holds_the_proxy_s_password_or_the_api_key(name: str, results: Results) -> None:
    for door in EXECUTION_MODES:
        text = f"{results.tries[door][name].facts}"
        for secret in (PASSWORD, "wrong-secret", API_KEY):
            assert secret not in text, door


@pytest.mark.parametrize("name", BY_NAME)
def test_what_a_proxy_says_is_shown_short_and_printable(name: str, results: Results) -> None:
    for door in EXECUTION_MODES:
        message = results.tries[door][name].facts.get("msg", "")
        assert message.isprintable() and len(message) < 1000, (door, message[:1500])


@pytest.mark.parametrize("door", EXECUTION_MODES)
def test_nothing_that_a_run_leaves_holds_them_either(door: str, results: Results) -> None:
    """Terminal, Ansible's log file, records, temporary files."""
    for secret in (PASSWORD, "wrong-secret", API_KEY):
        assert [line[:600] for line in results.everything[door].split("\n") if secret in line] == []
