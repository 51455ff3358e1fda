# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one error tree of the collection, and the check that several options need."""

from __future__ import annotations

import typing as t


class KaleyraError(Exception):
    """What a user is told: the message says what happened and what to do.

    :param why: without secrets, ready to be shown
    :param details: further public facts for the task's result
    """

    def __init__(self, why: str, /, **details: t.Any) -> None:
        super().__init__(why)
        self.details = details


class InvalidInput(KaleyraError):
    """An option cannot be used as it is; nothing was sent."""


class MissingLibrary(KaleyraError):
    """A Python library is not there; nothing was sent."""


class RecordError(KaleyraError):
    """The record cannot be kept under ``cache_path``; nothing was sent."""


class RecordBusy(RecordError):
    """Another process or thread registers the number."""


class KeyPairError(KaleyraError):
    """A file of the key pair is missing, cannot be read, or is not what the plan was made from; it was not changed."""


class KeyNotRead(KaleyraError):
    """The key that a number carries could not be read; nothing was registered."""


class VerificationFailed(KaleyraError):
    """The Flow endpoint did not answer as one that holds the private key; ``cause`` says in one word why."""


class SomeFailed(KaleyraError):
    """Of many numbers some could not be registered; ``details`` tell of each."""


class ApiError(KaleyraError):
    """The API did not confirm the key. ``outcome`` says what that means for the number."""

    outcome: t.ClassVar[str]

    def __init__(self, why: str, /, **details: t.Any) -> None:
        super().__init__(why, outcome=self.outcome, **details)


class Rejected(ApiError):
    """The API refused: the number keeps the key it had."""

    outcome = "rejected"


class OutcomeUnknown(ApiError):
    """Nothing tells: the key may or may not have been registered."""

    outcome = "unknown"


def require_range(option: str, value: int | None, least: int, most: int | None = None) -> None:
    """Refuse an option's number that is out of bounds; None, for one that was not given, is not.

    :raises InvalidInput:
    """
    if value is not None and (value < least or (most is not None and value > most)):
        raise InvalidInput(f"{option} is {value}, but must be {f'from {least} to {most}' if most else f'{least} or more'}.")
