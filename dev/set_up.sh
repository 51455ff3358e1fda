#!/bin/sh
# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Sets up .cache in the checkout: a virtual environment with what the tests and the demo need, and the collections.
set -eu
cd "$(dirname "$0")/.."
python=.cache/venv/bin/python
collections=.cache/collections/ansible_collections

echo "Setting up .cache (once) ..."
mkdir -p .cache/tmp "$collections/kaleyra"
"$(sh dev/matrix/find_python.sh)" -m venv .cache/venv
$python -m pip install --quiet --disable-pip-version-check --no-cache-dir uv
# Without a cache, which would take more space than the installed packages.

$python -m uv pip install --quiet --no-cache --python $python --requirement tests/requirements.txt
$python dev/matrix/cores.py --set-up
echo "[defaults]" > .cache/ansible.cfg
ln -sfn ../../../.. "$collections/kaleyra/whatsapp"
touch .cache/venv/.ready
