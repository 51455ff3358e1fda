# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Imports requests and cryptography only when they are needed."""

from __future__ import annotations

import mmap
import sys
import typing as t

from ._errors import MissingLibrary

# Ansible forks a worker for each host, and the import takes longer than everything else that a worker does. This byte is
# shared with the parent: once a worker has needed the libraries, the parent imports them for all later workers.
_needed = mmap.mmap(-1, 1)


def load_requests() -> t.Any:
    """Return the package requests.

    :raises MissingLibrary:
    """
    _needed[0] = 1
    try:
        import requests
    except ImportError as exc:
        raise _missing("requests", exc) from exc
    return requests


def load_cryptography() -> tuple[t.Any, type[Exception]]:
    """Return cryptography's module ``serialization`` and its exception ``UnsupportedAlgorithm``.

    :raises MissingLibrary:
    """
    _needed[0] = 1
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives import serialization
    except ImportError as exc:
        raise _missing("cryptography", exc) from exc
    return serialization, UnsupportedAlgorithm


def load_if_needed() -> None:
    """Load both libraries if a worker has needed them; called in the parent before it forks."""
    if _needed[0] and "requests" not in sys.modules:
        try:
            load_requests()
            load_cryptography()
        except MissingLibrary:
            _needed[0] = 0


def _missing(name: str, cause: ImportError) -> MissingLibrary:
    return MissingLibrary(
        f"The Python library {name} cannot be imported by {sys.executable} ({cause}). "
        f"Install it there ({sys.executable} -m pip install {name}), or set ansible_python_interpreter to a Python that has it."
    )
