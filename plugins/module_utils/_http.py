# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""HTTP requests, limited in time and memory."""

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

# The API's answers have a few hundred bytes.
MAX_BODY = 64 * 1024

# Connections that are kept open: as many as there can be requests at once.
MAX_CALLS = 100

# The longest timeout of an attempt, in seconds: a day.
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
    :param ca_path: bundle (or folder) of the only authorities to trust; without it, the system's trust store is used
    """

    validate: bool = True
    ca_path: str | None = None


@dataclasses.dataclass(frozen=True)
class Answer:
    """An HTTP response.

    :param body: as received; one byte longer than the limit of :func:`send` if it was truncated there
    :param retry_after: the header of that name
    :param seconds: from connecting to the last byte
    """

    status: int
    body: bytes
    retry_after: str | None = None
    seconds: float = dataclasses.field(default=0, compare=False)


class TransportError(Exception):
    """There was no complete answer, so the request may or may not have arrived. The message is the cause from the system or OpenSSL."""


class Timeout(TransportError):
    """The answer did not arrive in time."""


class ConnectionFailed(TransportError):
    """There was no connection, or it was closed too early."""


class InvalidResponse(TransportError):
    """The answer is not valid HTTP."""


class TlsFailed(TransportError):
    """The TLS handshake failed."""


class UntrustedCertificate(TlsFailed):
    """The certificate was issued by an authority that is not trusted, or is not meant for servers."""


class WrongCertificate(TlsFailed):
    """The certificate is for another host, or for another time."""


def prepare(url: str, tls: Tls) -> None:
    """Load what a request to this URL needs, before many threads would do it at the same time.

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
    """Send one request. Redirects are not followed, and nothing is repeated. Proxies are taken from the environment.

    :param content: the body, None for none
    :param timeout: seconds for everything: name look-up, connection, TLS, and the last byte of the answer
    :param max_body: how many bytes of the answer are read; one more shows that there are more
    :raises TransportError: the request may or may not have arrived
    :raises InvalidInput: ``tls.ca_path`` cannot be used
    :raises MissingLibrary: requests cannot be imported
    """
    requests = load_requests()
    adapter = _adapter(tls if url.startswith("https:") else None)
    attempt = _Attempt()

    def exchange() -> Answer:
        # Without a session, which would add credentials from a .netrc and cookies, trust REQUESTS_CA_BUNDLE, and read the
        # whole body of a redirect even if it does not follow it.
        request = requests.Request(method, url, headers={**headers, **_HEADERS}, data=content).prepare()
        proxies = requests.utils.get_environ_proxies(url)
        start = time.monotonic()
        with attempt.running(), adapter.send(request, stream=True, timeout=timeout, verify=tls.validate, proxies=proxies) as response:
            if response.status_code < 200:
                # http.client takes an interim answer for the final one. The final one must not be read by the next request.
                response.raw.close()
                raise InvalidResponse(f"there was an interim answer (HTTP {response.status_code}) instead of a final one")
            # Undecoded, because a small compressed body can become huge.
            body = response.raw.read(max_body + 1, decode_content=False)
            if len(body) <= max_body and response.raw.length_remaining:
                raise ConnectionFailed("the answer was truncated")
            return Answer(response.status_code, body, response.headers.get("Retry-After"), time.monotonic() - start)

    try:
        return run_with_deadline(exchange, timeout)
    except queue.Empty:
        raise Timeout(f"no complete answer within {timeout:g} seconds") from None
    except (requests.RequestException, requests.packages.urllib3.exceptions.HTTPError, OSError, ValueError, TypeError) as exc:
        # TypeError: from requests, for a proxy without a host
        raise _transport_error(exc) from exc
    finally:
        attempt.give_up()


class _Attempt:
    """The connection of one request, which can be closed while its thread waits for it.

    requests limits single reads only: a server that sends one byte at a time would keep thread and connection forever. A request that was
    delayed, for example by a slow name look-up, must not be sent once its caller has given up.
    """

    _of_thread = threading.local()

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._given_up = False
        # Another descriptor of the connection, which works while TLS wraps the first one.
        self._socket: socket.socket | None = None

    @contextlib.contextmanager
    def running(self) -> t.Iterator[None]:
        """Assign the thread's connection to this attempt."""
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
        """Assign a connected socket to the attempt of this thread.

        :raises OSError: the attempt was given up
        """
        attempt: _Attempt = cls._of_thread.attempt
        with attempt._mutex:
            if attempt._given_up:
                raise OSError("given up")
            if not attempt._socket:
                attempt._socket = socket.socket(fileno=os.dup(connected.fileno()))

    def give_up(self) -> None:
        """Close the connection. Has no effect after the end of the request."""
        with self._mutex:
            self._given_up = True
            if self._socket:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)


def _interruptible(pool_class: t.Any) -> t.Any:
    """Return a urllib3 connection pool whose connections can be closed by :meth:`_Attempt.give_up`."""

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
    """Return the one adapter of the process, so that a loop keeps its connection, and each thread its own.

    :param tls: None for plain HTTP
    """
    requests = load_requests()
    from requests.adapters import HTTPAdapter

    urllib3 = requests.packages.urllib3
    # It logs unreadable headers of an answer, where the server may echo the API key, and Ansible writes that to its log file.
    logging.getLogger("urllib3").setLevel(logging.CRITICAL)
    if tls and not tls.validate:
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)  # the user asked for it
    context = _make_context(tls) if tls else None
    pools = {
        "http": _interruptible(urllib3.connectionpool.HTTPConnectionPool),
        "https": _interruptible(urllib3.connectionpool.HTTPSConnectionPool),
    }

    class Adapter(HTTPAdapter):
        """Trusts the authorities that OpenSSL on this system trusts, instead of the bundle of requests."""

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
            f"ca_path {tls.ca_path} cannot be used: {getattr(exc, 'strerror', None) or exc}. Set it to a PEM file with the certificates of the "
            "authorities to trust, or leave it out to use the system's trust store."
        ) from exc
    if not tls.validate:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _transport_error(exc: BaseException) -> TransportError:
    """Return the innermost cause, from the system or OpenSSL; the outer ones repeat URLs and object names."""
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
            if isinstance(exc, (TimeoutError, socket.timeout)) or "Timeout" in type(exc).__name__  # different classes before Python 3.10
            else ConnectionFailed
        )
    elif isinstance(exc, (UnicodeError, TypeError, AssertionError)) or type(exc).__name__.startswith("Location"):
        # Its text may repeat the URL of the proxy with its password.
        text = f"the URL of the server or of the proxy cannot be used ({type(exc).__name__})"
    else:  # its text would repeat what the server sent
        text = f"the answer is not valid HTTP ({type(exc).__name__})"
        kind = InvalidResponse
    return kind(proxy + shown(text).rstrip("."))  # the reason phrase of a proxy can be any text


def shown(text: str, secret: str | None = None) -> str:
    """Return untrusted text for a message: shortened, printable, and without a secret that the server may have echoed."""
    if secret:
        text = text.replace(secret, "********")  # first, or a part of it could remain at the end
    return "".join(c if c.isprintable() else " " for c in text[:_SHOWN_CHARACTERS])
