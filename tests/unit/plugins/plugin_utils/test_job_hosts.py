# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The hosts of a job, for each type that AWX's answers come in, and what makes a job fail."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.kaleyra.whatsapp.plugins.filter.flows_job_hosts import flows_job_hosts

GROUPS = {"numbers": ["+919876543210", "+919876543211"]}


class NeedsAHost(list[Any]):
    """The role's default, which is not known before there is a host."""

    def __iter__(self) -> Iterator[Any]:
        raise ValueError("'inventory_hostname' is undefined")


@pytest.mark.parametrize("typed", ["+919876543210", "919876543210", 919876543210, "+39 333\r\n\r\n+39 334,", ["+919876543210"], [919876543210]])
@pytest.mark.parametrize("groups", [GROUPS, {}])
def test_job_hosts_numbers_typed_run_once(typed: Any, groups: dict[str, list[str]]) -> None:
    assert flows_job_hosts(typed, "numbers", groups) == "localhost"


@pytest.mark.parametrize("typed", ["", " \n", None, [], NeedsAHost([1])])
def test_job_hosts_nothing_typed_is_the_group(typed: Any) -> None:
    assert flows_job_hosts(typed, "numbers", GROUPS, "+919876543210") == "numbers"
    assert flows_job_hosts(typed, "numbers", {}, is_slice=True) == "numbers"
    with pytest.raises(AnsibleFilterError, match="Nothing to register: .* no host in the group numbers"):
        flows_job_hosts(typed, "numbers", {"all": ["web1"]})
    assert flows_job_hosts(typed, "numbers", {"all": []}) == "localhost"  # whose name is no number


@pytest.mark.parametrize("typed", [True, False, "yes", ", ;", "all"])
def test_job_hosts_typed_text_without_number_fails(typed: Any) -> None:
    with pytest.raises(AnsibleFilterError, match=f"flows_encryption_phone_numbers is '{typed}'"):
        flows_job_hosts(typed, "numbers", GROUPS)


def test_job_hosts_numbers_typed_under_a_limit_fail() -> None:
    with pytest.raises(AnsibleFilterError, match=r"set only one of the two\.$"):
        flows_job_hosts(919876543210, "numbers", GROUPS, "+919876543211")
