# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host that outlives jobs: Debian's own sshd on the loopback, with users, homes and a Python of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SSHD = "/usr/sbin/sshd"
SUDOERS = Path("/etc/sudoers.d")


def obstacle() -> str | None:
    """Why there can be no such host here, or None."""
    if os.geteuid() != 0:
        return "only root can run an sshd for other users, and make these"
    missing = [program for program in (SSHD, "ssh-agent", "ssh-keygen", "sudo", "useradd") if not shutil.which(program)]
    if missing:
        return f"missing: {', '.join(missing)}; on Debian: apt-get install openssh-server sudo"
    return None


@dataclasses.dataclass(frozen=True)
class User:
    """An unprivileged user of the host."""

    name: str
    uid: int
    home: Path

    @property
    def records(self) -> Path:
        """Where the module keeps its records unless told otherwise."""
        return self.home / ".ansible/kaleyra_flows_encryption"


class Host:
    """The host, started by the constructor; `stop` ends it and removes all that it was.

    :ivar login: who logs in by key, and may become everybody
    :ivar service: who owns what the endpoint uses; nobody can log in as this one
    :ivar srv: a folder of root's
    :ivar private_key: what the machine credential holds, to log in with
    :ivar interpreter: a Python of the host's own, with requests and cryptography
    """

    def __init__(self) -> None:
        # Not in the checkout, into which the host's users may not be able to look.
        self.folder = Path(tempfile.mkdtemp(prefix="k", dir="/tmp"))
        self.folder.chmod(0o755)
        self.srv = self.folder / "srv"
        self.srv.mkdir()
        self._users: list[User] = []
        self._server: subprocess.Popen[bytes] | None = None
        try:
            self._set_up()
        except BaseException:
            self.stop()
            raise

    def _set_up(self) -> None:
        self.login, self.service = self._add_user("login"), self._add_user("service")
        self._sudoers = SUDOERS / self.login.name
        self._sudoers.touch(mode=0o440)
        self._sudoers.write_text(f"{self.login.name} ALL=(ALL) NOPASSWD: ALL\n")
        self.interpreter = self._make_python()
        for name in ("host_key", "user_key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", self.folder / name], check=True)
        self.private_key = (self.folder / "user_key").read_text()
        self._start()

    def _add_user(self, part: str) -> User:
        name, home = f"kaleyra-{part}-{os.getpid()}", self.folder / part
        options = ("--no-log-init", "--user-group", "--create-home", "--home-dir", home, "--shell", "/bin/sh", "--password", "*")
        subprocess.run(["useradd", *options, name], check=True, capture_output=True)
        user = User(name, pwd.getpwnam(name).pw_uid, home)
        self._users.append(user)
        return user

    def _make_python(self) -> Path:
        """A virtual environment on an interpreter that the host's users can run, which one in somebody's home may not be."""
        for candidate in (sys._base_executable, "/usr/bin/python3"):  # type: ignore[attr-defined]  # pylint: disable=protected-access
            with contextlib.suppress(OSError):
                if subprocess.run([candidate, "-c", ""], user=self.login.uid, capture_output=True, check=False).returncode == 0:
                    break
        else:
            raise RuntimeError("no Python that other users can run: apt-get install python3")
        uv = [sys.executable, "-m", "uv"]
        environment = self.folder / "python"
        subprocess.run([*uv, "venv", "--quiet", "--python", candidate, environment], check=True)
        interpreter = environment / "bin/python"
        subprocess.run([*uv, "pip", "install", "--quiet", "--python", interpreter, "requests", "cryptography"], check=True)
        return interpreter

    def _start(self) -> None:
        # Compiled in, and usually made by the service's unit.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        keys, known = self.folder / "authorized_keys", self.folder / "known_hosts"
        keys.write_text((self.folder / "user_key.pub").read_text())
        known.write_text(f"[127.0.0.1]:{self.port} {(self.folder / 'host_key.pub').read_text()}")
        settings = self.folder / "sshd_config"
        settings.write_text(
            f"ListenAddress 127.0.0.1:{self.port}\nHostKey {self.folder / 'host_key'}\nAuthorizedKeysFile {keys}\n"
            f"AllowUsers {self.login.name}\nAuthenticationMethods publickey\nPidFile none\nSubsystem sftp internal-sftp\n"
            "MaxStartups 100\nMaxSessions 100\n"
            "StrictModes no\n"  # which do not like /tmp
        )
        self._log = self.folder / "sshd.log"
        with self._log.open("wb") as log:
            self._server = subprocess.Popen([SSHD, "-D", "-e", "-f", settings], stderr=log, start_new_session=True)
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                if connection.recv(4) == b"SSH-":
                    return
            if self._server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"sshd did not start: {self._log.read_text()}")
            time.sleep(0.05)

    def variables(self, **further: Any) -> dict[str, Any]:
        """Variables of an inventory's host that is this one. Its temporary files are its own, whatever the job's settings say."""
        return {
            "ansible_host": "127.0.0.1",
            "ansible_port": self.port,
            "ansible_ssh_common_args": f"-F none -o UserKnownHostsFile={self.folder / 'known_hosts'} -o StrictHostKeyChecking=yes",
            "ansible_python_interpreter": str(self.interpreter),
            "ansible_remote_tmp": "~/.ansible/tmp",
            **further,
        }

    def clean(self) -> None:
        """Forget all that jobs have left."""
        for folder in (self.srv, *(user.home for user in self._users)):
            for path in folder.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def stop(self) -> None:
        """End the server and what runs for its users, and remove these."""
        if self._server is not None:
            self._server.terminate()
            self._server.wait()
        for user in self._users:
            for process in processes():
                if process.uid == user.uid:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(process.pid, signal.SIGKILL)
            subprocess.run(["userdel", "--force", user.name], check=True, capture_output=True)
            (SUDOERS / user.name).unlink(missing_ok=True)
        shutil.rmtree(self.folder)


@dataclasses.dataclass(frozen=True)
class Process:
    """A process as everybody on the machine sees it."""

    pid: int
    uid: int
    arguments: str


def processes() -> Iterator[Process]:
    """All that run at the moment."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with contextlib.suppress(OSError):
                arguments = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                yield Process(int(folder.name), folder.stat().st_uid, arguments)


class Watch:
    """Takes down, for as long as the block lasts, the arguments of all processes, and the environment of those of some users."""

    def __init__(self, *users: User) -> None:
        self._uids = {user.uid for user in users}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.arguments: dict[int, set[str]] = {}
        """Of the processes of each user."""
        self.environments: set[str] = set()

    def _look(self) -> None:
        while not self._end.wait(0.05):
            for process in processes():
                self.arguments.setdefault(process.uid, set()).add(process.arguments)
                if process.uid in self._uids:
                    with contextlib.suppress(OSError):
                        self.environments.add(Path(f"/proc/{process.pid}/environ").read_text(errors="replace"))

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def seen(self) -> dict[Any, str]:
        """All of it, to look for secrets in."""
        return {
            **{f"the arguments of user {uid}": "\n".join(found) for uid, found in self.arguments.items()},
            "the environments": "\n".join(self.environments),
        }
