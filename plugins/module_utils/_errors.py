# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The errors of the collection, and the range check of options."""

from __future__ import annotations

import typing as t


class KaleyraError(Exception):
    """An error for the user. Its message explains what happened and what to do.

    :param why: the message, without secrets
    :param details: further public fields for the task's result
    """

    def __init__(self, why: str, /, **details: t.Any) -> None:
        super().__init__(why)
        self.details = details


class InvalidInput(KaleyraError):
    """The value of an option cannot be used; nothing was sent."""


class MissingLibrary(KaleyraError):
    """A Python library is missing; nothing was sent."""


class RecordError(KaleyraError):
    """The record cannot be kept under ``cache_path``; nothing was sent."""


class RecordBusy(RecordError):
    """Another process or thread registers the number."""


class KeyPairError(KaleyraError):
    """A file of the key pair is missing, cannot be read, or is not what the plan was made from; it was not changed."""


class KeyNotRead(KaleyraError):
    """The key that a number carries could not be read; nothing was registered."""


class VerificationFailed(KaleyraError):
    """The Flow endpoint did not answer as one that holds the private key; ``cause`` is the reason in one word."""


class SomeFailed(KaleyraError):
    """Some of many numbers failed; ``details`` has the result of each."""


class ApiError(KaleyraError):
    """The API did not confirm the key. ``outcome`` is what that means for the number."""

    outcome: t.ClassVar[str]

    def __init__(self, why: str, /, **details: t.Any) -> None:
        super().__init__(why, outcome=self.outcome, **details)


class Rejected(ApiError):
    """The API refused the key: the number keeps the one it had."""

    outcome = "rejected"


class OutcomeUnknown(ApiError):
    """The key may or may not have been registered."""

    outcome = "unknown"


def require_range(option: str, value: int | None, least: int, most: int | None = None) -> None:
    """Reject an option whose number is out of range. None, for an option that is not set, is accepted.

    :raises InvalidInput:
    """
    if value is not None and (value < least or (most is not None and value > most)):
        raise InvalidInput(f"{option} is {value}, but must be {f'from {least} to {most}' if most else f'{least} or more'}.")
