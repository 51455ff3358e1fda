# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._errors import InvalidInput
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._graph_api import GraphApi, check_fields, make_graph_api
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._reader import Reader
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._waba_hosts import could_be_template, hosts_of
from support.simulator.client import Simulator, waba_numbers

TOKEN = "EAAtoken"
NUMBERS = ["+919876543210", "+919876543211", "+919876543212"]


@pytest.fixture
def api(simulator: Simulator) -> GraphApi:
    simulator.configure(access_token=TOKEN, wabas={"1001": waba_numbers(NUMBERS[:2], status="CONNECTED", x=1), "1002": waba_numbers(NUMBERS[2:])})
    return make_graph_api(f"{simulator.url}/v23.0", TOKEN, Reader(20, 0))


def no_warning(text: str) -> None:
    pytest.fail(text)


def test_hosts_are_numbers_with_prefixed_fields(api: GraphApi) -> None:
    hosts = hosts_of(api, ["1001", "1002"], ["status"], no_warning)
    assert list(hosts) == NUMBERS
    assert hosts[NUMBERS[0]] == {
        "waba_id": "1001",
        "waba_phone_number_id": "2000001",
        "waba_display_phone_number": "+91 987-6543210",
        "waba_status": "CONNECTED",
    }
    assert "waba_status" not in hosts[NUMBERS[2]]


def test_more_fields_make_smaller_pages(api: GraphApi, simulator: Simulator) -> None:
    hosts_of(api, ["1001"], [f"field{n}" for n in range(48)], no_warning)
    hosts_of(api, ["1001"], [], no_warning)
    assert [request["path"].rpartition("=")[2] for request in simulator.requests()] == ["8", "100"]


def test_number_that_is_listed_twice_is_an_error(api: GraphApi, simulator: Simulator) -> None:
    simulator.configure(wabas={"1001": waba_numbers(NUMBERS), "1002": waba_numbers(NUMBERS[2:], first_id=7)})
    with pytest.raises(InvalidInput, match=r"\+919876543212 is listed twice: as phone number ID 2000003 by .* 1001, and as 7 by 1002"):
        hosts_of(api, ["1001", "1002"], [], no_warning)


def test_entry_without_number_is_a_warning(api: GraphApi, simulator: Simulator) -> None:
    listed: list[Any] = [{"id": "5"}, *waba_numbers(NUMBERS[:1])]
    simulator.faults({"1001": [{"do": "answer", "status": 200, "body": {"data": listed}}]})
    warnings: list[str] = []
    assert list(hosts_of(api, ["1001"], [], warnings.append)) == NUMBERS[:1]
    assert len(warnings) == 1 and "1001" in warnings[0]


@pytest.mark.parametrize("name", ["", "a,b", "a{b}", "Id", "a&b=c"])
def test_other_name_of_a_field_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="fields"):
        check_fields(["status", name], "fields")


@pytest.mark.parametrize(
    ("value", "expected"),
    [("Shop {{ x }}", True), ("{% x %}", True), ({"a": ["{# x"]}, True), ("Shop {1}", False), ({"a": {"b": {}}}, False), (None, False)],
)
def test_could_be_template(value: Any, expected: bool) -> None:
    assert could_be_template(value) is expected
