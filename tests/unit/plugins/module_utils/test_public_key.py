# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Public keys: what forms and shells do to a PEM is repaired, and everything else is refused with the command that gives the right thing."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._errors import InvalidInput
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._public_key import (
    PublicKey,
    _weakness,
    normalise_fingerprint,
    parse_public_key,
    read_public_key,
)
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from support.keys import openssl_bytes

Named = Callable[[str], str]
KeyFile = Callable[[str], Path]


def _accept(text: str) -> PublicKey:
    key = parse_public_key(text)
    key.require_rsa_2048()
    return key


def _refusal(text: str) -> str:
    with pytest.raises(InvalidInput) as caught:
        _accept(text)
    message = str(caught.value)
    assert message.isprintable() and len(message) < 600
    assert not caught.value.details
    return message


def _run_the_named_command(message: str, file: Path) -> PublicKey:
    """Follow the message, in the file's folder, and read what is printed. No command writes, so none can overwrite a key."""
    command = re.search(r"prints (?:the public key|it in PEM): ((?:openssl|ssh-keygen|puttygen) .*)$", message)
    assert command and not re.search(r"> | -out |-o ", command[1]), message
    file.chmod(0o600)
    done = subprocess.run(
        ["sh", "-c", command[1].replace("FILE", file.name)], cwd=file.parent, check=True, capture_output=True, stdin=subprocess.DEVNULL, text=True
    )
    return _accept(done.stdout)


def _body(pem: str) -> str:
    """A PEM's base64, without its labels."""
    return re.sub(r"-----[^-]*-----", "", pem)


def _labelled(der: bytes) -> str:
    return f"-----BEGIN PUBLIC KEY-----\n{base64.encodebytes(der).decode()}-----END PUBLIC KEY-----\n"


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda pem: pem, id="none"),
        pytest.param(lambda pem: pem.replace("\n", "\r\n"), id="crlf"),
        pytest.param(lambda pem: pem.replace("\n", "\r"), id="cr"),
        pytest.param(lambda pem: "\ufeff" + pem, id="bom"),
        pytest.param(lambda pem: "\ufeff" + pem.replace("\n", "\r\n"), id="bom-and-crlf"),
        pytest.param(lambda pem: pem.rstrip("\n"), id="no-last-newline"),
        pytest.param(lambda pem: "\n\n\n" + pem + "\n\n\n", id="many-newlines"),
        pytest.param(lambda pem: pem.replace("\n", "\n\n"), id="every-newline-twice"),
        pytest.param(lambda pem: pem.replace("\n", "\\n"), id="literal-newlines"),
        pytest.param(lambda pem: pem.replace("\n", "\\r\\n"), id="literal-crlf"),
        pytest.param(lambda pem: pem.replace("\n", "\\n") + "\n", id="literal-newlines-and-a-real-one"),
        pytest.param(lambda pem: pem.replace("\n", "\n    "), id="indented"),
        pytest.param(lambda pem: pem.replace("\n", "\t \n"), id="blanks-at-the-ends"),
        pytest.param(lambda pem: pem.replace("\n", " "), id="newlines-folded-to-blanks"),
        pytest.param(lambda pem: pem.replace("KEY-----\n", "KEY-----", 1).replace("\n-----END", "-----END"), id="labels-on-the-same-line"),
        pytest.param(lambda pem: re.sub("(?<=[^-])\n(?=[^-])", "", pem), id="base64-in-one-line"),
        pytest.param(lambda pem: re.sub(r"(.{76})", r"\1\n", re.sub("(?<=[^-])\n(?=[^-])", "", pem)), id="lines-of-76"),
    ],
)
def test_damage_by_forms_and_shells_is_repaired(damage: Callable[[str], str], public_pem: Named, fingerprint: Named, tmp_path: Path) -> None:
    pem = public_pem("rsa-2048")
    path = tmp_path / "public.pem"
    path.write_bytes(damage(pem).encode())
    for key in (_accept(damage(pem)), read_public_key(str(path))):
        assert key.pem == pem.rstrip("\n")
        assert key.fingerprint == fingerprint("rsa-2048")


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("rsa-2048-exponent-3", None),
        ("rsa-1024", "RSA with 1024 bits"),
        ("rsa-3072", "RSA with 3072 bits"),
        ("rsa-pss", "of the type RSA-PSS"),
        ("ec", "of the type E"),  # EC or EllipticCurve, as the release of cryptography has it
        ("ed25519", "of the type Ed25519"),
        ("dsa", "of the type DSA"),
    ],
)
def test_only_rsa_2048_may_be_sent(kind: str, found: str | None, public_pem: Named, fingerprint: Named) -> None:
    # Reading alone needs no library; the kind is checked before something is sent.
    assert parse_public_key(public_pem(kind)).fingerprint == fingerprint(kind)
    if found:
        message = _refusal(public_pem(kind))
        assert f"The public key is {found}" in message and "RSA with 2048 bits" in message
    else:
        _accept(public_pem(kind))


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda der: der + b"\0", id="followed-by-a-byte"),
        pytest.param(lambda der: der + der, id="twice"),
        pytest.param(lambda der: der[:-1], id="truncated"),
        pytest.param(lambda der: b"\0" + der, id="after-a-byte"),
        pytest.param(lambda der: der[24:], id="pkcs1-without-its-label"),
        pytest.param(lambda der: b"", id="empty"),
        pytest.param(lambda der: b"\x30\x80" + der[4:] + b"\0\0", id="indefinite-length"),
        pytest.param(lambda der: b"\x30\x83\0" + der[2:], id="length-not-in-its-shortest-form"),
    ],
)
def test_wrong_der_is_refused(damage: Callable[[bytes], bytes], public_pem: Named) -> None:
    assert "The public key is " in _refusal(_labelled(damage(parse_public_key(public_pem("rsa-2048")).der)))


_SQUARE = (2**1023 + 2**1022 + 1) ** 2


@pytest.mark.parametrize(
    ("modulus", "exponent", "found"),
    [
        pytest.param(2**2047, 65537, "power of two", id="power-of-two"),
        pytest.param(2**2047 + 2, 65537, "even modulus", id="even"),
        pytest.param(_SQUARE, 65537, "square", id="square"),
        pytest.param(1999 * (2**2037 + 1), 65537, "modulus that is divisible by ", id="small-factor"),
        *(pytest.param(2**2047 + 12345, exponent, "exponent", id=f"exponent-{exponent:x}") for exponent in (1, 2, 65536, 2**256 + 1)),
    ],
)
def test_weak_key_is_refused(modulus: int, exponent: int, found: str) -> None:
    assert modulus.bit_length() == 2048
    weakness = _weakness(modulus, exponent)
    assert weakness and found in weakness
    if modulus == _SQUARE:  # as a whole key
        pem = rsa.RSAPublicNumbers(exponent, modulus).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        assert weakness in _refusal(pem)


Make = Callable[[Path, str], str]
"""Text that people use instead of the public key, from the path of the private key and the public key."""


def _openssl(*command: str) -> Make:
    """What the command makes of the private key."""
    return lambda private, public: openssl_bytes(*command, "-in", private).decode()


def _as_public(*command: str) -> Make:
    """The same as DER, under the label of a public key."""
    return lambda private, public: _labelled(openssl_bytes(*command, "-in", private, "-outform", "DER"))


def _edited(edit: Callable[[str, str], str]) -> Make:
    """The private key after some change."""
    return lambda private, public: edit(private.read_text(), public)


def _ssh_keygen(*arguments: str) -> Make:
    """What ssh-keygen prints of the private key, or makes of a copy."""

    def make(private: Path, public: str) -> str:
        if not shutil.which("ssh-keygen"):
            pytest.skip("ssh-keygen is not here")
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder, "id")
            shutil.copy(private, copy)
            copy.chmod(0o600)
            done = subprocess.run(["ssh-keygen", "-q", *arguments, "-f", str(copy)], check=True, capture_output=True, text=True)
            return copy.read_text() if "-p" in arguments else done.stdout

    return make


def _request(private: Path, public: str) -> str:
    return openssl_bytes("req", "-new", "-key", private, "-subj", "/CN=flows").decode()


def _certificate(*options: str) -> Make:
    def make(private: Path, public: str) -> str:
        certificate = openssl_bytes("req", "-x509", "-new", "-key", private, "-subj", "/CN=flows", "-days", "2")
        return openssl_bytes("x509", *options, stdin=certificate).decode()

    return make


def _putty(private: Path, public: str) -> str:
    lines = base64.encodebytes(openssl_bytes("pkey", "-in", private, "-outform", "DER")).decode()
    return (
        f"PuTTY-User-Key-File-3: ssh-rsa\nEncryption: none\nComment: flows\nPublic-Lines: 6\n{_body(public).strip()}\n"
        f"Private-Lines: {lines.count(chr(10))}\n{lines}Private-MAC: {'0f' * 32}\n"
    )


_PASSPHRASE = ("-passout", "pass:secret")
_PRIVATE: dict[str, Make] = {
    "pkcs8": _openssl("pkey"),
    "pkcs1": _openssl("rsa", "-traditional"),
    "encrypted-pkcs8": _openssl("pkcs8", "-topk8", "-v2", "aes-256-cbc", *_PASSPHRASE),
    "encrypted-pkcs1": _openssl("rsa", "-aes256", "-traditional", *_PASSPHRASE),
    "openssh": _ssh_keygen("-p", "-N", ""),
    "putty": _putty,
    "ec": lambda private, public: openssl_bytes("ecparam", "-name", "prime256v1", "-genkey").decode(),
    "crlf": _edited(lambda private, public: private.replace("\n", "\r\n")),
    "in-one-line": _edited(lambda private, public: private.replace("\n", "\\n")),
    "folded": _edited(lambda private, public: private.replace("\n", " ")),
    "in-small-letters": _edited(lambda private, public: private.replace("BEGIN PRIVATE KEY", "begin private key")),
    "truncated": _edited(lambda private, public: private[:-200]),
    "before-the-public-key": _edited(lambda private, public: private + public),
    "after-the-public-key": _edited(lambda private, public: public + private),
    "inside-the-public-key": _edited(lambda private, public: public.replace("-----END", private + "-----END")),
    "with-a-public-end": _edited(lambda private, public: private.replace("END PRIVATE", "END PUBLIC")),
    "with-a-public-begin": _edited(lambda private, public: private.replace("BEGIN PRIVATE", "BEGIN PUBLIC")),
    "pkcs8-under-a-public-label": _as_public("pkey"),
    "pkcs1-under-a-public-label": _as_public("rsa", "-traditional"),
    "encrypted-under-a-public-label": _as_public("pkcs8", "-topk8", *_PASSPHRASE),
}


@pytest.mark.parametrize("form", _PRIVATE)
def test_private_key_is_refused_and_not_repeated(form: str, private_key: KeyFile, public_pem: Named, fingerprint: Named, tmp_path: Path) -> None:
    text, file = _PRIVATE[form](private_key("rsa-2048"), public_pem("rsa-2048")), tmp_path / "private.pem"
    file.write_bytes(text.encode())
    with pytest.raises(InvalidInput) as caught:
        read_public_key(str(file)).require_rsa_2048()
    for message in (_refusal(text), str(caught.value)):
        assert "a PRIVATE key" in message
        # Not even a part of one of its lines.
        for secret in re.findall(r"[A-Za-z0-9+/=]{16,}", text):
            for begin in range(0, len(secret) - 11, 12):
                assert secret[begin : begin + 12] not in message
    if form in ("pkcs8", "pkcs1", "openssh"):
        assert _run_the_named_command(_refusal(text), file).fingerprint == fingerprint("rsa-2048")


@pytest.mark.parametrize(
    ("make", "found"),
    [
        pytest.param(_certificate(), "a certificate.", id="certificate"),
        pytest.param(_certificate("-trustout"), "a certificate.", id="trusted-certificate"),
        pytest.param(_certificate("-text"), "a certificate.", id="certificate-with-text"),
        pytest.param(_request, "a certificate request.", id="certificate-request"),
        pytest.param(_openssl("rsa", "-RSAPublicKey_out"), "an RSA public key in PKCS#1.", id="pkcs1"),
        pytest.param(_ssh_keygen("-y"), "a key in OpenSSH's format.", id="openssh"),
        pytest.param(_ssh_keygen("-e"), "a key in ", id="ssh2"),
    ],
)
def test_other_form_has_a_command_that_converts_it(
    make: Make, found: str, private_key: KeyFile, public_pem: Named, fingerprint: Named, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text(make(private_key("rsa-2048"), public_pem("rsa-2048")))
    message = _refusal((tmp_path / "file").read_text())
    assert f"expected one BEGIN PUBLIC KEY block, found {found}" in message
    assert _run_the_named_command(message, tmp_path / "file").fingerprint == fingerprint("rsa-2048")


_PATH = "looks like a path (use business_public_key_path"


@pytest.mark.parametrize(
    ("make", "found"),
    [
        pytest.param(lambda pem: "", "nothing", id="empty"),
        pytest.param(lambda pem: " \r\n\\n", "nothing", id="blank"),
        pytest.param(lambda pem: pem + pem, "2 PEM blocks (PUBLIC KEY, PUBLIC KEY)", id="two-keys"),
        pytest.param(lambda pem: pem + pem.replace("PUBLIC KEY", "CERTIFICATE"), "2 PEM blocks (PUBLIC KEY, CERTIFICATE)", id="and-certificate"),
        pytest.param(lambda pem: pem.replace("PUBLIC KEY", "EC PARAMETERS"), "parameters of an elliptic curve", id="ec-parameters"),
        pytest.param(lambda pem: pem[:100] + "==" + pem[100:], "truncated or damaged", id="padding-in-the-middle"),
        pytest.param(lambda pem: pem.replace("+", " ", 1) if "+" in pem else pem[:100] + " " + pem[101:], "turns '+' into a space", id="lost-plus"),
        pytest.param(lambda pem: pem[:-40], "truncated", id="without-its-end"),
        pytest.param(lambda pem: "business_public_key=" + pem, "surrounded by other text", id="text-before"),
        pytest.param(lambda pem: pem + "# made today\n", "surrounded by other text", id="text-after"),
        pytest.param(lambda pem: pem.replace("\n", "\nMade: by hand\n\n", 1), "surrounded by other text", id="text-inside"),
        pytest.param(lambda pem: '"' + pem + '"', "surrounded by other text", id="quoted"),
        pytest.param(lambda pem: pem.replace("A", "%2B", 1), "surrounded by other text", id="url-encoded"),
        pytest.param(_body, "no PEM", id="without-labels"),
        pytest.param(lambda pem: pem.replace("PUBLIC KEY", "PUBLICKEY"), "no PEM", id="label-misspelt"),
        pytest.param(lambda pem: "\x00\x01\x02", "no PEM", id="bytes"),
        pytest.param(lambda pem: "{{ flows_public_key }}", "no PEM", id="template"),
        *(
            pytest.param(lambda pem, path=path: path, _PATH, id=path)
            for path in ("/etc/flows/public.pem", "~/public.pem", "./keys/flows", "public.pem", "/etc/flows/private-key.pem")
        ),
    ],
)
def test_other_text_is_named(make: Callable[[str], str], found: str, public_pem: Named) -> None:
    assert found in _refusal(make(public_pem("rsa-2048")))


def test_truncated_pem_is_refused_at_any_length(public_pem: Named) -> None:
    pem = public_pem("rsa-2048").rstrip("\n")
    for end in range(len(pem)):
        with pytest.raises(InvalidInput):
            _accept(pem[:end])


@pytest.mark.parametrize(
    "text",
    [
        *("A" * 3_000_000, "é" * 3_000_000, "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----\n" * 50_000),
        *("-----BEGIN " * 1400, "-----BEGIN PUBLIC KEY-----" * 600, "-----BEGIN PUBLIC KEY-----" + " " * 16_000 + "-----END PUBLIC KEY"),
        *("PRIVATE" + " " * 16_000, "PRIVATE " * 2000, "a." * 8000),
    ],
    ids=lambda text: f"{len(text)}-{text[:20]}",
)
def test_long_or_hard_text_is_refused_soon(text: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text(text)
    began = time.monotonic()
    assert ("more than 16384 characters" in _refusal(text)) is (len(text) > 16384)
    with pytest.raises(InvalidInput):
        read_public_key(str(tmp_path / "file"))
    assert time.monotonic() - began < 10


def test_der_file_has_a_command_that_converts_it(tmp_path: Path, public_pem: Named, fingerprint: Named) -> None:
    file = tmp_path / "public.der"
    file.write_bytes(openssl_bytes("pkey", "-pubin", "-outform", "DER", stdin=public_pem("rsa-2048").encode()))
    with pytest.raises(InvalidInput, match="found binary data") as caught:
        read_public_key(str(file))
    assert _run_the_named_command(str(caught.value), file).fingerprint == fingerprint("rsa-2048")


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "found nothing"), ("\ufeff-----BEGIN PUBLIC KEY-----".encode("utf-16"), "found binary data"), (b"\0" * 100, "no PEM")],
)
def test_file_without_pem_is_refused(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(InvalidInput, match=said):
        read_public_key(str(tmp_path / "file"))


@pytest.mark.parametrize(
    ("path", "cause"),
    [
        ("{}/missing.pem", r"missing\.pem cannot be read: No such file"),
        ("{}", "cannot be read: Is a directory"),
        ("{}/" + "x" * 300, "cannot be read: File name too long"),
        ("{}/a\0b", ""),
    ],
)
def test_unreadable_file_is_named_with_the_cause(path: str, cause: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=f"business_public_key_path .*{cause}"):
        read_public_key(path.format(tmp_path))


_FINGERPRINT = ":".join(f"{number:02x}" for number in range(160, 192))
_DIGITS = _FINGERPRINT.replace(":", "")


@pytest.mark.parametrize("text", [_FINGERPRINT, _FINGERPRINT.upper(), _DIGITS, _DIGITS.upper(), f"  {_FINGERPRINT}\n"])
def test_fingerprint_is_normalised(text: str) -> None:
    assert normalise_fingerprint(text) == _FINGERPRINT


@pytest.mark.parametrize(
    "text",
    [
        *("", "none", _FINGERPRINT[:-3], _FINGERPRINT + ":00", ":".join(["a0"] * 20), "SHA256:" + "A" * 43, f"sha256 {_FINGERPRINT}"),
        *(_FINGERPRINT.replace("a0", "g0"), _FINGERPRINT.replace(":", " "), _FINGERPRINT.replace("a0", "a٠"), "x" * 100_000),
    ],
    ids=lambda text: text[:20],
)
def test_other_fingerprint_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="^known_fingerprint .* is not a SHA-256 fingerprint. Use 64 hex digits") as caught:
        normalise_fingerprint(text)
    assert len(str(caught.value)) < 500
