# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
import re
import shutil
import subprocess
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

Pem = Callable[[str], str]
KeyFile = Callable[[str], Path]
Openssl = Callable[..., bytes]


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
    """Do what the message tells, in the file's folder, and read what is printed. No command writes, so none can overwrite a key."""
    command = re.search(r"prints (?:the public key|it in PEM): ((?:openssl|ssh-keygen|puttygen) .*)$", message)
    assert command and not re.search(r"> | -out |-o ", command[1]), message
    done = subprocess.run(
        ["sh", "-c", command[1].replace("FILE", file.name)], cwd=file.parent, check=True, capture_output=True, stdin=subprocess.DEVNULL, text=True
    )
    key = parse_public_key(done.stdout)
    key.require_rsa_2048()
    return key


def _body(pem: str) -> str:
    """A PEM's base64, without its labels."""
    return re.sub(r"-----[^-]*-----", "", pem)


def _labelled(label: str, base64_text: str) -> str:
    return f"-----BEGIN {label}-----\n{base64_text.strip()}\n-----END {label}-----\n"


# --- what is taken ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["rsa-2048", "rsa-2048-exponent-3"])
def test_rsa_2048_by_openssl_is_taken(kind: str, public_pem: Pem, fingerprint: Pem) -> None:
    pem = public_pem(kind)
    key = _accept(pem)
    assert key.pem == pem.rstrip("\n")
    assert key.fingerprint == fingerprint(kind)
    assert re.fullmatch(r"[0-9a-f]{2}(:[0-9a-f]{2}){31}", key.fingerprint)


@pytest.mark.parametrize(
    "damage",
    [
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
        pytest.param(lambda pem: _labelled("PUBLIC KEY", _body(pem).replace("\n", "")), id="base64-in-one-line"),
        pytest.param(lambda pem: _labelled("PUBLIC KEY", re.sub(r"(.{76})", r"\1\n", _body(pem).replace("\n", ""))), id="lines-of-76"),
    ],
)
def test_damage_by_forms_and_shells_is_repaired(damage: Callable[[str], str], public_pem: Pem, fingerprint: Pem) -> None:
    pem = public_pem("rsa-2048")
    damaged = damage(pem)
    assert damaged != pem
    key = _accept(damaged)
    assert key.pem == pem.rstrip("\n")
    assert key.fingerprint == fingerprint("rsa-2048")


def test_file_is_read_like_its_text(tmp_path: Path, public_pem: Pem, fingerprint: Pem) -> None:
    path = tmp_path / "public.pem"
    path.write_bytes(b"\xef\xbb\xbf" + public_pem("rsa-2048").replace("\n", "\r\n").encode())
    assert read_public_key(str(path)).fingerprint == fingerprint("rsa-2048")


# --- other keys -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("rsa-1024", "RSA with 1024 bits"),
        ("rsa-2047", "RSA with 2047 bits"),
        ("rsa-3072", "RSA with 3072 bits"),
        ("rsa-4096", "RSA with 4096 bits"),
        ("rsa-pss", "of the type RSA-PSS"),
        ("rsa-pss-bound", "of the type RSA-PSS"),
        ("ec", "of the type E"),  # EC or EllipticCurve, as the release of cryptography has it
        ("ed25519", "of the type Ed25519"),
        ("x25519", "of the type X25519"),
        ("dsa", "of the type DSA"),
    ],
)
def test_other_kind_of_key_is_refused_before_sending(kind: str, found: str, public_pem: Pem, fingerprint: Pem) -> None:
    # Reading alone needs no library; the kind is checked before something is sent.
    assert parse_public_key(public_pem(kind)).fingerprint == fingerprint(kind)
    message = _refusal(public_pem(kind))
    assert f"The public key is {found}" in message
    assert "RSA with 2048 bits" in message


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda der: der + b"\0", id="a-byte-behind"),
        pytest.param(lambda der: der + der, id="twice"),
        pytest.param(lambda der: der[:-1], id="cut-off"),
        pytest.param(lambda der: b"\0" + der, id="a-byte-before"),
        pytest.param(lambda der: der[24:], id="pkcs1-without-its-label"),
        pytest.param(lambda der: b"", id="empty"),
        pytest.param(lambda der: b"\x30\x80" + der[4:] + b"\0\0", id="indefinite-length"),
        pytest.param(lambda der: b"\x30\x83\0" + der[2:], id="length-not-in-its-shortest-form"),
    ],
)
def test_wrong_der_is_refused(spoil: Callable[[bytes], bytes], public_pem: Pem) -> None:
    der = parse_public_key(public_pem("rsa-2048")).der
    message = _refusal(_labelled("PUBLIC KEY", base64.encodebytes(spoil(der)).decode()))
    assert "The public key is " in message


# --- things that are no public key ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def other_things(
    tmp_path_factory: pytest.TempPathFactory, private_key: KeyFile, public_pem: Pem, openssl: Openssl
) -> Callable[[str], str]:
    """What people hand over in place of the public key of `rsa-2048`, by name."""
    private, public = private_key("rsa-2048"), public_pem("rsa-2048")
    folder = tmp_path_factory.mktemp("things")

    def certificate() -> str:
        return openssl("req", "-x509", "-new", "-key", private, "-subj", "/CN=flows", "-days", "2").decode()

    def openssh() -> str:
        copy = folder / "id"
        shutil.copy(private, copy)
        copy.chmod(0o600)
        subprocess.run(["ssh-keygen", "-q", "-p", "-N", "", "-f", str(copy)], check=True, capture_output=True)
        return copy.read_text()

    def openssh_public() -> str:
        return subprocess.run(["ssh-keygen", "-y", "-f", str(private)], check=True, capture_output=True, text=True).stdout

    def ssh2_public() -> str:
        (folder / "ssh2").write_text(openssh())
        (folder / "ssh2").chmod(0o600)
        return subprocess.run(["ssh-keygen", "-e", "-f", str(folder / "ssh2")], check=True, capture_output=True, text=True).stdout

    def pkcs1() -> str:
        return openssl("rsa", "-in", private, "-traditional").decode()

    def encrypted() -> str:
        return openssl("pkcs8", "-topk8", "-v2", "aes-256-cbc", "-in", private, "-passout", "pass:secret").decode()

    def putty() -> str:
        lines = base64.encodebytes(openssl("pkey", "-in", private, "-outform", "DER")).decode()
        return (
            f"PuTTY-User-Key-File-3: ssh-rsa\nEncryption: none\nComment: flows\nPublic-Lines: 6\n{_body(public).strip()}\n"
            f"Private-Lines: {lines.count(chr(10))}\n{lines}Private-MAC: {'0f' * 32}\n"
        )

    def der_under_a_public_label(*arguments: str) -> str:
        return _labelled("PUBLIC KEY", base64.encodebytes(openssl(*arguments, "-in", str(private), "-outform", "DER")).decode())

    makers: dict[str, Callable[[], str]] = {
        "certificate": certificate,
        "trusted certificate": lambda: openssl("x509", "-trustout", stdin=certificate().encode()).decode(),
        "certificate with text": lambda: openssl("x509", "-text", stdin=certificate().encode()).decode(),
        "certificate request": lambda: openssl("req", "-new", "-key", private, "-subj", "/CN=flows").decode(),
        "pkcs1 public": lambda: openssl("rsa", "-in", private, "-RSAPublicKey_out").decode(),
        "openssh public": openssh_public,
        "ssh2 public": ssh2_public,
        "ec parameters": lambda: openssl("ecparam", "-name", "prime256v1").decode(),
        # private ones
        "pkcs8": private.read_text,
        "pkcs1": pkcs1,
        "encrypted pkcs8": encrypted,
        "encrypted pkcs1": lambda: openssl("rsa", "-in", private, "-aes256", "-traditional", "-passout", "pass:secret").decode(),
        "openssh": openssh,
        "putty": putty,
        "ec": lambda: openssl("ecparam", "-name", "prime256v1", "-genkey").decode(),
        "pkcs8 with crlf": lambda: private.read_text().replace("\n", "\r\n"),
        "pkcs8 with cr": lambda: private.read_text().replace("\n", "\r"),
        "pkcs8 in one line": lambda: private.read_text().replace("\n", "\\n"),
        "pkcs8 in one line with crlf": lambda: private.read_text().replace("\n", "\\r\\n"),
        "pkcs8 after a bom": lambda: "\ufeff" + private.read_text(),
        "pkcs8 indented": lambda: private.read_text().replace("\n", "\n    "),
        "pkcs8 folded": lambda: private.read_text().replace("\n", " "),
        "pkcs8 in small letters": lambda: private.read_text().replace("BEGIN PRIVATE KEY", "begin private key"),
        "pkcs8 cut off": lambda: private.read_text()[:-200],
        "pkcs8 before the public key": lambda: private.read_text() + public,
        "pkcs8 after the public key": lambda: public + private.read_text(),
        "pkcs1 after the public key": lambda: public + pkcs1(),
        "encrypted pkcs8 after the public key": lambda: public + encrypted(),
        "pkcs8 inside the public key": lambda: public.replace("-----END", private.read_text() + "-----END"),
        "certificate and pkcs8": lambda: certificate() + private.read_text(),
        "pkcs8 with a public end": lambda: private.read_text().replace("END PRIVATE", "END PUBLIC"),
        "pkcs8 with a public begin": lambda: private.read_text().replace("BEGIN PRIVATE", "BEGIN PUBLIC"),
        "pkcs8 der under a public label": lambda: der_under_a_public_label("pkey"),
        "pkcs1 der under a public label": lambda: der_under_a_public_label("rsa", "-traditional"),
        "encrypted der under a public label": lambda: der_under_a_public_label("pkcs8", "-topk8", "-passout", "pass:secret"),
    }
    made: dict[str, str] = {}

    def make(name: str) -> str:
        if "ssh" in name and not shutil.which("ssh-keygen"):
            pytest.skip("ssh-keygen is not here")
        if name not in made:
            made[name] = makers[name]()
        return made[name]

    return make


_PRIVATE = (
    *("pkcs8", "pkcs1", "encrypted pkcs8", "encrypted pkcs1", "openssh", "putty", "ec"),
    *("pkcs8 with crlf", "pkcs8 with cr", "pkcs8 in one line", "pkcs8 in one line with crlf", "pkcs8 after a bom", "pkcs8 indented"),
    *("pkcs8 folded", "pkcs8 in small letters", "pkcs8 cut off", "pkcs8 before the public key", "pkcs8 after the public key"),
    *("pkcs1 after the public key", "encrypted pkcs8 after the public key", "pkcs8 inside the public key", "certificate and pkcs8"),
    *("pkcs8 with a public end", "pkcs8 with a public begin"),
    *("pkcs8 der under a public label", "pkcs1 der under a public label", "encrypted der under a public label"),
)
# In these, the named command finds the key.
_READABLE = {
    *("pkcs8", "pkcs1", "openssh", "pkcs8 with crlf", "pkcs8 before the public key", "pkcs8 after the public key", "certificate and pkcs8"),
}


@pytest.mark.parametrize("thing", _PRIVATE)
def test_private_key_is_refused_and_not_repeated(
    thing: str, other_things: Callable[[str], str], fingerprint: Pem, tmp_path: Path
) -> None:
    text, file = other_things(thing), tmp_path / "private.pem"
    file.write_bytes(text.encode())
    file.chmod(0o600)
    with pytest.raises(InvalidInput) as caught:
        read_public_key(str(file)).require_rsa_2048()
    for message in (_refusal(text), str(caught.value)):
        assert "a PRIVATE key" in message
        # Not even a part of one of its lines.
        for secret in re.findall(r"[A-Za-z0-9+/=]{16,}", text):
            for begin in range(0, len(secret) - 11, 12):
                assert secret[begin : begin + 12] not in message
    if thing in _READABLE:
        assert _run_the_named_command(_refusal(text), file).fingerprint == fingerprint("rsa-2048")


@pytest.mark.parametrize(
    ("thing", "found"),
    [
        ("certificate", "a certificate."),
        ("trusted certificate", "a certificate."),
        ("certificate with text", "a certificate."),
        ("certificate request", "a certificate request."),
        ("pkcs1 public", "an RSA public key in PKCS#1."),
        ("openssh public", "a key in OpenSSH's format."),
        ("ssh2 public", "a key in "),
    ],
)
def test_other_form_has_a_command_that_converts_it(
    thing: str, found: str, other_things: Callable[[str], str], fingerprint: Pem, tmp_path: Path
) -> None:
    message = _refusal(other_things(thing))
    assert f"expected one BEGIN PUBLIC KEY block, found {found}" in message
    file = tmp_path / "file"
    file.write_text(other_things(thing))
    file.chmod(0o600)
    assert _run_the_named_command(message, file).fingerprint == fingerprint("rsa-2048")


@pytest.mark.parametrize(
    ("make", "found"),
    [
        pytest.param(lambda pem: "", "nothing", id="empty"),
        pytest.param(lambda pem: " \r\n\\n\ufeff"[:-1], "nothing", id="blank"),
        pytest.param(lambda pem: pem + pem, "2 PEM blocks (PUBLIC KEY, PUBLIC KEY)", id="two-keys"),
        pytest.param(lambda pem: pem * 9, "9 PEM blocks", id="many-keys"),
        pytest.param(lambda pem: pem + pem.replace("PUBLIC KEY", "CERTIFICATE"), "2 PEM blocks (PUBLIC KEY, CERTIFICATE)", id="and-certificate"),
        pytest.param(lambda pem: pem[:100] + "==" + pem[100:], "truncated or damaged", id="padding-in-the-middle"),
        pytest.param(lambda pem: pem[:-40], "truncated", id="without-its-end"),
        pytest.param(lambda pem: pem[:200], "truncated", id="half"),
        pytest.param(lambda pem: "business_public_key=" + pem, "surrounded by other text", id="text-before"),
        pytest.param(lambda pem: pem + "# made today\n", "surrounded by other text", id="text-behind"),
        pytest.param(lambda pem: pem.replace("\n", "\nMade: by hand\n\n", 1), "surrounded by other text", id="text-inside"),
        pytest.param(lambda pem: '"' + pem + '"', "surrounded by other text", id="quoted"),
        pytest.param(lambda pem: pem.replace("A", "%2B", 1), "surrounded by other text", id="url-encoded"),
        pytest.param(_body, "no PEM", id="without-labels"),
        pytest.param(lambda pem: pem.replace("PUBLIC KEY", "PUBLICKEY"), "no PEM", id="label-misspelt"),
        pytest.param(lambda pem: "hello", "no PEM", id="junk"),
        pytest.param(lambda pem: "\x00\x01\x02", "no PEM", id="bytes"),
        pytest.param(lambda pem: "{{ flows_public_key }}", "no PEM", id="template"),
        pytest.param(lambda pem: "/etc/flows/public.pem", "looks like a path (use business_public_key_path", id="absolute-path"),
        pytest.param(lambda pem: "~/public.pem", "looks like a path (use business_public_key_path", id="home-path"),
        pytest.param(lambda pem: "./keys/flows", "looks like a path (use business_public_key_path", id="relative-path"),
        pytest.param(lambda pem: "public.pem", "looks like a path (use business_public_key_path", id="file-name"),
        pytest.param(lambda pem: "/etc/flows/private-key.pem", "looks like a path (use business_public_key_path", id="path-of-a-private-key"),
    ],
)
def test_no_public_key_is_named(make: Callable[[str], str], found: str, public_pem: Pem) -> None:
    message = _refusal(make(public_pem("rsa-2048")))
    assert found in message


def test_lost_plus_is_explained(public_pem: Pem) -> None:
    pem = public_pem("rsa-2048")
    # There nearly always is a plus; where there is none, any other sign will do.
    place = pem.find("+") if "+" in pem else 100
    assert "turns '+' into a space" in _refusal(pem[:place] + " " + pem[place + 1 :])


def test_cut_off_pem_is_refused(public_pem: Pem) -> None:
    pem = public_pem("rsa-2048").rstrip("\n")
    for end in range(len(pem)):
        with pytest.raises(InvalidInput):
            _accept(pem[:end])


def test_long_text_is_refused_at_once(public_pem: Pem, private_key: KeyFile, tmp_path: Path) -> None:
    for text in ("A" * 3_000_000, public_pem("rsa-2048") * 7000, private_key("rsa-2048").read_text() * 2000, "é" * 3_000_000):
        (tmp_path / "file").write_text(text)
        began = time.monotonic()
        assert "more than 16384 characters" in _refusal(text)
        with pytest.raises(InvalidInput):
            read_public_key(str(tmp_path / "file"))
        assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("-----BEGIN " * 1400, id="labels-begun"),
        pytest.param("-----BEGIN PUBLIC KEY-----" * 600, id="labels"),
        pytest.param("PRIVATE" + " " * 16_000, id="private-and-blanks"),
        pytest.param("PRIVATE " * 2000, id="private-many-times"),
        pytest.param("-----BEGIN PUBLIC KEY-----" + " " * 16_000 + "-----END PUBLIC KEY", id="blanks"),
        pytest.param("a." * 8000, id="dots"),
    ],
)
def test_hard_text_is_refused_soon(text: str) -> None:
    began = time.monotonic()
    _refusal(text)
    assert time.monotonic() - began < 5


# --- files ------------------------------------------------------------------------------------------------------------


def test_der_file_has_a_command_that_converts_it(
    tmp_path: Path, public_pem: Pem, fingerprint: Pem, openssl: Openssl
) -> None:
    file = tmp_path / "public.der"
    file.write_bytes(openssl("pkey", "-pubin", "-outform", "DER", stdin=public_pem("rsa-2048").encode()))
    with pytest.raises(InvalidInput, match="found binary data") as caught:
        read_public_key(str(file))
    assert _run_the_named_command(str(caught.value), file).fingerprint == fingerprint("rsa-2048")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(b"", "found nothing", id="empty"),
        pytest.param(b"\xff\xfe" + "-----BEGIN PUBLIC KEY-----".encode("utf-16-le"), "found binary data", id="utf-16"),
        pytest.param(bytes(range(256)) * 9, "found binary data", id="binary"),
        pytest.param(b"\0" * 100, "no PEM", id="zeros"),
    ],
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


# --- fingerprints -----------------------------------------------------------------------------------------------------

_FINGERPRINT = ":".join(f"{number:02x}" for number in range(160, 192))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(_FINGERPRINT, id="as-returned"),
        pytest.param(_FINGERPRINT.upper(), id="upper-case"),
        pytest.param(_FINGERPRINT.replace(":", ""), id="without-colons"),
        pytest.param(_FINGERPRINT.replace(":", "").upper(), id="upper-case-without-colons"),
        pytest.param(f"  {_FINGERPRINT}\n", id="blanks-at-the-ends"),
    ],
)
def test_fingerprint_is_normalised(text: str) -> None:
    assert normalise_fingerprint(text) == _FINGERPRINT


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("none", id="word"),
        pytest.param(_FINGERPRINT[:-3], id="too-short"),
        pytest.param(_FINGERPRINT + ":00", id="too-long"),
        pytest.param(":".join(["a0"] * 20), id="sha1"),
        pytest.param("SHA256:" + "A" * 43, id="openssh"),
        pytest.param(_FINGERPRINT.replace("a0", "g0"), id="not-hex"),
        pytest.param(_FINGERPRINT.replace(":", " "), id="blanks-for-colons"),
        pytest.param(_FINGERPRINT.replace("a0", "a٠"), id="arabic-digit"),
        pytest.param(f"sha256 {_FINGERPRINT}", id="named"),
        pytest.param("x" * 100_000, id="very-long"),
    ],
)
def test_other_fingerprint_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="^known_fingerprint .* is not a SHA-256 fingerprint. Use 64 hex digits") as caught:
        normalise_fingerprint(text)
    assert len(str(caught.value)) < 500


# Of 2048 bits.
_ODD = 2**2047 + 12345


@pytest.mark.parametrize(
    ("modulus", "exponent", "found"),
    [
        pytest.param(2**2047, 65537, "power of two", id="power-of-two"),
        pytest.param(2**2047 + 2, 65537, "even modulus", id="even"),
        pytest.param((2**1023 + 2**1022 + 1) ** 2, 65537, "square", id="square"),
        pytest.param(1999 * (2**2037 + 1), 65537, "modulus that is divisible by ", id="small-factor"),
    ],
)
def test_weak_modulus_is_named(modulus: int, exponent: int, found: str) -> None:
    assert modulus.bit_length() == 2048
    weakness = _weakness(modulus, exponent)
    assert weakness and found in weakness


@pytest.mark.parametrize("exponent", [1, 2, 65536, 2**256 + 1])
def test_weak_exponent_is_named(exponent: int) -> None:
    weakness = _weakness(_ODD, exponent)
    assert weakness and "exponent" in weakness


def test_weak_key_is_refused(public_pem: Pem) -> None:
    """As a whole key, however it is read."""
    numbers = rsa.RSAPublicNumbers(65537, (2**1023 + 2**1022 + 1) ** 2)
    pem = numbers.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    assert "square" in _refusal(pem)
