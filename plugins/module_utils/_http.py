# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""HTTP requests within bounds: of time, of memory, of what is left behind."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import os
import queue
import socket
import ssl
import threading
import time
import typing as t

from ._errors import InvalidInput
from ._libraries import load_requests
from ._threads import run_with_deadline

# The API's answers have some hundred bytes.
MAX_BODY = 64 * 1024

# Connections that are kept: as many as there can be requests at once.
MAX_CALLS = 100

# Of an attempt, in seconds: a day.
MAX_TIMEOUT = 86400

_SHOWN_CHARACTERS = 200

_HEADERS = {
    "Accept-Encoding": "identity",  # the body is read undecoded
    "User-Agent": "kaleyra.whatsapp (Ansible collection)",
}

# OpenSSL's X509_V_ERR_*: CERT_NOT_YET_VALID, CERT_HAS_EXPIRED, HOSTNAME_MISMATCH, IP_ADDRESS_MISMATCH.
_NOT_VALID_HERE_AND_NOW = frozenset([9, 10, 62, 64])


@dataclasses.dataclass(frozen=True)
class Tls:
    """How a server's certificate is verified.

    :param validate: whether it is
    :param ca_path: bundle (or folder) of the only authorities to trust; without it the system's trust store counts
    """

    validate: bool = True
    ca_path: str | None = None


@dataclasses.dataclass(frozen=True)
class Answer:
    """What came back.

    :param body: as sent; one byte longer than the limit of :func:`send` if it was cut there
    :param retry_after: the header of that name
    :param seconds: from connecting to the last byte
    """

    status: int
    body: bytes
    retry_after: str | None = None
    seconds: float = dataclasses.field(default=0, compare=False)


class TransportError(Exception):
    """No whole answer came, so the request may or may not have arrived. The message is the cause as the system or OpenSSL names it."""


class Timeout(TransportError):
    """Not in time."""


class ConnectionFailed(TransportError):
    """There was no connection, or it ended too early."""


class InvalidResponse(TransportError):
    """What came back is not valid HTTP."""


class TlsFailed(TransportError):
    """TLS could not be agreed on."""


class UntrustedCertificate(TlsFailed):
    """The certificate is of an authority that is not trusted, or is not one for servers."""


class WrongCertificate(TlsFailed):
    """The certificate is for another host, or for another time."""


def prepare(url: str, tls: Tls) -> None:
    """Load what a request to this URL takes: once for many, before there are threads that would all do it at once.

    :raises InvalidInput: ``tls.ca_path`` cannot be used
    :raises MissingLibrary: requests cannot be imported
    """
    load_requests()
    _adapter(tls if url.startswith("https:") else None)


def post(url: str, headers: dict[str, str], content: bytes, *, timeout: float, tls: Tls, max_body: int = MAX_BODY) -> Answer:
    """POST once, as :func:`send` does."""
    return send("POST", url, headers, content, timeout=timeout, tls=tls, max_body=max_body)


def get(url: str, headers: dict[str, str], *, timeout: float, tls: Tls, max_body: int = MAX_BODY) -> Answer:
    """GET once, as :func:`send` does."""
    return send("GET", url, headers, None, timeout=timeout, tls=tls, max_body=max_body)


def send(
    method: str, url: str, headers: dict[str, str], content: bytes | None, *, timeout: float, tls: Tls, max_body: int = MAX_BODY
) -> Answer:
    """Send one request, following nothing and repeating nothing. Proxies are taken from the environment.

    :param content: the body, None for none
    :param timeout: seconds, for all of it: name look-up, connection, TLS, and the last byte of the answer
    :param max_body: bytes of the answer that are read, and one more
    :raises TransportError: the request may or may not have arrived
    :raises InvalidInput: ``tls.ca_path`` cannot be used
    :raises MissingLibrary: requests cannot be imported
    """
    requests = load_requests()
    adapter = _adapter(tls if url.startswith("https:") else None)
    attempt = _Attempt()

    def exchange() -> Answer:
        # Not by a session: it would add credentials from a .netrc and cookies, trust REQUESTS_CA_BUNDLE, and read the
        # whole body of a redirect, even of one that it does not follow.
        request = requests.Request(method, url, headers={**headers, **_HEADERS}, data=content).prepare()
        proxies = requests.utils.get_environ_proxies(url)
        start = time.monotonic()
        with attempt.running(), adapter.send(request, stream=True, timeout=timeout, verify=tls.validate, proxies=proxies) as response:
            if response.status_code < 200:
                # http.client takes an interim answer for the last one. What follows must not be there for the next request.
                response.raw.close()
                raise InvalidResponse(f"an interim answer (HTTP {response.status_code}) came in place of a final one")
            # Undecoded, because a small compressed body can grow without bound.
            came = response.raw.read(max_body + 1, decode_content=False)
            if len(came) <= max_body and response.raw.length_remaining:
                raise ConnectionFailed("the answer was cut off")
            return Answer(response.status_code, came, response.headers.get("Retry-After"), time.monotonic() - start)

    try:
        return run_with_deadline(exchange, timeout)
    except queue.Empty:
        raise Timeout(f"no whole answer within {timeout:g} seconds") from None
    except (requests.RequestException, requests.packages.urllib3.exceptions.HTTPError, OSError, ValueError, TypeError) as exc:
        # TypeError: requests meets a proxy without a host
        raise _transport_error(exc) from exc
    finally:
        attempt.give_up()


class _Attempt:
    """The connection of one request, so that it can be closed while the thread that sends waits for it.

    requests bounds single reads only: a server that trickles would hold thread and connection for ever. A request that was held up,
    by a slow name look-up say, must not be sent after its caller has gone on.
    """

    _of_thread = threading.local()

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._given_up = False
        # A descriptor of its own for the connection, which reaches it also while TLS wraps the other one.
        self._socket: socket.socket | None = None

    @contextlib.contextmanager
    def running(self) -> t.Iterator[None]:
        """Make this the attempt that the thread's connection belongs to."""
        self._of_thread.attempt = self
        try:
            yield
        finally:
            with self._mutex:
                if self._socket:
                    self._socket.close()
                    self._socket = None

    @classmethod
    def use(cls, connected: t.Any) -> None:
        """Take a connected socket to the attempt of this thread.

        :raises OSError: the attempt was given up
        """
        attempt: _Attempt = cls._of_thread.attempt
        with attempt._mutex:
            if attempt._given_up:
                raise OSError("given up")
            if not attempt._socket:
                attempt._socket = socket.socket(fileno=os.dup(connected.fileno()))

    def give_up(self) -> None:
        """End what is still under way. Without effect after the end of the request."""
        with self._mutex:
            self._given_up = True
            if self._socket:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)


def _interruptible(pool_class: t.Any) -> t.Any:
    """A urllib3 connection pool whose connections can be ended by :meth:`_Attempt.give_up`."""

    class Connection(pool_class.ConnectionCls):  # type: ignore[misc]
        def _new_conn(self) -> t.Any:
            connected = super()._new_conn()
            try:
                _Attempt.use(connected)
            except OSError:
                connected.close()
                raise
            return connected

        def putrequest(self, *args: t.Any, **kwargs: t.Any) -> None:
            if self.sock is not None:  # kept from an earlier request
                _Attempt.use(self.sock)
            super().putrequest(*args, **kwargs)

    class Pool(pool_class):  # type: ignore[misc]
        ConnectionCls = Connection

    return Pool


@functools.cache
def _adapter(tls: Tls | None) -> t.Any:
    """One connection pool a process, so that a loop keeps its connection, and each thread its own.

    :param tls: None for plain HTTP
    """
    requests = load_requests()
    from requests.adapters import HTTPAdapter

    urllib3 = requests.packages.urllib3
    # It logs what it cannot read of an answer's head, where the server may echo the API key, and Ansible's log file takes that in.
    logging.getLogger("urllib3").setLevel(logging.CRITICAL)
    if tls and not tls.validate:
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)  # the user asked for it
    context = _make_context(tls) if tls else None
    pools = {
        "http": _interruptible(urllib3.connectionpool.HTTPConnectionPool),
        "https": _interruptible(urllib3.connectionpool.HTTPSConnectionPool),
    }

    class Adapter(HTTPAdapter):
        """Trusts what OpenSSL on this system trusts; requests alone would trust its own bundle."""

        def init_poolmanager(self, *args: t.Any, **kwargs: t.Any) -> None:
            super().init_poolmanager(*args, ssl_context=context, **kwargs)
            self.poolmanager.pool_classes_by_scheme = pools

        def proxy_manager_for(self, proxy: str, **kwargs: t.Any) -> t.Any:
            manager = super().proxy_manager_for(proxy, ssl_context=context, proxy_ssl_context=context, **kwargs)
            manager.pool_classes_by_scheme = pools
            return manager

        def cert_verify(self, conn: t.Any, url: str, verify: t.Any, cert: t.Any) -> None:
            conn.cert_reqs = "CERT_REQUIRED" if verify else "CERT_NONE"

    return Adapter(pool_maxsize=MAX_CALLS)


def _make_context(tls: Tls) -> ssl.SSLContext:
    try:
        if tls.ca_path and os.path.isdir(tls.ca_path):
            context = ssl.create_default_context(capath=tls.ca_path)
        else:
            context = ssl.create_default_context(cafile=tls.ca_path)
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the path
        raise InvalidInput(
            f"ca_path {tls.ca_path} cannot be used: {getattr(exc, 'strerror', None) or exc}. Give the path of a PEM file with the certificates of "
            "the authorities to trust, or leave it out to trust the system's."
        ) from exc
    if not tls.validate:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _transport_error(exc: BaseException) -> TransportError:
    """The innermost cause, as the system or OpenSSL names it; the outer ones repeat URLs and object names."""
    if isinstance(exc, TransportError):
        return exc
    proxy = ""
    seen = [exc]
    while True:
        if type(exc).__name__ == "ProxyError":
            proxy = "proxy: "
        inner = [getattr(exc, "reason", None), *exc.args, exc.__cause__, exc.__context__]
        following = next((e for e in inner if isinstance(e, BaseException) and e not in seen), None)
        if following is None:
            break
        exc = following
        seen.append(exc)
    kind: type[TransportError] = ConnectionFailed
    if isinstance(exc, ssl.SSLCertVerificationError):
        text = f"certificate verify failed: {exc.verify_message}"
        kind = WrongCertificate if exc.verify_code in _NOT_VALID_HERE_AND_NOW else UntrustedCertificate
    elif isinstance(exc, OSError):  # those of requests are, too
        text = exc.strerror or str(exc)
        kind = (
            TlsFailed
            if isinstance(exc, ssl.SSLError)
            else Timeout
            if isinstance(exc, (TimeoutError, socket.timeout)) or "Timeout" in type(exc).__name__  # two classes before Python 3.10
            else ConnectionFailed
        )
    elif isinstance(exc, (UnicodeError, TypeError, AssertionError)) or type(exc).__name__.startswith("Location"):
        # Its text may repeat the proxy's URL, password and all.
        text = f"no request can be made with this URL or the proxy's ({type(exc).__name__})"
    else:  # its text would repeat what the server sent
        text = f"what came back is not valid HTTP ({type(exc).__name__})"
        kind = InvalidResponse
    return kind(proxy + shown(text).rstrip("."))  # a proxy's reason phrase may be anything


def shown(text: str, secret: str | None = None) -> str:
    """Text that comes from outside, as it may be shown: short, printable, and without a secret that a server may echo."""
    if secret:
        text = text.replace(secret, "********")  # first, else a part of it could be left at the end
    return "".join(c if c.isprintable() else " " for c in text[:_SHOWN_CHARACTERS])
