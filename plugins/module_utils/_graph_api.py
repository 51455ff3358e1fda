# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The part of Meta's Graph API that this collection uses. Only GET requests are sent."""

from __future__ import annotations

import dataclasses
import re
import typing as t
from urllib.parse import parse_qs, urlencode, urlsplit

from ._account import normalise_api_url
from ._errors import InvalidInput, KaleyraError
from ._held_key import HeldKey, meta_error, read_meta_answer
from ._http import Answer, prepare
from ._json import parse_object
from ._phone_number import normalise_phone_number
from ._reader import Reader, ReadingFailed
from ._steps import Steps, run_steps

META_API_URL = "https://graph.facebook.com/v23.0"

# A page has about 40 kB at most, if no field has more than a hundred bytes.
_FIELDS_IN_A_PAGE, _NUMBERS_IN_A_PAGE = 400, 100
# For one account: far more numbers than it can have.
_MAX_PAGES = 1000

_ID = re.compile(r"[0-9]{1,32}")
_FIELD = re.compile(r"[a-z][a-z0-9_]{0,63}")
_VISIBLE = re.compile(r"[!-~]+")


class GraphApiError(KaleyraError):
    """The Graph API could not be read. The message is the cause and what to do."""


@dataclasses.dataclass(frozen=True)
class GraphApi:
    """Reads from one host with one access token.

    :param base_url: normalised by :func:`make_graph_api`
    :param access_token: secret
    """

    base_url: str
    access_token: str = dataclasses.field(repr=False)
    reader: Reader = Reader()

    @property
    def host(self) -> str:
        return self.base_url.partition("://")[2].partition("/")[0]

    def prepare(self) -> None:
        """Load what the first request needs.

        :raises InvalidInput: ``ca_path`` cannot be used
        :raises MissingLibrary: requests cannot be imported
        """
        prepare(self.base_url, self.reader.tls)

    def held_key(self, phone_number_id: str) -> Steps[tuple[HeldKey, int]]:
        """Return which key the number carries, and the number of requests sent.

        :source: Meta, Cloud API, "Business Encryption API"
        """
        try:
            answer, attempts = yield from self._get(f"{phone_number_id}/whatsapp_business_encryption")
        except ReadingFailed as exc:
            return HeldKey(unknown=f"{self.host} gave no answer: {exc}."), exc.attempts
        held = read_meta_answer(answer.status, answer.body, self.access_token)
        return dataclasses.replace(held, unknown=held.unknown and f"{self.host} answered {held.unknown}"), attempts

    def phone_numbers(self, waba_id: str, fields: t.Sequence[str] = ("id", "display_phone_number")) -> tuple[list[dict[str, t.Any]], int]:
        """Return the fields of all numbers of a WhatsApp Business Account, and the number of requests sent.

        Pages are requested by cursor and never by the URL in the answer, so that the token is sent to the configured host alone.

        :raises GraphApiError: a page could not be read; ``details`` has the ``attempts``
        :source: Meta, WhatsApp Business Management API, "Phone Numbers"; Graph API, "Paginated Results"
        """
        numbers: list[dict[str, t.Any]] = []
        attempts = 0
        query = {"fields": ",".join(fields), "limit": str(max(1, min(_NUMBERS_IN_A_PAGE, _FIELDS_IN_A_PAGE // len(fields))))}
        for page in range(_MAX_PAGES):
            if page:
                self.reader.rate_limiter.wait()
            try:
                answer, sent = run_steps(self._get(f"{waba_id}/phone_numbers?{urlencode(query, safe=',')}"), self.reader.rate_limiter)
            except ReadingFailed as exc:
                raise self._error(waba_id, f"{self.host} gave no answer: {exc}.", attempts + exc.attempts) from exc
            attempts += sent
            content = parse_object(answer.body)
            error = meta_error(content, self.access_token)
            if error:
                raise self._error(waba_id, f"{self.host} answered {error}. {error.remedy}".rstrip(), attempts)
            found = content.get("data") if content else None
            if answer.status != 200 or content is None or not isinstance(found, list):
                cause = f"{self.host} answered HTTP {answer.status}, which is not a list of phone numbers. Check meta_api_url."
                raise self._error(waba_id, cause, attempts)
            numbers.extend(number for number in found if isinstance(number, dict))
            after = _next_cursor(content)
            if after is None:
                return numbers, attempts
            if after == query.get("after"):
                break
            query["after"] = after
        raise self._error(waba_id, f"{self.host} returns an endless series of pages.", attempts)

    def _get(self, path: str) -> Steps[tuple[Answer, int]]:
        def is_throttled(answer: Answer) -> bool:
            error = meta_error(parse_object(answer.body), self.access_token) if answer.status != 200 else None
            return error is not None and error.is_throttling

        return self.reader.get(f"{self.base_url}/{path}", {"Authorization": f"Bearer {self.access_token}"}, is_throttled=is_throttled)

    def _error(self, waba_id: str, cause: str, attempts: int) -> GraphApiError:
        return GraphApiError(f"The numbers of the WhatsApp Business Account {waba_id} could not be read: {cause}", attempts=attempts)


def make_graph_api(api_url: str | None, access_token: str, reader: Reader) -> GraphApi:
    """Check the options ``meta_api_url`` and ``meta_access_token``, which become part of a URL and of a header.

    :raises InvalidInput: naming the option; a token is never repeated
    """
    if not _VISIBLE.fullmatch(access_token):
        raise InvalidInput(
            "meta_access_token contains a space, a line break or another character that is not possible in an HTTP header. "
            "Copy it again from Meta's Business settings."
        )
    url = normalise_api_url(api_url or META_API_URL, option="meta_api_url", example=META_API_URL, what="access token")
    return GraphApi(url, access_token, reader)


def check_waba_ids(waba_ids: t.Iterable[t.Any], option: str) -> list[str]:
    """Return the IDs of WhatsApp Business Accounts, each once.

    :raises InvalidInput: one of them is not a number
    """
    checked = dict.fromkeys(str(waba_id).strip() for waba_id in waba_ids)
    for waba_id in checked:
        if not _ID.fullmatch(waba_id):
            raise InvalidInput(
                f"{option}: {waba_id[:40]!r} is not the ID of a WhatsApp Business Account, which is a number. Copy it from WhatsApp Manager."
            )
    return list(checked)


def check_fields(fields: t.Iterable[str], option: str) -> list[str]:
    """Return the names of fields of a phone number, each once.

    :raises InvalidInput: one of them is not a name
    """
    checked = dict.fromkeys(fields)
    for name in checked:
        if not _FIELD.fullmatch(name):
            raise InvalidInput(f"{option}: {name[:40]!r} is not the name of a field. Names have lower-case letters, digits and underscores.")
    return list(checked)


def number_with_id(listed: t.Mapping[str, t.Any]) -> tuple[str, str] | None:
    """Return the number in E.164 and the ID of a number that the Graph API lists, None if one of them is missing."""
    number, phone_number_id = listed.get("display_phone_number"), listed.get("id")
    if not isinstance(number, str) or not is_object_id(phone_number_id):
        return None
    try:
        return normalise_phone_number(number), str(phone_number_id)
    except InvalidInput:
        return None


def is_object_id(value: t.Any) -> bool:
    """Whether a value can be the ID of an object of the Graph API."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def _next_cursor(content: t.Mapping[str, t.Any]) -> str | None:
    """Return the cursor of the next page, None after the last one."""
    paging = content.get("paging")
    if not isinstance(paging, dict) or not isinstance(paging.get("next"), str):
        return None
    cursors = paging.get("cursors")
    after = cursors.get("after") if isinstance(cursors, dict) else None
    if not isinstance(after, str) or not after:
        try:
            return (parse_qs(urlsplit(paging["next"]).query).get("after") or [""])[-1] or None
        except ValueError:
            return None
    return after
