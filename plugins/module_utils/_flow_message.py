# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Encrypts a message of a Flow as WhatsApp's client does, and decrypts the endpoint's response.

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


class InvalidEndpointResponse(Exception):
    """WhatsApp's client could not read this response.

    :param cause: the result's ``cause``, such as ``not_base64``
    :param message: what is wrong, and what the endpoint should do
    """

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause


class FlowMessage:
    """One encrypted request, with its own AES key and initialisation vector (IV).

    :param rsa_key: cryptography's public key to encrypt with
    :param content: JSON object to send
    :ivar body: of the HTTP request
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

    def read(self, response: bytes) -> dict[str, t.Any]:
        """Decrypt the endpoint's response and return the JSON object in it.

        :param response: body of the HTTP response
        :raises InvalidEndpointResponse: naming what is wrong with it
        """
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        data = _decode(response.strip())
        inverted = bytes(byte ^ 0xFF for byte in self._iv)
        try:
            return _parse_object(AESGCM(self._aes_key).decrypt(inverted, data, None))
        except InvalidTag:
            pass
        # What decrypts it shows the endpoint's mistake.
        try:
            AESGCM(self._aes_key).decrypt(self._iv, data, None)
        except InvalidTag:
            pass
        else:
            raise InvalidEndpointResponse(
                "iv_not_inverted", "it is encrypted with the unchanged IV of the request. Invert every bit of the IV before encrypting the response"
            )
        for iv, also in ((inverted, ""), (self._iv, ", and invert every bit of the IV")):
            if any(self._begins_with_json(iv, part) for part in (data, data[_TAG_BYTES:])):
                raise InvalidEndpointResponse(
                    "wrong_tag", f"its authentication tag is missing or wrong. Append GCM's 16-byte tag to the encrypted text{also}"
                )
        raise InvalidEndpointResponse(
            "not_decryptable", "it is not encrypted with the AES key of the request. Use the decrypted AES key, AES-128-GCM and the inverted IV"
        )

    def _begins_with_json(self, iv: bytes, data: bytes) -> bool:
        """Whether the data, decrypted without checking the tag, begins with a JSON object."""
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

        text = Cipher(algorithms.AES(self._aes_key), modes.GCM(iv)).decryptor().update(data).decode("latin-1")
        try:
            content, dummy = json.JSONDecoder(strict=False).raw_decode(text.lstrip())
        except (ValueError, RecursionError):
            return False
        # Random bytes can begin with "{}".
        return isinstance(content, dict) and bool(content)


def make_ping(rsa_key: t.Any) -> FlowMessage:
    """Return the health check that WhatsApp sends."""
    return FlowMessage(rsa_key, {"version": "3.0", "action": "ping"})


def rsa_key_of(key: PublicKey) -> t.Any:
    """Return the key as cryptography's object.

    :raises InvalidInput: it is not RSA with 2048 bits
    """
    key.require_rsa_2048()
    return load_cryptography()[0].load_der_public_key(key.der)


def make_foreign_rsa_key() -> t.Any:
    """Return a public key whose private key nobody holds."""
    load_cryptography()
    from cryptography.hazmat.primitives.asymmetric import rsa

    return rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()


def _decode(response: bytes) -> bytes:
    try:
        data = base64.b64decode(response, validate=True)
    except binascii.Error:
        data = b""
    clear = _parse(response)
    if isinstance(clear, str):
        raise InvalidEndpointResponse("not_base64", "its base64 text is in quotes, as a JSON string. Send it as plain text")
    if isinstance(clear, (dict, list, bool)) or response == b"null":
        raise InvalidEndpointResponse("clear_json", "it is unencrypted JSON. Encrypt the JSON, and send it as base64 in plain text")
    if not data:
        what = "it is not base64 (the alphabet with + and /, on one line)" if response else "it is empty"
        raise InvalidEndpointResponse("not_base64", f"{what}. Send the encrypted response as base64 in plain text")
    return data


def _parse_object(data: bytes) -> dict[str, t.Any]:
    content = _parse(data)
    if not isinstance(content, dict):
        raise InvalidEndpointResponse("not_json", "its decrypted content is not a JSON object")
    return content


def _parse(data: bytes) -> t.Any:
    """Return the content of the JSON text, None if it is not JSON."""
    try:
        return json.loads(data.decode())
    except (ValueError, RecursionError):
        return None
