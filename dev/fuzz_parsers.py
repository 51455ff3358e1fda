# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fuzzes every parser of untrusted input: it must return a value or raise the project's own error.

``python -m dev.fuzz_parsers --seconds 60`` runs atheris (coverage-guided, libFuzzer) on one target after the other,
for that long in all; the exit status is 1 if it found an input that breaks one. ``test_fuzz.py`` feeds the same
targets with hypothesis.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import importlib.util
import itertools
import json
import re
import subprocess
import sys
import tempfile
import typing as t
from collections.abc import Callable
from pathlib import Path

from support.records import sealed

# In the process that fuzzes, the core must be rewritten as it is imported, so that libFuzzer sees where it goes.
_FUZZES = __name__ == "__main__" and "--target" in sys.argv

if _FUZZES:
    import atheris

    _rewriting = atheris.instrument_imports(include=["ansible_collections.kaleyra"], enable_loader_override=False)
else:
    _rewriting = contextlib.nullcontext()
with _rewriting:
    from ansible_collections.kaleyra.whatsapp.plugins.module_utils import _api, _record, _retry
    from ansible_collections.kaleyra.whatsapp.plugins.module_utils._account import Account, make_account, normalise_api_url
    from ansible_collections.kaleyra.whatsapp.plugins.module_utils._errors import InvalidInput, KaleyraError, OutcomeUnknown, Rejected
    from ansible_collections.kaleyra.whatsapp.plugins.module_utils._http import Answer
    from ansible_collections.kaleyra.whatsapp.plugins.module_utils._phone_number import normalise_phone_number
    from ansible_collections.kaleyra.whatsapp.plugins.module_utils._public_key import (
        normalise_fingerprint,
        parse_public_key,
        read_public_key,
    )

FINGERPRINT = ":".join(["0a"] * 32)
SECRET = "Fuzzed-Api-Key-5a0d"
API = _api.FlowsEncryptionApi(Account("https://api.in.kaleyra.io", "HXAP16FUZZ00097IN", SECRET), timeout=30)
IDENTITY = {"api": "api.in.kaleyra.io", "sid": "HXAP16FUZZ00097IN", "phone_number": "+919876543210"}

# A sound RSA-2048 public key, made for this and used for nothing else.
DER = base64.b64decode(
    "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAntZnXGlQb/URsEPBE89cQ6Z6RHpWKTjtoPKfCAAxiZgGncdQjbaa/5H8"
    "iIFJV0APyUrzcGSW9wGX+C2VS5iVf9IF7T79UVyY01HqiI9//FOVglY5bVAb8rulHlHvpKFwRGpPREBtjUxmzXOBgRHj+IGCHDUJ"
    "UQyq90YU3ODH39fGktyVIcZPqbRDiPI9o0oc6EjIwNNeamk1UxgcAorHCk0o4jnNJ9mUvCbAqv/P14RUaWWpvd+O0e+b7aV1xQ13"
    "EHSwQIT4QZIDe0+EvthK8S8KWW8VVAErCj3MuVmztniESs0hsU4WJPF2yvLAohT+n5/XyIze1Wl8T/yU7lprkwIDAQAB"
)


def pem_of(der: bytes) -> str:
    text = base64.b64encode(der).decode()
    return "\n".join(["-----BEGIN PUBLIC KEY-----", *re.findall(".{1,64}", text), "-----END PUBLIC KEY-----", ""])


def text_of(data: bytes) -> str:
    """Any text, lone surrogates included, which is how Python hands on what is no UTF-8."""
    return data.decode("utf-8", "surrogateescape")


# --- the targets ------------------------------------------------------------------------------------------------------


def pem(data: bytes) -> None:
    try:
        key = parse_public_key(text_of(data))
    except InvalidInput as exc:
        assert "openssl" in str(exc) or "ssh-keygen" in str(exc)  # the command that gives the right thing
        return
    assert key.fingerprint == hashlib.sha256(key.der).digest().hex(":")
    assert parse_public_key(key.pem) == key  # what is sent means the same
    assert re.fullmatch(r"-----BEGIN PUBLIC KEY-----\n([A-Za-z0-9+/=]{1,64}\n)*-----END PUBLIC KEY-----", key.pem)
    der(key.der)


def der(data: bytes) -> None:
    """What stands between a PEM's lines, up to the check that it is what the API takes."""
    key = parse_public_key(pem_of(data))
    assert key.der == data
    try:
        key.require_rsa_2048()
    except InvalidInput:
        return
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

    loaded = load_pem_public_key(key.pem.encode())
    assert isinstance(loaded, RSAPublicKey) and loaded.key_size == 2048
    assert loaded.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode().strip() == key.pem


def key_file(data: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        try:
            read_public_key(file.name)
        except InvalidInput as exc:
            assert file.name in str(exc) or "public key" in str(exc)


def path(data: bytes) -> None:
    try:
        read_public_key(text_of(data))
    except InvalidInput:
        pass


def phone_number(data: bytes) -> None:
    try:
        number = normalise_phone_number(text_of(data))
    except InvalidInput:
        return
    assert re.fullmatch(r"\+[1-9][0-9]{6,14}", number, re.ASCII)
    assert normalise_phone_number(number) == number
    # No digit is lost, added or changed, apart from what YAML and INI add to a number.
    assert re.sub(r"[^0-9]", "", re.sub(r"^(\+?[0-9]+)\.0$", r"\1", text_of(data).strip())) == number[1:]


def api_url(data: bytes) -> None:
    try:
        url = normalise_api_url(text_of(data))
    except InvalidInput:
        return
    assert normalise_api_url(url) == url
    assert re.fullmatch(r"https?://[!-~]+", url) and not re.search(r"[?#@\\\s%]|/\.\.?(/|$)|/$", url)
    host = re.fullmatch(r"https?://(\[[^\]]+\]|[^/:]+)(:[0-9]+)?(/.*)?", url)
    assert host, url
    if url.startswith("http:"):
        assert host[1] in ("localhost", "[::1]") or host[1].startswith(("127.", "[")), url


def sid(data: bytes) -> None:
    try:
        account = make_account("in", None, text_of(data), SECRET)
    except InvalidInput:
        return
    assert re.fullmatch(r"[A-Za-z0-9_-]+", account.sid)
    assert account.url("+919876543210") == f"https://api.in.kaleyra.io/v2/{account.sid}/whatsapp/+919876543210/flows_encryption"


def api_key(data: bytes) -> None:
    secret = "S3cr3t" + text_of(data)
    try:
        account = make_account("in", None, "HXAP16FUZZ00097IN", secret)
    except InvalidInput as exc:
        assert "S3cr3t" not in str(exc) + repr(exc.details)
        return
    assert account.api_key.isascii() and account.api_key.isprintable() and " " not in account.api_key
    assert "S3cr3t" not in repr(account)


def pod(data: bytes) -> None:
    try:
        make_account(text_of(data), None, "HXAP16FUZZ00097IN", SECRET)
    except InvalidInput:
        pass


def fingerprint(data: bytes) -> None:
    try:
        normal = normalise_fingerprint(text_of(data))
    except InvalidInput:
        return
    assert re.fullmatch(r"([0-9a-f]{2}:){31}[0-9a-f]{2}", normal)
    assert normalise_fingerprint(normal) == normal == normalise_fingerprint(normal.upper().replace(":", ""))


def retry_after(data: bytes) -> None:
    # http.client hands headers on as latin-1.
    text = data.decode("latin-1")
    seconds = _retry._seconds(text)
    assert seconds is None or seconds >= 0
    for attempt in (1, 2, 10):
        assert 0 <= _retry.pause_before_retry(attempt, Answer(429, b"", text), API.timeout) <= API.timeout


def is_success(status: int, body: bytes) -> bool:
    """Whether the answer confirms success: HTTP 200, JSON, ``code`` ``WA-200`` (or ``WA200``), ``data.success`` true, no duplicate name."""
    if status != 200:
        return False
    twice: list[str] = []

    def noting(pairs: list[tuple[str, t.Any]]) -> dict[str, t.Any]:
        names = sorted(name for name, dummy in pairs)
        twice.extend(name for name, following in itertools.pairwise(names) if name == following)
        return dict(pairs)

    try:
        content = json.loads(body, object_pairs_hook=noting)
    except (ValueError, RecursionError):
        return False
    if twice:
        return False
    match content:
        case {"code": str() as code, "data": {"success": bool() as success}}:
            return code in ("WA-200", "WA200") and success
    return False


def answer(data: bytes) -> None:
    """The first two bytes are the status."""
    status, body = int.from_bytes(data[:2], "big"), data[2:]
    came = Answer(status, body)
    facts, success = API._read(came)
    assert success is is_success(status, body)
    assert facts.keys() == {"http_status", "code", "message"} and facts["http_status"] == status
    texts = [facts["code"], facts["message"], API._describe(came, facts), _api._remedy(came, facts)]
    for text in texts:
        assert text is None or (isinstance(text, str) and text.isprintable() and len(text) < 1000)
        assert text is None or SECRET not in text
    if success:
        assert not _api._is_refusal(came)
    # Where it is no success, it ends as an error of ours that carries the facts.
    for error in (Rejected, OutcomeUnknown):
        assert isinstance(error("why", attempts=1, **facts), KaleyraError)


def record(data: bytes) -> None:
    file = _record.RecordFile("/nowhere", **IDENTITY)
    try:
        found = file._parse(data)
    except _record.InvalidRecord as exc:
        assert str(exc)
        return
    fields = json.loads(data)
    assert {**fields, **IDENTITY} == fields
    assert found.fingerprint == fields["fingerprint"] and re.fullmatch(r"([0-9a-f]{2}:){31}[0-9a-f]{2}", found.fingerprint)
    assert found.confirmed is (fields["state"] == "confirmed") and fields["state"] in ("confirmed", "unconfirmed")
    for seconds in (0, 60, 10**12):
        assert found.is_older_than(seconds) in (True, False)
    assert found.is_older_than(0)


def _record_file(**fields: t.Any) -> bytes:
    state = {"format": 1, **IDENTITY, "fingerprint": FINGERPRINT, "state": "confirmed", "since": "2026-01-02T03:04:05+00:00", **fields}
    return sealed(state)


_WA_200 = {"code": "WA-200", "message": "Request Processed Successfully", "data": {"success": True}, "error": {}}
_SEED_PEM = pem_of(DER).encode()


def _answer(status: int, document: t.Any) -> bytes:
    return status.to_bytes(2, "big") + json.dumps(document).encode()


# Name -> target, and good inputs (or nearly good ones) to start from.
TARGETS: dict[str, tuple[Callable[[bytes], None], list[bytes]]] = {
    "pem": (
        pem,
        [
            *(_SEED_PEM, _SEED_PEM.replace(b"\n", b"\r\n"), _SEED_PEM.replace(b"\n", b"\\n"), b"\xef\xbb\xbf" + _SEED_PEM),
            *(_SEED_PEM * 2, _SEED_PEM.replace(b"PUBLIC", b"PRIVATE"), _SEED_PEM.replace(b"PUBLIC KEY", b"CERTIFICATE")),
            *(b"ssh-rsa AAAA", b"---- BEGIN SSH2 PUBLIC KEY ----", b"PuTTY-User-Key-File-3: ssh-rsa", b"./public.pem", b"public.pem"),
        ],
    ),
    "der": (der, [DER, DER[:-1], DER + b"\0", bytes.fromhex("30820122300d06092a864886f70d01010105000382010f00")]),
    "key_file": (key_file, [_SEED_PEM, DER, b"\xff\xfe", b"a" * 100]),
    "path": (path, [b"/dev/null", b"/nowhere/public.pem", b"\0", b"/", b"x" * 300]),
    "phone_number": (
        phone_number,
        [
            *(b"+919876543210", b"91 98765-43210", b"+44 (0) 20", b"(+49) 151.23456789", b"919876543210.0", b"+1\n2"),
            "+91\u00a098765\u201143210".encode(),
        ],
    ),
    "api_url": (
        api_url,
        [
            *(b"https://api.in.kaleyra.io", b"HTTPS://API.in.Kaleyra.io:443/", b"http://localhost:8080/a/b/", b"http://[::1]:80"),
            *(b"http://127.0.0.1", b"https://u:p@h/", b"https://h/../x", b"https://h?x#y", b"https://h.:0", b"https://[fe80::1%25eth0]/"),
        ],
    ),
    "sid": (sid, [b"HXAP16XXXXXX97IN", b"a/b", b"", b"x" * 65]),
    "api_key": (api_key, [b"A0b1C2d3", b" ", b"\r\nX: y", "é".encode()]),
    "pod": (pod, [b"in", b"sg", b"eu", b"na", b"IN", b""]),
    "fingerprint": (fingerprint, [FINGERPRINT.encode(), FINGERPRINT.upper().replace(":", "").encode(), b" " + FINGERPRINT.encode() + b"\n"]),
    "retry_after": (
        retry_after,
        [
            *(b"5", b"-1", b"99999999999999999999", b"1.5", b"\xb2", b" 7 ", b"0x10"),
            *(b"Wed, 21 Oct 2026 07:28:00 GMT", b"Wed, 21 Oct 9999 07:28:00 -2359", b"1 Jan 0001 00:00:00", b"Sun Nov  6 08:49:37 1994"),
        ],
    ),
    "answer": (
        answer,
        [
            *(_answer(200, _WA_200), _answer(201, _WA_200), _answer(200, {**_WA_200, "data": {"success": "true"}})),
            *(_answer(200, {**_WA_200, "code": ["WA-200"]}), _answer(200, [_WA_200]), _answer(400, {"code": "WA-400", "message": SECRET})),
            *(_answer(401, {"code": "RBC001", "data": []}), _answer(302, None), b"\0\xc8[[[[", b"\0\xc8\xff\xfe{", b"\1\xf4<html>"),
            *(_answer(200, _WA_200).replace(old, old + b", " + old) for old in (b'"code": "WA-200"', b'"success": true', b'"error": {}')),
        ],
    ),
    "record": (
        record,
        [
            *(_record_file(), _record_file(state="unconfirmed"), _record_file(format=2), _record_file(phone_number="+14155550123")),
            *(_record_file(since="2026-01-02"), _record_file(since="0001-01-01T00:00:00+23:59"), _record_file(fingerprint=1), b"[]", b"1", b"{"),
        ],
    ),
}


# --- the fuzzer -------------------------------------------------------------------------------------------------------


def _fuzz(name: str, seconds: int, seed: int, corpus: str) -> t.NoReturn:
    """Fuzz a target. Does not return, because libFuzzer ends the process."""
    target, dummy = TARGETS[name]
    arguments = [f"-max_total_time={seconds}", f"-seed={seed}", "-max_len=8192", "-timeout=10", "-rss_limit_mb=1024", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *arguments, f"-artifact_prefix={corpus}/crash-", "-verbosity=1", corpus], target)
    atheris.Fuzz()
    raise AssertionError


def _run(name: str, seconds: int, seed: int) -> tuple[int, int, str]:
    """Fuzz one target in a separate process; return executions, covered edges, and its output if it found something."""
    with tempfile.TemporaryDirectory() as corpus:
        for index, good in enumerate(TARGETS[name][1]):
            Path(corpus, f"seed-{index}").write_bytes(good)
        done = subprocess.run(
            [
                *(sys.executable, "-m", "dev.fuzz_parsers", "--target", name),
                *("--seconds", str(seconds), "--seed", str(seed), "--corpus", corpus),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds * 3 + 120,
            check=False,
        )
        output = done.stdout.decode(errors="replace")
        found = "".join(f"\ninput: {crash.read_bytes()!r}" for crash in Path(corpus).glob("crash-*"))
    executions = re.findall(r"^stat::number_of_executed_units: (\d+)|^#(\d+)", output, re.MULTILINE)
    coverage = [int(edges) for edges in re.findall(r"\bcov: (\d+)", output)]
    count = max((int(whole or part) for whole, part in executions), default=0)
    return count, max(coverage, default=0), f"{output[-6000:]}{found}" if done.returncode else ""


def main() -> int:
    parser = argparse.ArgumentParser(description="Look for inputs that a parser does not take as it should.")
    parser.add_argument("--seconds", type=int, default=60, help="for all targets together (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="for the same inputs in the same order again; 0: by chance")
    parser.add_argument("--target", choices=TARGETS, help=argparse.SUPPRESS)
    parser.add_argument("--corpus", help=argparse.SUPPRESS)
    parser.add_argument("--only", choices=TARGETS, action="append", help="this target alone; can be given more than once")
    parsed = parser.parse_args()
    if parsed.target:
        _fuzz(parsed.target, parsed.seconds, parsed.seed, parsed.corpus)
    if importlib.util.find_spec("atheris") is None:
        print("atheris is not installed here: pip install atheris", file=sys.stderr)
        return 2
    names = parsed.only or list(TARGETS)
    each = max(1, parsed.seconds // len(names))
    total = edges = failures = 0
    print(f"{len(names)} targets, {each} s each\n\n| target | executions | edges covered |\n|---|---|---|", flush=True)
    for name in names:
        executions, covered, trouble = _run(name, each, parsed.seed)
        total, edges = total + executions, edges + covered
        print(f"| {name} | {executions} | {covered} |{' FAILED' if trouble or not executions else ''}", flush=True)
        if trouble or not executions:
            failures += 1
            print(f"\n{trouble}\n", flush=True)
    print(f"| all | {total} | {edges} |\n\n{failures} of {len(names)} targets failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
