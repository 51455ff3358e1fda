# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: it can change in any release.

"""The network: one function that posts, within bounds. All above it can be tested without a network."""

from __future__ import annotations

import dataclasses
import functools
import io
import logging
import os
import queue
import ssl
import threading
import time
import typing as t

from ._errors import InvalidInput
from ._libraries import load_requests

# The API's answers have some hundred bytes. What is longer is no proof of anything.
MAX_BODY = 64 * 1024

# Connections that are kept: as many as there can be calls at once.
MAX_CALLS = 100

# Of an attempt, in seconds: a day.
MAX_TIMEOUT = 86400

_SHOWN_CHARACTERS = 200

_HEADERS = {
    "Accept-Encoding": "identity",  # the body is read undecoded
    "User-Agent": "kaleyra.whatsapp (Ansible collection)",
}


@dataclasses.dataclass(frozen=True)
class Tls:
    """How a server proves who it is.

    :param validate: whether it must
    :param ca_path: bundle (or folder) of the only authorities that count; without it the system's trust store counts
    """

    validate: bool = True
    ca_path: str | None = None


@dataclasses.dataclass(frozen=True)
class Answer:
    """What came back.

    :param body: as sent, at most :data:`MAX_BODY` bytes and one more
    :param retry_after: the header of that name
    :param seconds: from connecting to the last byte
    """

    status: int
    body: bytes
    retry_after: str | None = None
    seconds: float = dataclasses.field(default=0, compare=False)


class NoAnswer(Exception):
    """No whole answer came; the message is the cause as the system or OpenSSL names it.

    :param kind: ``timeout``, ``tls`` or ``connection``
    """

    def __init__(self, cause: str, kind: str = "connection") -> None:
        super().__init__(cause)
        self.kind = kind


def prepare(url: str, tls: Tls) -> None:
    """Load what a call to this URL takes: once for many calls, and before there are threads that would all do it at once.

    :raises InvalidInput: ``tls.ca_path`` cannot be used
    :raises MissingLibrary: requests cannot be imported
    """
    load_requests()
    _adapter(tls if url.startswith("https:") else None)


def post(url: str, headers: dict[str, str], content: bytes, *, timeout: float, tls: Tls) -> Answer:
    """POST once, following nothing and repeating nothing. Proxies are taken from the environment.

    :param timeout: seconds, for all of it: name look-up, connection, TLS, and the last byte of the answer
    :raises NoAnswer: the request may or may not have arrived
    :raises InvalidInput: ``tls.ca_path`` cannot be used
    :raises MissingLibrary: requests cannot be imported
    """
    requests = load_requests()
    adapter = _adapter(tls if url.startswith("https:") else None)
    body = _Body(content)

    def exchange() -> Answer:
        # Not by a session: it would add credentials from a .netrc and cookies, trust REQUESTS_CA_BUNDLE, and read the
        # whole body of a redirect, even of one that it does not follow.
        request = requests.Request("POST", url, headers={**headers, **_HEADERS}, data=body).prepare()
        proxies = requests.utils.get_environ_proxies(url)
        start = time.monotonic()
        with adapter.send(request, stream=True, timeout=timeout, verify=tls.validate, proxies=proxies) as response:
            if response.status_code < 200:
                # http.client takes an interim answer for the last one. What follows must not be there for the next request.
                response.raw.close()
                raise NoAnswer(f"an interim answer (HTTP {response.status_code}) came in place of a final one")
            # Undecoded, because a small compressed body can grow without bound.
            came = response.raw.read(MAX_BODY + 1, decode_content=False)
            if len(came) <= MAX_BODY and response.raw.length_remaining:
                raise NoAnswer("the answer was cut off")
            return Answer(response.status_code, came, response.headers.get("Retry-After"), time.monotonic() - start)

    try:
        return _in_a_lane(exchange, timeout)
    except queue.Empty:
        raise NoAnswer(f"no whole answer within {timeout:g} seconds", "timeout") from None
    except (requests.RequestException, requests.packages.urllib3.exceptions.HTTPError, OSError, ValueError, TypeError) as exc:
        # TypeError: requests meets a proxy without a host
        raise NoAnswer(*_cause(exc)) from exc
    finally:
        body.given_up = True


class _Body(io.BytesIO):
    """A request's body that is not sent any more once its caller has given up.

    Else a call that was held up, by a slow name look-up say, could register its key after the caller has registered another.
    """

    given_up = False

    def read(self, size: int | None = -1, /) -> bytes:
        if self.given_up:
            raise OSError("given up")
        return super().read(size)


class _Lane:
    """A thread that calls are made in, because requests bounds single reads only: a server that trickles would hold it for ever.

    A lane whose call has not ended is left behind; being a daemon, it ends with its process.
    """

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[tuple[t.Callable[[], Answer], queue.SimpleQueue[Answer | BaseException]]] = queue.SimpleQueue()
        threading.Thread(target=self._work, daemon=True).start()

    def run(self, call: t.Callable[[], Answer], seconds: float) -> Answer | BaseException:
        """Return what the call returns or raises, or raise ``queue.Empty`` when time is up."""
        # One for each call: what comes late must not be taken for the result of the next one.
        results: queue.SimpleQueue[Answer | BaseException] = queue.SimpleQueue()
        self._calls.put((call, results))
        return results.get(timeout=seconds)

    def _work(self) -> None:
        while True:
            call, results = self._calls.get()
            try:
                results.put(call())
            except BaseException as exc:
                results.put(exc)


# Those that wait for a call, one for each that there have been at once.
_lanes: list[_Lane] = []


def _in_a_lane(call: t.Callable[[], Answer], seconds: float) -> Answer:
    """Return what the call returns, or raise what it raises, or ``queue.Empty`` when time is up."""
    try:
        lane = _lanes.pop()
    except IndexError:
        lane = _Lane()
    result = lane.run(call, seconds)
    # Only now: the lane of a call that was given up, be it by a signal as that of Ansible's own time limit for a task, is busy.
    _lanes.append(lane)
    if isinstance(result, BaseException):
        raise result
    return result


@functools.cache
def _adapter(tls: Tls | None) -> t.Any:
    """One connection pool a process, so that a loop keeps its connection, and each thread its own."""
    requests = load_requests()
    from requests.adapters import HTTPAdapter

    # It logs what it cannot read of an answer's head, where the server may echo the API key, and Ansible's log file takes that in.
    logging.getLogger("urllib3").setLevel(logging.CRITICAL)
    if tls is None:
        return HTTPAdapter(pool_maxsize=MAX_CALLS)
    if not tls.validate:
        urllib3 = requests.packages.urllib3
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)  # the user asked for it
    context = _make_context(tls)

    class Adapter(HTTPAdapter):
        """Trusts what OpenSSL on this system trusts; requests alone would trust its own bundle."""

        def init_poolmanager(self, *args: t.Any, **kwargs: t.Any) -> None:
            super().init_poolmanager(*args, ssl_context=context, **kwargs)

        def proxy_manager_for(self, proxy: str, **kwargs: t.Any) -> t.Any:
            return super().proxy_manager_for(proxy, ssl_context=context, proxy_ssl_context=context, **kwargs)

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


def _cause(exc: BaseException) -> tuple[str, str]:
    """The innermost cause, as the system or OpenSSL names it, and its kind; the outer ones repeat URLs and object names."""
    proxy = False
    seen = [exc]
    while True:
        proxy = proxy or type(exc).__name__ == "ProxyError"
        inner = [getattr(exc, "reason", None), *exc.args, exc.__cause__, exc.__context__]
        following = next((e for e in inner if isinstance(e, BaseException) and e not in seen), None)
        if following is None:
            break
        exc = following
        seen.append(exc)
    if isinstance(exc, ssl.SSLCertVerificationError):
        text = f"certificate verify failed: {exc.verify_message}"
    elif isinstance(exc, OSError):  # those of requests are, too
        text = exc.strerror or str(exc)
    elif isinstance(exc, (UnicodeError, TypeError, AssertionError)) or type(exc).__name__.startswith("Location"):
        # Its text may repeat the proxy's URL, password and all.
        text = f"no request can be made with this URL or the proxy's ({type(exc).__name__})"
    else:  # its text would repeat what the server sent
        text = f"what came back is not valid HTTP ({type(exc).__name__})"
    text = shown(text).rstrip(".")  # a proxy's reason phrase may be anything
    kind = "tls" if isinstance(exc, ssl.SSLError) else "timeout" if isinstance(exc, TimeoutError) or "Timeout" in type(exc).__name__ else "connection"
    return f"proxy: {text}" if proxy else text, kind


def shown(text: str, secret: str | None = None) -> str:
    """Text that comes from outside, as it may be shown: short, printable, and without a secret that a server may echo."""
    if secret:
        text = text.replace(secret, "********")  # first, else a part of it could be left at the end
    return "".join(c if c.isprintable() else " " for c in text[:_SHOWN_CHARACTERS])
