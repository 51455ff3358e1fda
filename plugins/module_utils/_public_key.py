# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads an RSA public key, and rejects everything else."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import hashlib
import math
import re
import typing as t

from ._errors import InvalidInput
from ._libraries import load_cryptography

# The PEM of an RSA-2048 key has 451 characters; the rest is for white space.
MAX_CHARACTERS = 16 * 1024

# Without a command that could overwrite a private key.
_MAKE = (
    "Create a key pair at a new path with the role kaleyra.whatsapp.flows_encryption, or with community.crypto.openssl_privatekey (size 2048) and "
    "openssl_publickey."
)
_FROM_PRIVATE = "openssl pkey -in private.pem -pubout"
_FROM_SSH = "ssh-keygen -e -m PKCS8 -f FILE"
_FROM_PUTTY = "puttygen FILE -O public-openssh | ssh-keygen -e -m PKCS8 -f /dev/stdin"
_FROM_SSH2 = "ssh-keygen -i -f FILE | ssh-keygen -e -m PKCS8 -f /dev/stdin"
_BLOCK = re.compile(r"-----BEGIN PUBLIC KEY-----([A-Za-z0-9+/=\s]*)-----END PUBLIC KEY-----")
_LABEL = re.compile(r"-----BEGIN ([A-Z0-9 ]{1,40})-----")
_PRIVATE = re.compile(r"PRIVATE\s*KEY|PRIVATE-", re.IGNORECASE)
# No prime factor of a modulus may be smaller.
_SMALL = 2000
_ID_RSASSA_PSS = bytes.fromhex("06092a864886f70d01010a")

# Label of the PEM block -> what it is, and the command that prints the public key.
_OTHER_BLOCKS = {
    "RSA PUBLIC KEY": ("an RSA public key in PKCS#1", "openssl rsa -RSAPublicKey_in -in FILE -pubout"),
    "CERTIFICATE": ("a certificate", "openssl x509 -in FILE -noout -pubkey"),
    "TRUSTED CERTIFICATE": ("a certificate", "openssl x509 -in FILE -noout -pubkey"),
    "CERTIFICATE REQUEST": ("a certificate request", "openssl req -in FILE -noout -pubkey"),
    "EC PARAMETERS": ("parameters of an elliptic curve", _MAKE),
}


@dataclasses.dataclass(frozen=True)
class PublicKey:
    """A public key as it is sent.

    :param der: DER SubjectPublicKeyInfo (RFC 5280, 4.1)
    """

    der: bytes

    @property
    def pem(self) -> str:
        """PEM with lines of 64 characters (RFC 7468) and without the last newline."""
        text = base64.b64encode(self.der).decode("ascii")
        lines = [text[start : start + 64] for start in range(0, len(text), 64)]
        return "\n".join(["-----BEGIN PUBLIC KEY-----", *lines, "-----END PUBLIC KEY-----"])

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the DER, lower-case hex with colons, as ``openssl_publickey_info`` returns in ``fingerprints.sha256``."""
        return hashlib.sha256(self.der).digest().hex(":")

    def require_rsa_2048(self) -> None:
        """Verify with cryptography that this is an RSA key with 2048 bits, as the API requires.

        Not part of reading the key: if its fingerprint is known to be registered, no check is needed, and so no library.

        :raises InvalidInput: naming what was found
        :raises MissingLibrary: cryptography cannot be imported
        """
        found = self._found()
        if found:
            raise InvalidInput(f"The public key is {found}, but the API only accepts RSA with 2048 bits. {_MAKE}")

    def _found(self) -> str | None:
        serialization, unsupported = load_cryptography()
        try:
            key = serialization.load_der_public_key(self.der)
            same = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo) == self.der
        except (ValueError, TypeError, unsupported):
            return "a PRIVATE key under a wrong label" if self._is_private(serialization) else "damaged or of an unknown type"
        kind = type(key).__name__.lstrip("_").replace("PublicKey", "")
        if kind != "RSA":
            return f"of the type {kind}"
        # cryptography reads RSA-PSS keys as plain RSA keys, and writes them as such.
        if _ID_RSASSA_PSS in self.der[:32]:
            return "of the type RSA-PSS"
        if not same:
            return "not in DER, or followed by something else"
        if key.key_size != 2048:
            return f"RSA with {key.key_size} bits"
        numbers = key.public_numbers()
        return _weakness(numbers.n, numbers.e)

    def _is_private(self, serialization: t.Any) -> bool:
        try:
            return serialization.load_der_private_key(self.der, password=None) is not None
        except TypeError:  # encrypted
            return True
        except Exception:  # cryptography raises many kinds of errors for unreadable keys
            return False


def _weakness(modulus: int, exponent: int) -> str | None:
    """Return what makes an RSA key worthless, as far as cheap arithmetic can find out, or None."""
    if modulus & (modulus - 1) == 0:
        return "RSA with a power of two as its modulus, which anybody can factor"
    if modulus % 2 == 0:
        return "RSA with an even modulus, which anybody can factor"
    if exponent % 2 == 0 or not 3 <= exponent < 2**256:
        return "RSA with an invalid exponent (it must be odd, from 3 to 2^256)"
    if math.isqrt(modulus) ** 2 == modulus:
        return "RSA with a square as its modulus, which anybody can factor"
    common = math.gcd(modulus, math.prod(range(3, _SMALL, 2)))
    if common != 1:
        factor = next(each for each in range(3, _SMALL, 2) if common % each == 0)
        return f"RSA with a modulus that is divisible by {factor}, so it is not the product of two large primes"
    return None


def parse_public_key(text: str, source: str = "business_public_key") -> PublicKey:
    """Read a PEM, and repair what forms and shells do to it: CRLF, newlines at the ends, literal ``\\n``.

    :param source: the option, with the path of a file, for messages
    :raises InvalidInput: naming what was found, and the command that prints the public key; the text itself is never repeated
    """
    if len(text) > MAX_CHARACTERS:
        raise InvalidInput(f"{source}: expected a public key, found more than {MAX_CHARACTERS} characters. One for RSA-2048 has 451. {_MAKE}")
    text = text.lstrip("\ufeff").replace("\\r", "").replace("\\n", "\n").replace("\r", "\n").strip()
    block = _BLOCK.fullmatch(text)
    if not block:
        found, command = _what_is(text)
        remedy = command if command == _MAKE else f"This prints the public key: {command}"
        raise InvalidInput(f"{source}: expected one BEGIN PUBLIC KEY block, found {found}. {remedy}")
    try:
        return PublicKey(base64.b64decode("".join(block.group(1).split()), validate=True))
    except binascii.Error:
        raise InvalidInput(
            f"{source}: the base64 text is truncated or damaged. Decoding a form twice turns '+' into a space. "
            f"This prints the public key again: {_FROM_PRIVATE}"
        ) from None


def _what_is(text: str) -> tuple[str, str]:
    """Return what a text contains instead of one public key, and the command that prints one."""
    labels = _LABEL.findall(text)
    if re.fullmatch(r"[~./]\S*|\S+\.(pem|pub|key)", text):
        return "what looks like a path (use business_public_key_path for a path)", _FROM_PRIVATE
    if _PRIVATE.search(text):
        found = "a PRIVATE key. It was not sent, but it does not belong here: it must stay on the Flow endpoint"
        if "PuTTY" in text:
            return found, _FROM_PUTTY
        return found, _FROM_SSH if "OPENSSH" in text else _FROM_PRIVATE
    if len(labels) > 1:
        return f"{len(labels)} PEM blocks ({', '.join(labels[:3])})", _FROM_PRIVATE
    if labels and labels[0] in _OTHER_BLOCKS:
        return _OTHER_BLOCKS[labels[0]]
    if "SSH2 PUBLIC KEY" in text:
        return "a key in SSH2's format", _FROM_SSH2
    if "ssh-" in text:
        return "a key in OpenSSH's format", _FROM_SSH
    if not text:
        return "nothing", _FROM_PRIVATE
    if labels == ["PUBLIC KEY"]:
        return "one that is truncated or surrounded by other text", _FROM_PRIVATE
    return "no PEM", _FROM_PRIVATE


def read_public_key(path: str) -> PublicKey:
    """Read the PEM file of the option ``business_public_key_path``.

    :raises InvalidInput: as :func:`parse_public_key`, and for a file that cannot be read
    """
    source = f"business_public_key_path {path}"
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_CHARACTERS + 1)
        return parse_public_key(content.decode("utf-8"), source)
    except UnicodeDecodeError:
        raise InvalidInput(
            f"{source}: expected one BEGIN PUBLIC KEY block, found binary data. "
            "If it is a public key in DER, this prints it in PEM: openssl pkey -pubin -inform DER -in FILE"
        ) from None
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the path
        cause = getattr(exc, "strerror", exc)
        raise InvalidInput(f"{source} cannot be read: {cause}. Set it to the path of a public key. {_MAKE}") from exc


def public_key_of(params: t.Mapping[str, t.Any]) -> PublicKey:
    """Read the key of a task's option ``business_public_key`` or ``business_public_key_path``.

    :raises InvalidInput: as :func:`read_public_key`
    """
    if params["business_public_key"]:
        return parse_public_key(params["business_public_key"])
    return read_public_key(params["business_public_key_path"])


def normalise_fingerprint(text: str, option: str = "known_fingerprint") -> str:
    """Return a SHA-256 fingerprint as lower-case hex with colons; upper case and missing colons are accepted.

    :raises InvalidInput: for anything else
    """
    digits = text.strip().lower().replace(":", "")
    if not re.fullmatch(r"[0-9a-f]{64}", digits):
        raise InvalidInput(
            f"{option} {text[:100]!r} is not a SHA-256 fingerprint. Use 64 hex digits, as this module returns in fingerprint."
        )
    return bytes.fromhex(digits).hex(":")
