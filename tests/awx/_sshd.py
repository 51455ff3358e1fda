# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An SSH host on the loopback, with users, homes and a Python of its own."""

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
import time
from pathlib import Path
from typing import Any

SSHD = "/usr/sbin/sshd"
SUDOERS = Path("/etc/sudoers.d")


def obstacle() -> str | None:
    """Return why there can be no such host here, or None."""
    if os.geteuid() != 0:
        return "only root can add users and run an sshd for them"
    missing = [program for program in (SSHD, "ssh-agent", "ssh-keygen", "sudo", "useradd") if not shutil.which(program)]
    return f"missing: {', '.join(missing)}; on Debian: apt-get install openssh-server sudo" if missing else None


@dataclasses.dataclass(frozen=True)
class User:
    """An unprivileged user of the host."""

    name: str
    uid: int
    home: Path

    @property
    def records(self) -> Path:
        """The default folder of the records."""
        return self.home / ".ansible/kaleyra_flows_encryption"


class Host:
    """The host, started by the constructor. :meth:`stop` ends it and removes its files and users.

    :ivar login: user that logs in by key, and may use sudo without a password
    :ivar service: user that owns the endpoint's files, and cannot log in
    :ivar srv: a folder that root owns
    :ivar interpreter: Python of the host, with requests and cryptography
    """

    def __init__(self) -> None:
        # Not in the checkout, which the host's users may not be able to read.
        self.folder = Path(tempfile.mkdtemp(prefix="k", dir="/tmp"))
        self.folder.chmod(0o755)
        self.srv = self.folder / "srv"
        self.srv.mkdir()
        self._users: list[User] = []
        self._server: subprocess.Popen[bytes] | None = None
        try:
            self.login, self.service = self._add_user("login"), self._add_user("service")
            sudoers = SUDOERS / self.login.name
            sudoers.touch(mode=0o440)
            sudoers.write_text(f"{self.login.name} ALL=(ALL) NOPASSWD: ALL\n")
            self.interpreter = self._make_python()
            for name in ("host_key", "user_key"):
                subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", self.folder / name], check=True)
            self._ssh_key = (self.folder / "user_key").read_text()
            self._start()
        except BaseException:
            self.stop()
            raise

    def _add_user(self, part: str) -> User:
        name, home = f"kaleyra-{part}-{os.getpid()}", self.folder / part
        options = ("--no-log-init", "--user-group", "--create-home", "--home-dir", home, "--shell", "/bin/sh", "--password", "*")
        subprocess.run(["useradd", *options, name], check=True, capture_output=True)
        user = User(name, pwd.getpwnam(name).pw_uid, home)
        self._users.append(user)
        return user

    def _make_python(self) -> Path:
        """Return a virtual environment's Python, on an interpreter that the host's users can run: one in root's home may not be."""
        for candidate in (sys._base_executable, "/usr/bin/python3"):  # type: ignore[attr-defined]  # pylint: disable=protected-access
            with contextlib.suppress(OSError):
                if subprocess.run([candidate, "-c", ""], user=self.login.uid, capture_output=True, check=False).returncode == 0:
                    break
        else:
            raise RuntimeError("no Python that other users can run: apt-get install python3")
        uv = [sys.executable, "-m", "uv"]
        interpreter = self.folder / "python/bin/python"
        subprocess.run([*uv, "venv", "--quiet", "--python", candidate, self.folder / "python"], check=True)
        subprocess.run([*uv, "pip", "install", "--quiet", "--python", interpreter, "requests", "cryptography"], check=True)
        return interpreter

    def _start(self) -> None:
        # sshd's privilege separation folder, which the service's unit usually makes.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        keys, settings, log = (self.folder / name for name in ("authorized_keys", "sshd_config", "sshd.log"))
        keys.write_text((self.folder / "user_key.pub").read_text())
        (self.folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {(self.folder / 'host_key.pub').read_text()}")
        settings.write_text(
            f"ListenAddress 127.0.0.1:{self.port}\nHostKey {self.folder / 'host_key'}\nAuthorizedKeysFile {keys}\n"
            f"AllowUsers {self.login.name}\nAuthenticationMethods publickey\nPidFile none\nSubsystem sftp internal-sftp\n"
            "MaxStartups 100\nMaxSessions 100\n"
            "StrictModes no\n"  # /tmp is writable for all
        )
        with log.open("wb") as file:
            self._server = subprocess.Popen([SSHD, "-D", "-e", "-f", settings], stderr=file, start_new_session=True)
        deadline = time.monotonic() + 60
        while self._server.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                if connection.recv(4) == b"SSH-":
                    return
            time.sleep(0.05)
        raise RuntimeError(f"sshd did not start: {log.read_text()}")

    @property
    def machine(self) -> tuple[str, str]:
        """User name and SSH key of the machine credential."""
        return self.login.name, self._ssh_key

    def variables(self, **further: Any) -> dict[str, Any]:
        """Return the connection variables of this host for an inventory. It has its usual temporary folder, whatever the job's settings say."""
        return {
            "ansible_host": "127.0.0.1",
            "ansible_port": self.port,
            "ansible_ssh_common_args": f"-F none -o UserKnownHostsFile={self.folder / 'known_hosts'} -o StrictHostKeyChecking=yes",
            "ansible_python_interpreter": str(self.interpreter),
            "ansible_remote_tmp": "~/.ansible/tmp",
            **further,
        }

    def clean(self) -> None:
        """Remove all files that jobs have left."""
        for folder in (self.srv, *(user.home for user in self._users)):
            for path in folder.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def stop(self) -> None:
        if self._server is not None:
            self._server.terminate()
            self._server.wait()
        for user in self._users:
            for process in Path("/proc").glob("[0-9]*"):
                with contextlib.suppress(OSError):
                    if process.stat().st_uid == user.uid:
                        os.kill(int(process.name), signal.SIGKILL)
            subprocess.run(["userdel", "--force", user.name], check=True, capture_output=True)
            (SUDOERS / user.name).unlink(missing_ok=True)
        shutil.rmtree(self.folder)
