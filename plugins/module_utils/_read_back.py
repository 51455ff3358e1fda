# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads back which key a number carries, from two sources behind one interface."""

from __future__ import annotations

import dataclasses
import os
import typing as t

from ._account import Account
from ._errors import InvalidInput
from ._graph_api import GraphApi, GraphApiError, check_waba_ids, is_object_id, make_graph_api, number_with_id
from ._held_key import HeldKey, read_kaleyra_answer
from ._http import Tls
from ._phone_number import normalise_phone_number
from ._rate_limit import RateLimiter
from ._reader import Reader, ReadingFailed
from ._steps import Steps

SOURCES = ("meta", "kaleyra")


class ReadBack(t.Protocol):
    """A source from which the key of a number can be read."""

    def prepare(self, phone_numbers: t.Sequence[str]) -> int:
        """Load and look up what is needed to read these numbers, once for all of them; return the number of requests sent."""

    def read(self, phone_number: str) -> Steps[tuple[HeldKey, int]]:
        """Return what the number carries, and the number of requests sent.

        :raises InvalidInput: the source does not know the number; nothing was sent
        """


@dataclasses.dataclass(frozen=True)
class KaleyraReadBack:
    """GET requests to the URL that sets the key. Kaleyra has not published the answer, so some answers cannot be read."""

    account: Account
    reader: Reader

    def prepare(self, phone_numbers: t.Sequence[str]) -> int:
        return 0

    def read(self, phone_number: str) -> Steps[tuple[HeldKey, int]]:
        headers = {"api-key": self.account.api_key, "Content-Type": "application/x-www-form-urlencoded"}
        try:
            answer, attempts = yield from self.reader.get(self.account.url(phone_number), headers)
        except ReadingFailed as exc:
            return HeldKey(unknown=f"{self.account.api} gave no answer: {exc}."), exc.attempts
        held = read_kaleyra_answer(answer.status, answer.body, self.account.api_key)
        return dataclasses.replace(held, unknown=held.unknown and f"{self.account.api} answered {held.unknown}"), attempts


class MetaReadBack:
    """The Graph API.

    :param phone_number_ids: number in E.164 -> its ID, for numbers whose IDs are known
    """

    def __init__(self, api: GraphApi, waba_ids: t.Sequence[str], phone_number_ids: t.Mapping[str, str]) -> None:
        self._api = api
        self._waba_ids = waba_ids
        self._places: dict[str, list[tuple[str, str]]] = {number: [("", each)] for number, each in phone_number_ids.items()}
        self._unread: list[str] = []

    def prepare(self, phone_numbers: t.Sequence[str]) -> int:
        """Look up the IDs of the numbers, unless all are known: some pages for each WhatsApp Business Account."""
        self._api.prepare()
        if all(number in self._places for number in phone_numbers):
            return 0
        attempts = 0
        known = set(self._places)
        for waba_id in self._waba_ids:
            self._api.reader.rate_limiter.wait()
            try:
                listed, sent = self._api.phone_numbers(waba_id)
            except GraphApiError as exc:
                attempts += exc.details["attempts"]
                self._unread.append(str(exc))
                continue
            attempts += sent
            for number, phone_number_id in filter(None, map(number_with_id, listed)):
                if number not in known:
                    self._places.setdefault(number, []).append((waba_id, phone_number_id))
        return attempts

    def read(self, phone_number: str) -> Steps[tuple[HeldKey, int]]:
        places = self._places.get(phone_number, [])
        if len(places) > 1:
            listed = ", ".join(f"{phone_number_id} in {waba_id}" for waba_id, phone_number_id in places)
            raise InvalidInput(
                f"{phone_number} is listed more than once by meta_waba_ids (phone number ID {listed}), so it is not clear which one is in use. "
                "Remove the account that the number has left."
            )
        if self._unread and not places:
            return HeldKey(unknown=" ".join(self._unread)), 0
        if not places:
            raise InvalidInput(
                f"{phone_number} is in none of the WhatsApp Business Accounts of meta_waba_ids ({', '.join(self._waba_ids) or 'none is set'}). "
                "Add the account that the number belongs to."
            )
        return (yield from self._api.held_key(places[0][1]))


def make_read_back(params: t.Mapping[str, t.Any], account: Account | None, rate_limiter: RateLimiter) -> ReadBack | None:
    """Return the source that the options choose, None for none.

    :param params: the module's options, None for those that are not set
    :param account: only needed for ``kaleyra``
    :raises InvalidInput: an option cannot be used
    """
    source = params["read_back"]
    if source == "none":
        if params["read_back_required"]:
            raise InvalidInput("read_back_required needs a source. Set read_back to meta or kaleyra, or remove read_back_required.")
        return None
    reader = Reader(params["timeout"], params["retries"], Tls(params["validate_certs"], params["ca_path"]), rate_limiter)
    if source == "kaleyra":
        if not account:
            raise AssertionError("no account")
        return KaleyraReadBack(account, reader)
    if not params["meta_access_token"]:
        raise InvalidInput("read_back=meta needs meta_access_token (or META_ACCESS_TOKEN in the environment).")
    waba_ids = check_waba_ids(_given_waba_ids(params["meta_waba_ids"]), "meta_waba_ids")
    phone_number_ids = _check_phone_number_ids(params["meta_phone_number_ids"] or {})
    if not waba_ids and not phone_number_ids:
        raise InvalidInput("read_back=meta needs meta_waba_ids (or META_WABA_IDS in the environment), or meta_phone_number_ids.")
    api = make_graph_api(params["meta_api_url"], params["meta_access_token"], reader)
    return MetaReadBack(api, waba_ids, phone_number_ids)


def _given_waba_ids(given: t.Sequence[str] | None) -> list[str]:
    """Return the IDs of the task, or those of the environment. Blank values, as credential forms give them, are ignored."""
    return [each for each in (part.strip() for part in given or os.environ.get("META_WABA_IDS", "").split(",")) if each]


def _check_phone_number_ids(given: t.Mapping[str, t.Any]) -> dict[str, str]:
    checked = {}
    for number, phone_number_id in given.items():
        if phone_number_id is None or phone_number_id == "":
            continue
        if not is_object_id(str(phone_number_id)):
            raise InvalidInput(f"meta_phone_number_ids: {str(phone_number_id)[:40]!r} is not the ID of a phone number, which is a number.")
        checked[normalise_phone_number(str(number))] = str(phone_number_id)
    return checked
