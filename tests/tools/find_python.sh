#!/bin/sh
# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Prints the Python to develop with: the newest that ansible-core supports, wherever it is installed.

for python in python3.13 python3.14 python3.12 \
    "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.13.*/bin/python3 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.12.*/bin/python3 \
    python3.11 python3; do
    # Runs it, because a version manager's shim is there also when its version is not.
    if "$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
        command -v "$python"
        exit 0
    fi
done
echo "No Python 3.11 or newer with venv was found (on Debian and Ubuntu: apt install python3-venv)." >&2
exit 1
