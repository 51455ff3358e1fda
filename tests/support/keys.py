# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Keys as OpenSSL's own command makes and reads them."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path


def openssl_bytes(*arguments: str | Path, stdin: bytes = b"") -> bytes:
    """What ``openssl`` prints."""
    return subprocess.run(["openssl", *map(str, arguments)], input=stdin, check=True, capture_output=True).stdout


def openssl(*arguments: str | Path, stdin: str = "") -> str:
    """What ``openssl`` prints, as text."""
    return openssl_bytes(*arguments, stdin=stdin.encode()).decode()


def fingerprint_of(public_pem: str) -> str:
    """SHA-256 of the DER SubjectPublicKeyInfo in lower-case hex with colons, by ``openssl`` alone."""
    der = openssl_bytes("pkey", "-pubin", "-outform", "DER", stdin=public_pem.encode())
    return openssl_bytes("dgst", "-sha256", "-c", stdin=der).decode().rpartition("= ")[2].strip()


def public_of(private: Path, passphrase: str = "") -> str:
    """The public key of a private key's file; fails for anything else."""
    return openssl("pkey", "-in", private, "-passin", f"pass:{passphrase}", "-pubout")


@dataclasses.dataclass(frozen=True)
class KeyPair:
    """A key pair as ``openssl`` makes it, PKCS#8."""

    private: str
    public: str

    @classmethod
    def make(cls, algorithm: str, *options: str) -> KeyPair:
        pkeyopts = [part for option in options for part in ("-pkeyopt", option)]
        private = openssl("genpkey", "-algorithm", algorithm, *pkeyopts)
        return cls(private, openssl("pkey", "-pubout", stdin=private))

    @property
    def fingerprint(self) -> str:
        return fingerprint_of(self.public)


def secret_lines(private_pem: str) -> list[str]:
    """The base64 lines of a private key, as they must stand nowhere. The first of PKCS#8 is little more than its kind."""
    return [line for line in private_pem.split("\n")[2:] if len(line) == 64]
