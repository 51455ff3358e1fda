# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measures the core with many numbers in one task, compared with a bare pool of requests."""

from __future__ import annotations

import itertools
import pathlib
import queue
import statistics
import subprocess
import sys
import threading
import time
import typing as t

import requests
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._batch import register
from ansible_collections.kaleyra.whatsapp.plugins.modules.kaleyra_flows_encryption import SPEC
from support.simulator.client import Simulator

SID, API_KEY = "HXBENCH0000000000", "benchmark-api-key"


def numbers_of(count: int) -> list[str]:
    return [f"+91{9000000000 + n}" for n in range(count)]


class ListBench:
    """Runs the core in this process."""

    def __init__(self, folder: pathlib.Path, simulator: Simulator, public_key: str) -> None:
        self._folder = folder
        self._simulator = simulator
        self._key = public_key
        self._count = itertools.count()

    def new_cache(self) -> pathlib.Path:
        return self._folder / f"fleet-{next(self._count)}"

    def run(self, numbers: list[str], cache: pathlib.Path, *, check_mode: bool = False, **given: t.Any) -> float:
        """Seconds for all numbers in one call."""
        params = {
            **{name: option.get("default") for name, option in SPEC.argument_spec.items()},
            "api_url": self._simulator.url, "sid": SID, "api_key": API_KEY, "business_public_key": self._key,
            "phone_numbers": numbers, "cache_path": str(cache), **given,
        }
        start = time.perf_counter()
        assert "failed" not in register(params, check_mode=check_mode)
        return time.perf_counter() - start

    def bare_pool(self, numbers: list[str], threads: int) -> float:
        """Seconds for the same requests by threads that do nothing else, each with its session."""
        todo: queue.SimpleQueue[str] = queue.SimpleQueue()
        for number in numbers:
            todo.put(number)

        def work() -> None:
            with requests.Session() as session:
                while True:
                    try:
                        number = todo.get_nowait()
                    except queue.Empty:
                        return
                    url = f"{self._simulator.url}/v2/{SID}/whatsapp/{number}/flows_encryption"
                    answer = session.post(url, data={"business_public_key": self._key.strip()}, headers={"api-key": API_KEY}, timeout=30)
                    assert answer.json()["code"] == "WA-200"

        workers = [threading.Thread(target=work) for dummy in range(threads)]
        start = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return time.perf_counter() - start

    def converged(self, count: int, rounds: int) -> float:
        """Median seconds of an unchanged run."""
        cache, numbers = self.new_cache(), numbers_of(count)
        self.run(numbers, cache)
        return statistics.median(self.run(numbers, cache) for dummy in range(rounds))

    def registering(self, count: int, rounds: int, threads: int = 8) -> tuple[float, float]:
        """Median seconds of registering, and of a bare pool of the same size."""
        numbers = numbers_of(count)
        runs = [(self.run(numbers, self.new_cache(), concurrency=threads), self.bare_pool(numbers, threads)) for dummy in range(rounds)]
        return statistics.median(run for run, dummy in runs), statistics.median(bare for dummy, bare in runs)

    def foreseeing(self, count: int, rounds: int) -> float:
        """Median seconds of check mode where nothing is on record."""
        numbers = numbers_of(count)
        return statistics.median(self.run(numbers, self.new_cache(), check_mode=True) for dummy in range(rounds))


_PEAK = """
import pathlib, re, sys
from dev.benchmark._lists import ListBench, numbers_of
from support.simulator.client import Simulator
with Simulator({"HXBENCH0000000000": "benchmark-api-key"}) as simulator:
    bench = ListBench(pathlib.Path(sys.argv[1]), simulator, sys.stdin.read())
    bench.run(numbers_of(100), bench.new_cache())
    bench.run(numbers_of(int(sys.argv[2])), bench.new_cache())
# Not getrusage, which starts with the memory of the parent.
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1]) * 1024)
"""


def bytes_a_number(folder: pathlib.Path, public_key: str, few: int, many: int) -> float:
    """Return by how much the peak memory of a process grows with each number that it registers."""
    peaks = []
    for count in (few, many):
        place = folder / f"memory-{count}"
        command = [sys.executable, "-c", _PEAK, str(place), str(count)]
        peaks.append(int(subprocess.run(command, input=public_key, check=True, capture_output=True, text=True).stdout))
    return (peaks[1] - peaks[0]) / (many - few)
