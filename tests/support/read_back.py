# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The table of "Reading back": numbers with every kind of record, and every key that they can be seen to carry."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.processes import Key, register
from support.simulator.client import Simulator, waba_numbers

TOKEN = "EAAread-back-tests-0f9d1c"
META: dict[str, Any] = {"read_back": "meta", "meta_access_token": TOKEN, "meta_waba_ids": ["1001"]}
KALEYRA: dict[str, Any] = {"read_back": "kaleyra"}
REFUSED = {"do": "answer", "status": 401, "body": {"error": {"message": "Invalid token", "code": 190}}, "method": "GET", "always": True}


@dataclasses.dataclass(frozen=True)
class Row:
    """What is on record, what is held, and what comes of it."""

    record: str
    held: str
    reason: str
    previous: str | None


ROWS = [
    Row("nothing", "wanted", "up_to_date", "wanted"),
    Row("other", "wanted", "up_to_date", "wanted"),
    Row("unconfirmed", "wanted", "up_to_date", "wanted"),
    Row("unreadable", "wanted-no-status", "up_to_date", "wanted"),
    Row("wanted", "wanted", "up_to_date", "wanted"),
    Row("wanted", "wanted-mismatch", "mismatch", "wanted"),
    Row("nothing", "wanted-mismatch", "mismatch", "wanted"),
    Row("wanted", "other", "drifted", "other"),
    Row("wanted", "none", "drifted", None),
    Row("other", "third", "different", "third"),
    Row("nothing", "other", "different", "other"),
    Row("unconfirmed", "other", "different", "other"),
    Row("unreadable", "other", "different", "other"),
    Row("nothing", "none", "absent", None),
    Row("other", "none", "absent", None),
    Row("wanted", "unknown", "up_to_date", "wanted"),
    Row("other", "unknown", "different", "other"),
    Row("nothing", "unknown", "absent", None),
    Row("unconfirmed", "unknown", "unconfirmed", None),
]


@dataclasses.dataclass
class World:
    """Numbers, one for each row, with their records and what they carry.

    :param keys: those of the rows: ``wanted``, ``other``, ``third``
    :param params: all options of a registration without Ansible, those that matter given by name
    """

    simulator: Simulator
    cache: Path
    keys: dict[str, Key]
    numbers: dict[str, Row]
    params: Callable[..., dict[str, Any]]

    def __post_init__(self) -> None:
        self.simulator.configure(access_token=TOKEN, wabas={"1001": waba_numbers(self.numbers)}, meta_shape="list", kaleyra_get="data")

    def register(self, *, check_mode: bool = False, **given: Any) -> dict[str, Any]:
        """Register the wanted key by the core."""
        options = {"cache_path": str(self.cache), "business_public_key": self.keys["wanted"].public, "meta_api_url": f"{self.simulator.url}/v23.0"}
        return register(self.params(**{**options, **given}), check_mode=check_mode)

    def prepare(self) -> None:
        """Leave the records that the rows name, and only then let the numbers carry what they name."""
        recorded: dict[str, list[str]] = {}
        for number, row in self.numbers.items():
            recorded.setdefault(row.record, []).append(number)
        self.simulator.faults({number: [{"do": "close"}] for number in recorded.get("unconfirmed", [])})
        for record, key in (("wanted", "wanted"), ("unreadable", "wanted"), ("other", "other"), ("unconfirmed", "other")):
            self.register(phone_numbers=recorded.get(record, []), business_public_key=self.keys[key].public)
        for number in recorded.get("unreadable", []):
            self.record_path(number).write_text("{")
        held: dict[str, Any] = {}
        for number, row in self.numbers.items():
            name, dummy, status = row.held.partition("-")
            pem = self.keys[name].public if name in self.keys else None
            held[number] = pem and {"pem": pem, "status": {"": "VALID", "mismatch": "MISMATCH", "no-status": None}[status]}
        self.simulator.hold(held)
        self.simulator.faults({number: [REFUSED] for number, row in self.numbers.items() if row.held == "unknown"})

    def assert_row(self, number: str, checked: dict[str, Any], done: dict[str, Any], again: dict[str, Any]) -> None:
        """What check mode, the real run and the one after it gave is what the row says."""
        row = self.numbers[number]
        name, dummy, status = row.held.partition("-")
        facts = {
            "reason": row.reason,
            "changed": row.reason != "up_to_date",
            "previous_fingerprint": row.previous and self.keys[row.previous].fingerprint,
            "held_fingerprint": self.keys[name].fingerprint if name in self.keys else None,
            "held_status": None if name not in self.keys or status == "no-status" else status or "valid",
        }
        for result in (checked, done):
            assert {name: result[name] for name in facts} == facts, row
        assert done.get("diff") == checked.get("diff"), row
        # Confirmed by what was read again, unless it cannot be read.
        assert done["verified"] is (True if facts["changed"] and row.held != "unknown" else None), row
        assert again["changed"] is False, row
        record = self.record(number)
        assert (record["fingerprint"], record["state"]) == (self.keys["wanted"].fingerprint, "confirmed"), row

    def record_path(self, number: str) -> Path:
        (path,) = self.cache.glob(f"*{number}.json")
        return path

    def record(self, number: str) -> dict[str, Any]:
        fields: dict[str, Any] = json.loads(self.record_path(number).read_text())
        return fields

    def requests(self, number: str) -> list[str]:
        """Methods of the requests about this number's key, in order."""
        return [request["method"] for request in self.simulator.requests() if request["phone_number"] == number]
