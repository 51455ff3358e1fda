# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A table of what servers do wrong, and what comes of it: for the task and for the run after it, in the worker and in part as modules."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.cases import START_UP, ToDo, Try, try_all
from support.keys import KeyPair
from support.playbook_runs import ACCOUNTS, API_KEY, AS_A_MODULE, RBC001, SID, WA_400, WA_500, WORKER, Playbooks
from support.processes import options, register
from support.servers import SUCCESS, Servers, closed_port, full_queue, read_request, whole
from support.simulator.client import Simulator

MIB = 2**20
MAX_MIB = 150
MAX_GROWTH_MIB = 40


@dataclasses.dataclass(frozen=True)
class Case:
    """A row of the table.

    :param faults: for the simulator, in order; ``@ELSEWHERE@`` in a text stands for another simulator's URL
    :param outcome: None for a success
    :param http_status: of the last answer, None if there was none
    :param says: regular expression for a piece of the message
    :param holds: whether the server holds the key in the end
    :param api_url: ``queue`` or ``closed`` for ports that nobody answers on
    :param least: seconds that it must take, as it has to wait
    """

    name: str
    faults: Sequence[Mapping[str, Any]] = ()
    attempts: int = 1
    outcome: str | None = None
    http_status: int | None = 200
    says: str = ""
    holds: bool = False
    timeout: int = 20
    retries: int = 1
    api_url: str | None = None
    least: float = 0

    @property
    def then(self) -> str:
        """The reason that the next run gives: what was confirmed is left alone, what was refused never was, all else is done again."""
        return {None: "up_to_date", "rejected": "absent", "unknown": "unconfirmed"}[self.outcome]

    @property
    def bound(self) -> float:
        """Seconds after which it must have ended: all attempts, and pauses as long as they."""
        return (2 * self.retries + 1) * self.timeout + START_UP


def answer(status: int, body: Any = "<html>sorry</html>", **more: Any) -> dict[str, Any]:
    return {"do": "answer", "status": status, "body": body, **more}


def retry_after(value: str | int, **more: Any) -> dict[str, Any]:
    return answer(429, "slow down", headers={"Retry-After": value}, **more)


def raw(head: str, body: str = SUCCESS, **more: Any) -> dict[str, Any]:
    """An answer byte for byte, to a request that was applied."""
    return {"do": "raw", "bytes": head.replace("\n", "\r\n") + "\r\n\r\n" + body, "apply": True, **more}


def said(**fields: Any) -> dict[str, Any]:
    """HTTP 200 with a success in which some fields are different, to a request that was applied."""
    return answer(200, {**json.loads(SUCCESS), **fields}, apply=True)


ALWAYS: dict[str, Any] = {"always": True}
LENGTH = f"Content-Length: {len(SUCCESS)}"
RATE_LIMITED = r"HTTP 429\. .*fewer forks.* The number keeps the key it had\."
MAYBE = r"It may or may not have been applied\. Run it again"
WHEN_IT_LASTS = r"Kaleyra advises trying again after 5, 10 and 15 minutes, and then contacting its support\."
NOT_CONFIRMED = rf"HTTP 200, but did not confirm success.*{MAYBE}"
NOT_IN_TIME = rf"(no complete answer within 2 seconds|timed out).*{MAYBE}"
RESET = rf"\(2 attempts\).*(Connection reset by peer|Broken pipe|closed connection).*{MAYBE}"
REDIRECT = r"a redirect \(HTTP 30\d\), which is not followed.*Check pod or api_url"

# The slow ones come first, so that the others run beside them. One of each kind: what each kind of answer means to the core is in
# tests/unit/plugins/module_utils/test_api.py and test_http.py.
SLOW = [
    Case("connect-timeout", (), 2, "unknown", None, NOT_IN_TIME, timeout=2, api_url="queue"),
    *(
        Case(f"{do}-in-{where}", [{"do": do, "where": where, "apply": True, **ALWAYS}], 2, "unknown", None, NOT_IN_TIME, True, timeout=2)
        for do, where in (("hang", "headers"), ("trickle", "body"))
    ),
    Case("hang-once", [{"do": "hang", "apply": True}], 2, holds=True, timeout=2),
    Case("429-absurd-seconds", [retry_after(86400)], 2, holds=True, timeout=2, least=2),
    Case("429-seconds", [retry_after(2)], 2, holds=True, least=2),
    Case("500-twice-then-fine", [WA_500, WA_500], 3, holds=True, retries=2, least=1.5),
    Case("429-always", [retry_after(1, **ALWAYS)], 2, "rejected", 429, RATE_LIMITED, least=1),
]
AGAIN = [
    Case("500-always", [{**WA_500, **ALWAYS}], 2, "unknown", 500, rf"HTTP 500 \(WA-500, Please try again later\)\. {WHEN_IT_LASTS} {MAYBE}"),
    Case("503-applied-then-fine", [answer(503, apply=True)], 2, holds=True),
    # What one attempt may have done, a later refusal does not undo.
    Case("500-applied-then-429", [answer(500, apply=True), retry_after(0)], 2, "unknown", 429, rf"HTTP 429\..*{MAYBE}", True),
    Case("reset-applied-then-401", [{"do": "reset", "apply": True}, answer(401)], 2, "unknown", 401, MAYBE, True),
    Case("429-none", [answer(429, "slow down")], 2, holds=True),
    Case("reset-applied-once", [{"do": "reset", "apply": True}], 2, holds=True),
    Case("reset-applied-always", [{"do": "reset", "apply": True, **ALWAYS}], 2, "unknown", None, RESET, True),
    Case("reset-unread-always", [{"do": "reset", "unread": True, **ALWAYS}], 2, "unknown", None, RESET),
    Case("connection-refused", (), 2, "unknown", None, r"Connection refused\. Check pod or api_url, the network", api_url="closed"),
]
LARGE = [
    Case("64-mib", [{"do": "flood", "bytes": 64 * MIB, "apply": True}], 1, "unknown", 200, NOT_CONFIRMED, True),
    Case("64-mib-redirect", [{"do": "flood", "bytes": 64 * MIB, "status": 302}], 1, "unknown", 302, REDIRECT),
    Case("64-mib-500", [{"do": "flood", "bytes": 64 * MIB, "status": 500, **ALWAYS}], 2, "unknown", 500, MAYBE),
    Case("gzip-bomb-1-gib", [{"do": "gzip_bomb", "apply": True}], 1, "unknown", 200, NOT_CONFIRMED, True),
    Case("headers-10000", [raw("HTTP/1.1 200 OK\n" + "A: b\n" * 10_000 + LENGTH, **ALWAYS)], 2, "unknown", None, MAYBE, True),
    Case("header-100-kb", [raw(f"HTTP/1.1 200 OK\nA: {'b' * 100_000}\n{LENGTH}", **ALWAYS)], 2, "unknown", None, MAYBE, True),
    Case("deep-json", [answer(200, "[" * 60_000, apply=True)], 1, "unknown", 200, NOT_CONFIRMED, True),
]
CONTENT = [
    *(
        Case(f"200-{name}", [fault], 1, "unknown", 200, NOT_CONFIRMED, True)
        for name, fault in (
            ("success-string", said(data={"success": "true"})),
            # Which of the two counts is the reader's choice (RFC 8259, 4).
            ("duplicate-code", answer(200, '{"code": "WA-400", ' + SUCCESS[1:], apply=True)),
            ("duplicate-success", answer(200, SUCCESS.replace('{"success"', '{"success": false, "success"'), apply=True)),
        )
    ),
    *(
        Case(f"200-{name}", [fault], holds=True)
        for name, fault in (
            ("message-60-kib", said(message="long " * 12_000)),
            ("message-lone-surrogate", answer(200, SUCCESS.replace("Request", "\\ud800"), apply=True)),
            ("message-escapes", said(message="\x1b[31mred\x07\r\nTASK [forged]")),
            ("type-html", answer(200, SUCCESS, apply=True, headers={"Content-Type": "text/html"})),
            ("byte-order-mark", answer(200, "\ufeff" + SUCCESS, apply=True)),
        )
    ),
    Case("201-with-success", [answer(201, SUCCESS, apply=True)], 1, "unknown", 201, rf"HTTP 201.*{MAYBE}", True),
]

KEEPS = r"The number keeps the key it had\."
REFUSED = [
    Case("401-rbc001", [RBC001], 1, "rejected", 401, rf"HTTP 401 \(RBC001, Incorrect SID or API key\.\)\. Check sid and api_key.*{KEEPS}"),
    Case("400-wa-400", [WA_400], 1, "rejected", 400, rf"WA-400, Refer to correct payload format.*WABA is onboarded.*{KEEPS}"),
    Case("403-html", [answer(403)], 1, "rejected", 403, rf"HTTP 403\. Check sid and api_key, and that this IP address.*{KEEPS}"),
    # The server gave up waiting, which is no refusal.
    Case("408", [answer(408, apply=True)], 1, "unknown", 408, MAYBE, True),
    Case(
        "307-elsewhere",
        [answer(307, "moved", headers={"Location": f"@ELSEWHERE@/v2/{SID}/whatsapp/+14155550123/flows_encryption"})],
        *(1, "unknown", 307, REDIRECT),
    ),
]

FRAMING = [
    Case("100-five-times-then-fine", [raw("HTTP/1.1 100 Continue\n\n" * 5 + f"HTTP/1.1 200 OK\n{LENGTH}")], holds=True),
    # Python's http.client takes other interim answers for the last one, and does not see what follows: no answer, above all no success.
    *(
        Case(name, [raw(head, body, **ALWAYS)], 2, "unknown", None, rf"interim.*{MAYBE}", True)
        for name, head, body in (
            ("103-then-fine", f"HTTP/1.1 103 Early Hints\nLink: </a>\n\nHTTP/1.1 200 OK\n{LENGTH}", SUCCESS),
            ("102-with-success-as-body", f"HTTP/1.1 102 Processing\n{LENGTH}", SUCCESS),
        )
    ),
    Case("http-1.0-no-length", [raw("HTTP/1.0 200 OK")], holds=True),
    Case("length-too-short", [raw("HTTP/1.1 200 OK\nContent-Length: 20")], 1, "unknown", 200, NOT_CONFIRMED, True),
    Case("binary-garbage", [{"do": "raw", "bytes": "\x00\xff\x1b[31m\x07" * 500, "apply": True, **ALWAYS}], 2, "unknown", None, MAYBE, True),
    Case("header-without-colon", [raw(f"HTTP/1.1 200 OK\nnonsense\n{LENGTH}")], holds=True),
]
ECHOED = [
    Case("echo-400", [{"do": "echo"}], 1, "rejected", 400, rf"HTTP 400 \(WA-400 \*{{8}}.*{KEEPS}"),
    Case("echo-in-success", [said(message=f"Thank you, {API_KEY}", error={API_KEY: API_KEY})], holds=True),
    # Python puts these into its errors' texts.
    Case("echo-as-status", [raw(f"HTTP/1.1 {API_KEY}", **ALWAYS)], 2, "unknown", None, MAYBE, True),
    Case("echo-as-chunk", [raw("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", f"{API_KEY}\r\n", **ALWAYS)], 2, "unknown", None, MAYBE, True),
    # What urllib3 cannot read of a head it writes to Python's log, which Ansible's log file takes in.
    Case("echo-in-broken-header", [raw(f"HTTP/1.1 200 OK\n{API_KEY}\n{LENGTH}")], holds=True),
    Case("echo-in-redirect", [answer(302, "", headers={"Location": f"@ELSEWHERE@/{API_KEY}", "Retry-After": API_KEY})], 1, "unknown", 302, REDIRECT),
]

CASES = [Case("fine", holds=True), *SLOW, *AGAIN, *LARGE, *CONTENT, *REFUSED, *FRAMING, *ECHOED]
# Of each kind, as each costs a process; of the large ones all, whose memory is measured there.
AS_MODULES = {
    *("fine", "connect-timeout", "hang-in-headers", "hang-once", "429-seconds", "500-always", "reset-applied-then-401"),
    *("200-success-string", "200-message-escapes", "401-rbc001", "307-elsewhere", "103-then-fine", "echo-400", "echo-as-status"),
    *("echo-in-broken-header", "echo-in-redirect", *(case.name for case in LARGE)),
}


# --- the runs ---------------------------------------------------------------------------------------------------------


def number_of(case: Case) -> str:
    return f"+91987{CASES.index(case):07}"


def assert_case(case: Case, one: Try, held: str | None) -> None:
    """:param held: fingerprint of the key that the number carries in the end"""
    facts = one.facts
    assert (facts["failed"], facts["changed"]) == (case.outcome is not None, case.outcome is None)
    assert (facts.get("outcome"), facts["attempts"], facts.get("http_status")) == (case.outcome, case.attempts, case.http_status)
    assert facts["reason"] == "absent" and facts["phone_number"] == number_of(case)
    assert re.search(case.says, facts.get("msg", ""))
    assert (one.then["reason"], one.then["changed"], one.then["attempts"]) == (case.then, case.outcome is not None, 0)
    # What the server says is shown short, printable and without the API key.
    assert API_KEY not in json.dumps(facts)
    for text in (facts.get(fact) or "" for fact in ("msg", "code", "message")):
        assert text.isprintable() and len(text) < 1000, text[:2000]
    # The record says no more than the server holds.
    assert (held is not None) is case.holds, "the table is wrong about the server"
    states = [(record["phone_number"], record["state"]) for record in one.records]
    expected = {None: ["confirmed"], "rejected": [], "unknown": ["unconfirmed"]}[case.outcome]
    assert states == [(number_of(case), state) for state in expected] and one.leftovers == []
    assert case.outcome is not None or one.records[0]["fingerprint"] == held
    # It ends within its bounds.
    assert case.least <= one.seconds <= case.bound


def _comparable(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Facts without what a race decides: whether the socket's own timeout or that of the attempt as a whole comes first, and how the
    kernel tells a reset to whom is still sending.
    """
    raced = r"gave no answer: [^.]*(timed out|within|Connection reset by peer|Broken pipe|closed connection)[^.]*\."
    return {**facts, "msg": re.sub(raced, "gave no answer: as raced.", facts.get("msg", ""))}


def test_misbehaviour_gives_result_record_and_next_run(key: KeyPair, tmp_path_factory: pytest.TempPathFactory, subtests: pytest.Subtests) -> None:
    """By one run of Ansible for each mode."""
    tries: dict[str, dict[str, Try]] = {}
    with Simulator(ACCOUNTS) as simulator, Simulator(ACCOUNTS) as elsewhere, full_queue() as queue, closed_port() as closed:
        urls = {None: simulator.url, "queue": f"http://127.0.0.1:{queue}", "closed": f"http://127.0.0.1:{closed}"}
        faults = json.dumps({number_of(case): case.faults for case in CASES if case.faults}).replace("@ELSEWHERE@", elsewhere.url)
        # Workers wait together; modules would take the machine's few cores from one another.
        for mode, forks in ((WORKER, 50), (AS_A_MODULE, 8)):
            simulator.reset()
            simulator.faults(json.loads(faults))
            cases = [case for case in CASES if mode == WORKER or case.name in AS_MODULES]
            to_do = [
                ToDo(case.name, number_of(case), {"timeout": case.timeout, "retries": case.retries, "api_url": urls[case.api_url]})
                for case in cases
            ]
            tries[mode], everything = try_all(Playbooks(tmp_path_factory.mktemp("f"), simulator.url), to_do, key, mode, forks=forks)
            held = simulator.registered()[SID]
            for case in cases:
                with subtests.test(f"{case.name}, {mode}", facts=tries[mode][case.name].facts):
                    assert_case(case, tries[mode][case.name], held.get(number_of(case)))
            # In the terminal, Ansible's log file, records and temporary files.
            assert [line[:600] for line in everything.split("\n") if API_KEY in line] == []
            assert elsewhere.count() == 0

    price = tries[AS_A_MODULE]["fine"].peak_mib  # of Python and the libraries
    for name, module in tries[AS_A_MODULE].items():
        worker = tries[WORKER][name]
        with subtests.test(f"{name} in both modes"):
            assert _comparable(worker.facts) == _comparable(module.facts)
            assert worker.then == module.then
            assert price and module.peak_mib and module.peak_mib < min(MAX_MIB, price + MAX_GROWTH_MIB)


# --- one connection, several numbers ----------------------------------------------------------------------------------


def test_late_answer_counts_for_no_other_number(tmp_path: Path, key: KeyPair) -> None:
    """In a loop, numbers share a connection. The answer proper, which follows an interim one, is of the number asked first."""
    first, second = "+919876543210", "+919876543211"

    async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head, dummy = await read_request(reader)
            if first in head.split("\r\n", 1)[0]:
                writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
                await asyncio.sleep(1)
                writer.write(whole("200 OK"))
            else:
                writer.write(whole("400 Bad Request", "{}"))
            await writer.drain()

    with Servers() as servers:
        url = f"http://127.0.0.1:{servers.start(server)}"
        # Whether the first counts is a matter of how much HTTP the libraries know. The second was refused.
        results = [register(options(url, tmp_path / "cache", number, key.public)) for number in (first, second)]
    assert results[1]["failed"] and results[1]["http_status"] != 200, results
    records = [json.loads(path.read_text()) for path in (tmp_path / "cache").glob("*.json")]
    assert [record for record in records if record["phone_number"] == second and record["state"] == "confirmed"] == []
