# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Measures the time of runs as ratios within one run: ``make bench``.

Every figure is a median over rounds in which the candidates take turns, without Ansible's own start-up. The exit
status is 1 if a ratio is three times its limit: on a shared machine, smaller excesses come and go. What depends on the disk
or the clock alone is shown without a limit.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from support.simulator.client import Simulator

from dev.benchmark._lists import API_KEY, SID, ListBench, bytes_a_number, numbers_of

# Every argument templated, as in a role, for the comparison with set_fact.
ARGUMENTS = """
        api_url: "{{ api_url }}"
        sid: "{{ sid }}"
        api_key: "{{ api_key }}"
        phone_number: "{{ inventory_hostname }}"
        business_public_key: "{{ public_key }}"
        cache_path: "{{ cache_path }}"
"""

# As the module's examples have it, with the account in the environment, for the comparison with uri.
LOOP_ARGUMENTS = """
        api_url: %(url)s
        phone_number: "{{ item }}"
        business_public_key_path: %(key)s
        cache_path: %(cache)s
      loop: "{{ numbers }}"
"""

LOOP_URI = """
        url: "%(url)s/v2/%(sid)s/whatsapp/{{ item }}/flows_encryption"
        method: POST
        headers:
          api-key: "{{ api_key }}"
        body_format: form-urlencoded
        body:
          business_public_key: "{{ public_key | trim }}"
      loop: "{{ numbers }}"
"""

# All numbers in one task, and none, which is the time that Ansible needs for such a task in any case.
FLEET_ARGUMENTS = """
        api_url: "{{ api_url }}"
        sid: "{{ sid }}"
        api_key: "{{ api_key }}"
        phone_numbers: "{{ %s }}"
        business_public_key: "{{ public_key }}"
        cache_path: "{{ cache_path }}"
"""

# In a separate process, several times.
PROCESS = """
      environment:
        ASKS_FOR_A_PROCESS: "yes"
      loop: "{{ range(10) | list }}"
"""
PROCESS_ARGUMENTS = """
        api_url: "{{ api_url }}"
        sid: "{{ sid }}"
        api_key: "{{ api_key }}"
        phone_number: "{{ numbers[0] }}"
        business_public_key: "{{ public_key }}"
        cache_path: "{{ cache_path }}"
"""

PLAY = """
- hosts: all
  gather_facts: false
  tasks:
%s
"""

SPEC = """
    - name: Measured
      %(action)s:%(arguments)s
"""


# A run of the role. The key pair exists beside the inventory.
ROLE = """
    - name: Measured
      ansible.builtin.import_role:
        name: kaleyra.whatsapp.flows_encryption
      vars:
        flows_encryption_api_url: "{{ api_url }}"
        flows_encryption_sid: "{{ sid }}"
        flows_encryption_api_key: "{{ api_key }}"
        flows_encryption_cache_path: "{{ cache_path }}"
        flows_encryption_private_key_path: "{{ inventory_dir }}/private.pem"
"""
ROLE_LIST = ROLE + '''        flows_encryption_phone_numbers: "{{ many }}"\n'''


def _processor_seconds() -> float:
    """Processor time of the runs that have ended, with all their workers and modules."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Bench:
    """Runs playbooks in a folder of its own and keeps their times."""

    def __init__(self, folder: pathlib.Path, simulator: Simulator, hosts: int, forks: int, processor_time: bool) -> None:
        self.folder = folder
        self.simulator = simulator
        self.forks = forks
        self.clock = _processor_seconds if processor_time else time.perf_counter
        # With bytecode, as an installation has it.
        self.environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        self.environment["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")
        self.cache = folder / "records"
        self.times: dict[str, list[float]] = {}
        numbers = [f"+91{9000000000 + n}" for n in range(hosts)]
        subprocess.run(
            ["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", folder / "private.pem"],
            check=True, capture_output=True,
        )
        key = subprocess.run(["openssl", "pkey", "-in", folder / "private.pem", "-pubout"], check=True, capture_output=True, text=True).stdout
        (folder / "public.pem").write_text(key)
        public_key = key.strip().replace("\n", "\n    ")
        common = f"""
  vars:
    ansible_connection: local
    ansible_python_interpreter: "{{{{ ansible_playbook_python }}}}"
    api_url: {simulator.url}
    sid: {SID}
    api_key: {API_KEY}
    cache_path: {self.cache}
    numbers: {numbers}
    public_key: |
      {public_key.replace("    ", "      ")}
"""
        hosts_text = "".join(f"    '{number}':\n" for number in numbers)
        (folder / "fleet.yml").write_text(f"all:\n  hosts:\n{hosts_text}{common}")
        (folder / "one.yml").write_text(f"all:\n  hosts:\n    one:\n{common}")

    def play(self, name: str, tasks: str) -> str:
        (self.folder / f"{name}.play.yml").write_text(PLAY % (tasks or "    []"))
        return name

    def run(self, play: str, inventory: str, measured_as: str | None = None, expect_requests: int = 0) -> None:
        before = self.simulator.count()
        start = self.clock()
        done = subprocess.run(
            ["ansible-playbook", "-i", f"{inventory}.yml", "-f", str(self.forks), f"{play}.play.yml"],
            cwd=self.folder, env={**self.environment, "ANSIBLE_STDOUT_CALLBACK": "minimal", "KALEYRA_SID": SID, "KALEYRA_API_KEY": API_KEY},
            capture_output=True, text=True, check=False,
        )
        elapsed = self.clock() - start
        if done.returncode:
            sys.exit(f"{play} failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
        sent = self.simulator.count() - before
        if sent != expect_requests:
            sys.exit(f"{play} on {inventory} sent {sent} requests instead of {expect_requests}")
        self.times.setdefault(measured_as or f"{play} on {inventory}", []).append(elapsed)

    def forget(self) -> None:
        shutil.rmtree(self.cache, ignore_errors=True)

    def net(self, name: str, start_up: str) -> float:
        """Median seconds of a play over the median of its start-up."""
        return statistics.median(self.times[name]) - statistics.median(self.times[start_up])


# These depend on the disk, because a bare pool has no fsync, or on the machine.
NOT_JUDGED = ("the bare pool to it", "Ansible's own work")

# What, seconds (or another figure), ratio, limit in words, and how much of the limit the ratio uses.
Row = tuple[str, str, float | None, str, float]


def row(what: str, seconds: float, ratio: float | None = None, most: float | None = None, least: float | None = None, unit: str = "s") -> Row:
    """Return a row of the table. :func:`main` compares the ratio with its limit, unless it is in :data:`NOT_JUDGED`."""
    limit = f"at most {most:g}" if most else f"at least {least:g}" if least else ""
    used = ratio / most if ratio and most else least / ratio if ratio and least else 0
    return what, f"{seconds:.3g} {unit}", ratio, limit, used


def show(rows: list[Row]) -> None:
    print("| what | it takes | ratio | limit | held |\n|---|---|---|---|---|")
    for what, figure, ratio, limit, used in rows:
        print(f"| {what} | {figure} | {f'{ratio:.2f}' if ratio else ''} | {limit} | {('yes' if used <= 1 else 'no') if limit else ''} |")


def hosts_and_loops(bench: Bench, options: argparse.Namespace) -> list[Row]:
    module = "kaleyra.whatsapp.kaleyra_flows_encryption"
    literal = {"url": bench.simulator.url, "sid": SID, "cache": bench.cache, "key": bench.folder / "public.pem"}
    bench.play("nothing", "")
    bench.play("set_fact", SPEC % {"action": "ansible.builtin.set_fact", "arguments": ARGUMENTS})
    bench.play("module", SPEC % {"action": module, "arguments": ARGUMENTS})
    bench.play("module_loop", SPEC % {"action": module, "arguments": LOOP_ARGUMENTS % literal})
    bench.play("uri_loop", SPEC % {"action": "ansible.builtin.uri", "arguments": LOOP_URI % literal})
    bench.play("ping", SPEC % {"action": "ansible.builtin.ping", "arguments": PROCESS})
    bench.play("process", SPEC % {"action": module, "arguments": PROCESS_ARGUMENTS + PROCESS.lstrip("\n")})
    for dummy in range(options.rounds):
        bench.run("nothing", "fleet")
        bench.run("nothing", "one")
        bench.run("set_fact", "fleet")
        bench.forget()
        bench.run("module", "fleet", "registering, fleet", expect_requests=options.hosts)
        bench.run("module", "fleet", "converged, fleet")
        bench.run("process", "one")
        bench.run("ping", "one")
        bench.forget()
        bench.run("module_loop", "one", "registering, loop", expect_requests=options.hosts)
    for dummy in range(options.slow_rounds):
        bench.run("uri_loop", "one", "uri, loop", expect_requests=options.hosts)
    set_fact = bench.net("set_fact on fleet", "nothing on fleet")
    converged = bench.net("converged, fleet", "nothing on fleet")
    registering = bench.net("registering, fleet", "nothing on fleet")
    loop = bench.net("registering, loop", "nothing on one")
    process, ping = bench.net("process on one", "nothing on one"), bench.net("ping on one", "nothing on one")
    rows = [
        row(f"{options.hosts} hosts: `set_fact` with the same arguments", set_fact),
        row(f"{options.hosts} hosts: module, converged, to `set_fact`", converged, converged / set_fact, most=1.2),
        row(f"{options.hosts} hosts: module, registering, to `set_fact`", registering, registering / set_fact, most=1.6),
        row("10 processes: `ansible.builtin.ping`", ping),
        row("10 processes: module, converged, to `ping`", process, process / ping, most=1.25),
        row(f"loop over {options.hosts}: module, registering", loop),
    ]
    if options.slow_rounds:
        uri = bench.net("uri, loop", "nothing on one")
        rows.append(row(f"loop over {options.hosts}: `ansible.builtin.uri`, same POST, to the module", uri, uri / loop, least=40))
    return rows


def role(bench: Bench, options: argparse.Namespace) -> list[Row]:
    hosts, rounds = options.hosts, options.rounds
    bench.play("nothing", "")
    bench.play("set_fact", SPEC % {"action": "ansible.builtin.set_fact", "arguments": ARGUMENTS})
    bench.play("role", ROLE)
    bench.play("role_list", ROLE_LIST)
    (bench.folder / "list.yml").write_text((bench.folder / "one.yml").read_text() + f"    many: {numbers_of(1000)}\n")
    bench.forget()
    bench.run("role_list", "list", "list, registering", expect_requests=1000)
    for dummy in range(rounds):
        bench.run("nothing", "list")
        bench.run("role_list", "list", "list, unchanged")
    for dummy in range(rounds):
        bench.forget()
        bench.run("nothing", "fleet")
        bench.run("set_fact", "fleet")
        bench.run("role", "fleet", "role, registering", expect_requests=hosts)
        bench.run("role", "fleet", "role, unchanged")
    set_fact = bench.net("set_fact on fleet", "nothing on fleet")
    unchanged = bench.net("role, unchanged", "nothing on fleet")
    registering = bench.net("role, registering", "nothing on fleet")
    listed = bench.net("list, unchanged", "nothing on list")
    return [
        row(f"{hosts} hosts: role, unchanged, to `set_fact` with the same arguments", unchanged, unchanged / set_fact, most=5),
        row(f"{hosts} hosts: role, registering all, to `set_fact`", registering, registering / set_fact, most=6),
        row("role, a list of 1,000 numbers, unchanged, in seconds", listed, listed, most=2.5),
    ]


def fleets(bench: Bench, public_key: str, options: argparse.Namespace) -> list[Row]:
    count, rounds = options.numbers, options.rounds
    fleet = ListBench(bench.folder, bench.simulator, public_key)
    registering, pool = fleet.registering(1000, rounds)
    with Simulator({SID: API_KEY}, latency=0.1) as slow:
        late = ListBench(bench.folder / "late", slow, public_key)
        latency = late.run(numbers_of(400), late.new_cache(), concurrency=8)
    memory = bytes_a_number(bench.folder, public_key, 1000, 5000)
    # The same through Ansible.
    (bench.folder / "many.yml").write_text((bench.folder / "one.yml").read_text() + f"    many: {numbers_of(count)}\n    nobody: []\n")
    for name in ("many", "nobody"):
        bench.play(name, SPEC % {"action": "kaleyra.whatsapp.kaleyra_flows_encryption", "arguments": FLEET_ARGUMENTS % name})
    bench.forget()
    fleet.run(numbers_of(count), bench.cache)
    for dummy in range(rounds):
        bench.run("nobody", "many")
        bench.run("many", "many")
    task = bench.net("many on many", "nobody on many")
    return [
        row(f"one list of {count}: converged, Ansible's own work with the list included", task, task, most=3),
        row("1,000 requests by a bare pool of 8 with `requests`", pool),
        row("one list of 1,000: registering, the bare pool to it", registering, pool / registering, least=0.7),
        row("one list of 400: registering at 100 ms latency, the ideal to it", latency, 400 * 0.1 / 8 / latency, least=0.9),
        row("one list: memory for a number, in KB", memory, memory / 1024, most=3, unit="bytes"),
    ]


def growth(bench: Bench, public_key: str, rounds: int) -> None:
    fleet = ListBench(bench.folder, bench.simulator, public_key)
    print("| numbers | check mode, nothing on record | converged | registering |\n|---|---|---|---|")
    for count in (100, 1000, 10_000, 100_000):
        figures = [fleet.foreseeing(count, rounds)]
        if count <= 10_000:
            figures += [fleet.converged(count, rounds), fleet.registering(count, 1)[0]]
        cells = [f"{seconds / count * 1e6:.0f} µs" for seconds in figures] + ["–"] * (3 - len(figures))
        print(f"| {count:,} | {' | '.join(cells)} |", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, default=100)
    parser.add_argument("--numbers", type=int, default=10_000, help="in one task")
    parser.add_argument("--forks", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--processor-time", action="store_true", help="measure that of Ansible, where other work shares the machine")
    parser.add_argument("--slow-rounds", type=int, default=1, help="rounds with ansible.builtin.uri, which takes long")
    parser.add_argument("--only", choices=["hosts", "role", "fleets", "growth"], help="growth is the table of costs a number, which is made alone")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, Simulator({SID: API_KEY}) as simulator:
        bench = Bench(pathlib.Path(name), simulator, options.hosts, options.forks, options.processor_time)
        public_key = (bench.folder / "public.pem").read_text()
        if options.only == "growth":
            growth(bench, public_key, options.rounds)
            return 0
        rows = hosts_and_loops(bench, options) if options.only in (None, "hosts") else []
        rows += role(bench, options) if options.only in (None, "role") else []
        rows += fleets(bench, public_key, options) if options.only in (None, "fleets") else []
    print(f"Medians of {options.rounds} rounds, forks {options.forks}, Ansible's start-up taken off\n")
    show(rows)
    return 1 if max(used for what, *dummy, used in rows if not any(part in what for part in NOT_JUDGED)) > 3 else 0


if __name__ == "__main__":
    sys.exit(main())
