#!/bin/sh
# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Prints the path of a Python, wherever it is installed: of that version (`find_python.sh 3.9`), or else of the one to develop with, the
# newest that ansible-core supports.

# HOME may be another than the one that a version manager was installed in, which is still in PATH then.
shims=$(printf %s "$PATH" | tr : '\n' | grep '/shims$' | grep -v /plugins/ | head -n 1)
for root in "$PYENV_ROOT" "${shims%/shims}" "$HOME/.pyenv"; do
    [ -d "$root/versions" ] && break
done

for version in ${1:-3.13 3.14 3.12 3.11 3}; do
    for python in "python$version" "$root/versions/$version".*/bin/python3; do
        # Runs it, because a version manager's shim is there also when its version is not. What it prints is never a shim.
        "$python" - "$version" 2>/dev/null <<'END' && exit 0
import ensurepip, sys, venv
if sys.argv[1] not in ("%d.%d" % sys.version_info[:2], "3" if sys.version_info >= (3, 11) else ""):
    sys.exit(1)
print(sys.executable)
END
    done
done
echo "No Python ${1:-3.11 or newer} with venv was found (on Debian and Ubuntu: apt install python${1:-3}-venv)." >&2
exit 1
