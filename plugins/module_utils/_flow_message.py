# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: it can change in any release.

"""A Flow's message as WhatsApp's client encrypts it, and the reading of its answer.

Source: Meta, "Implementing Endpoints for Flows", request decryption and encryption.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import typing as t

from ._libraries import load_cryptography
from ._public_key import PublicKey

_TAG_BYTES = 16


class Unreadable(Exception):
    """The answer is not what WhatsApp's client could read.

    :param cause: in one word
    :param what: happened, and what the endpoint should do
    """

    def __init__(self, cause: str, what: str) -> None:
        super().__init__(what)
        self.cause = cause


class FlowMessage:
    """One request, under an AES key and an initialisation vector of its own.

    :param rsa_key: of cryptography, the public key to encrypt under
    """

    def __init__(self, rsa_key: t.Any, content: dict[str, t.Any]) -> None:
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import padding
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._aes_key, self._iv = os.urandom(16), os.urandom(16)
        oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
        fields = {
            "encrypted_flow_data": AESGCM(self._aes_key).encrypt(self._iv, json.dumps(content).encode(), None),
            "encrypted_aes_key": rsa_key.encrypt(self._aes_key, oaep),
            "initial_vector": self._iv,
        }
        self.body = json.dumps({name: base64.b64encode(value).decode("ascii") for name, value in fields.items()}).encode()

    def read(self, answer: bytes) -> dict[str, t.Any]:
        """Return what the endpoint says.

        :raises Unreadable: naming what is wrong with the answer
        """
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        data = _decoded(answer.strip())
        inverted = bytes(byte ^ 0xFF for byte in self._iv)
        try:
            return _json_object(AESGCM(self._aes_key).decrypt(inverted, data, None))
        except InvalidTag:
            pass
        # What an endpoint's developer did wrong shows in what would decrypt it.
        try:
            AESGCM(self._aes_key).decrypt(self._iv, data, None)
        except InvalidTag:
            pass
        else:
            raise Unreadable(
                "iv_not_inverted", "it is encrypted with the request's IV as it was sent. Invert every bit of the IV before the answer is encrypted"
            )
        for iv, also in ((inverted, ""), (self._iv, "; and the IV's bits are not inverted")):
            if any(self._would_be_json(iv, part) for part in (data, data[_TAG_BYTES:])):
                raise Unreadable("wrong_tag", f"its authentication tag is missing or wrong. Put GCM's 16-byte tag behind the encrypted text{also}")
        raise Unreadable(
            "not_decryptable", "it is not encrypted under the AES key of the request. Use the decrypted AES key, AES-128-GCM and the inverted IV"
        )

    def _would_be_json(self, iv: bytes, data: bytes) -> bool:
        """Whether the data began with JSON if the tag did not count, whatever follows."""
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

        text = Cipher(algorithms.AES(self._aes_key), modes.GCM(iv)).decryptor().update(data).decode("latin-1")
        try:
            content, dummy = json.JSONDecoder(strict=False).raw_decode(text.lstrip())
        except (ValueError, RecursionError):
            return False
        # Not empty, as two bytes may be "{}" by chance.
        return isinstance(content, dict) and bool(content)


def make_ping(rsa_key: t.Any) -> FlowMessage:
    """The health check that WhatsApp sends."""
    return FlowMessage(rsa_key, {"version": "3.0", "action": "ping"})


def rsa_key_of(key: PublicKey) -> t.Any:
    """cryptography's form of the key.

    :raises InvalidInput: it is not RSA with 2048 bits
    """
    key.require_rsa_2048()
    return load_cryptography()[0].load_der_public_key(key.der)


def make_foreign_rsa_key() -> t.Any:
    """A public key whose private key nobody holds."""
    load_cryptography()
    from cryptography.hazmat.primitives.asymmetric import rsa

    return rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()


def _decoded(answer: bytes) -> bytes:
    if answer[:1] == b'"':
        raise Unreadable("not_base64", "its base64 text stands in quotes, as JSON. Send it as plain text")
    if answer[:1] in (b"{", b"[") or answer in (b"null", b"true", b"false"):
        raise Unreadable("clear_json", "it is JSON in clear. Encrypt the JSON, and send base64 as plain text")
    try:
        data = base64.b64decode(answer, validate=True)
    except binascii.Error:
        data = b""
    if not data:
        what = "it is empty" if not answer else "it is not base64 (the alphabet with + and /, in one line)"
        raise Unreadable("not_base64", f"{what}. Send the encrypted answer as base64 in plain text")
    return data


def _json_object(data: bytes) -> dict[str, t.Any]:
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise Unreadable("not_json", "what is encrypted in it is no JSON object")
    return content
