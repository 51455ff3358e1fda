# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A Flow endpoint of its own process, and a phone that sends to it.

What decrypts and encrypts is pywa's, which this project did not write. It holds any number of private keys, as an endpoint must while a
key is rotated, and loads them again on SIGHUP.
"""
