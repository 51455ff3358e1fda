# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Draws the pictures of the guides, and those for narrow screens: ``python docs/images/draw.py``.

Their colours follow the light or dark mode of the reader.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from xml.sax.saxutils import escape

FOLDER = Path(__file__).resolve().parent
NARROW_FOLDER = FOLDER.parent / "docsite/static/narrow"  # the site's style sheet takes them from there

_STYLE = """
text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; fill: #14201b; }
.quiet { fill: #4b5a53; } .strong { font-weight: 600; } .on { fill: #ffffff; font-weight: 600; }
.ground { fill: #ffffff; } .box { fill: #f0f5f3; stroke: #b9c9c2; } .column { fill: #f7faf9; } .column.even { fill: #eef4f1; }
.line { fill: none; stroke: #5d6e66; stroke-width: 2; stroke-linecap: round; stroke-linejoin: round; } .rule { stroke: #cdd9d3; }
.head { fill: #5d6e66; } .good { fill: #0b6e4f; } .old { fill: #b45309; } .new { fill: #1d4ed8; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6efea; } .quiet { fill: #a9b8b1; } .on { fill: #ffffff; }
  .ground { fill: #161b19; } .box { fill: #222a27; stroke: #45534d; } .column { fill: #1b211f; } .column.even { fill: #222a27; }
  .line { stroke: #9aaba3; } .rule { stroke: #35413c; } .head { fill: #9aaba3; }
  .good { fill: #0b7a57; } .new { fill: #2f5fe0; }
}
"""


class Picture:
    """An SVG in the making. Places and sizes are in its own units."""

    def __init__(self, width: int, height: int, title: str, description: str) -> None:
        self._parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-labelledby="t d">',
            f'<title id="t">{escape(title)}</title>',
            f'<desc id="d">{escape(description)}</desc>',
            f"<style>{_STYLE}</style>",
            '<marker id="tip" viewBox="0 0 10 10" refX="8" refY="5" markerWidth="7" markerHeight="7" orient="auto-start-reverse">',
            '<path class="head" d="M0 0 L10 5 L0 10 z"/></marker>',
            f'<rect class="ground" width="{width}" height="{height}" rx="12"/>',
        ]

    def text(self, x: float, y: float, words: str, *, size: float = 15, kind: str = "", anchor: str = "middle") -> None:
        """Lines, one below the other, the first one's base line at y."""
        for i, line in enumerate(words.split("\n")):
            at = f'x="{x:g}" y="{y + i * size * 1.3:g}" text-anchor="{anchor}" font-size="{size:g}"'
            self._parts.append(f'<text {at} class="{kind}">{escape(line)}</text>')

    def rect(self, x: float, y: float, width: float, height: float, kind: str, radius: float = 10) -> None:
        self._parts.append(f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius:g}" class="{kind}"/>')

    def box(self, x: float, y: float, width: float, height: float, title: str, below: str = "") -> None:
        self.rect(x, y, width, height, "box")
        middle = y + height / 2
        lines = below.count("\n") + 1 if below else 0
        self.text(x + width / 2, middle + 6 - lines * 9, title, size=17, kind="strong")
        self.text(x + width / 2, middle + 27 - lines * 9, below, size=14, kind="quiet")

    def chip(self, x: float, y: float, words: str, kind: str, width: float = 58, size: float = 13) -> None:
        """Draw words on a coloured pill with its centre at x and y."""
        self.rect(x - width / 2, y - 13, width, 26, kind, 13)
        self.text(x, y + size * 0.36, words, size=size, kind="on")

    def arrow(self, path: str, *, dashed: bool = False) -> None:
        dashes = ' stroke-dasharray="2 6"' if dashed else ""
        self._parts.append(f'<path class="line" d="{path}" marker-end="url(#tip)"{dashes}/>')

    def rule(self, x: float, y: float, to: float) -> None:
        self._parts.append(f'<path class="rule" d="M{x:g} {y:g} H{to:g}"/>')

    def svg(self) -> str:
        return "\n".join([*self._parts, "</svg>", ""])


def key() -> Picture:
    drawn = Picture(
        860,
        440,
        "The path of a key",
        "On the key host, openssl creates a key pair. The public key is registered with Kaleyra for each number, goes from there to WhatsApp and to "
        "the customer's phone. The private key goes to your Flow endpoint alone. The phone encrypts messages with the public key, and only the "
        "endpoint can read them. The collection creates the pair, registers the public key, and verifies that the endpoint holds the private key.",
    )
    drawn.box(24, 170, 170, 104, "Key host", "openssl creates\nthe key pair")
    drawn.box(330, 34, 140, 84, "Kaleyra", "for each number")
    drawn.box(522, 34, 136, 84, "WhatsApp")
    drawn.box(706, 34, 130, 84, "Phone", "of a customer")
    drawn.box(530, 316, 306, 92, "Your Flow endpoint", "holds the private key: only it can decrypt")
    drawn.arrow("M109 170 V76 H324")
    drawn.arrow("M470 76 H516")
    drawn.arrow("M658 76 H700")
    drawn.arrow("M109 274 V362 H524")
    drawn.arrow("M771 118 V310")
    drawn.chip(212, 76, "public key", "good", 96)
    drawn.chip(308, 362, "private key", "old", 100)
    drawn.text(308, 398, "and nowhere else", size=14, kind="quiet")
    drawn.text(212, 112, "registered by the module", size=14, kind="quiet")
    drawn.text(756, 200, "messages, encrypted\nwith the public key", size=14, kind="quiet", anchor="end")
    drawn.arrow("M194 222 H560 V310", dashed=True)
    drawn.text(372, 246, "verified with an encrypted health check\nbefore any number gets the public key", size=14, kind="quiet")
    return drawn


def record() -> Picture:
    drawn = Picture(
        860,
        430,
        "The states of a record",
        "A record is absent or unreadable at first. Before a request it is written as unconfirmed. A confirmed success makes it confirmed. Killed or "
        "without a confirmed success it stays unconfirmed, and the next run registers again. A refusal restores the earlier record. While a "
        "confirmed record names the wanted key, nothing is sent; with another key, force or its age it becomes unconfirmed again.",
    )
    drawn.box(30, 120, 150, 70, "absent")
    drawn.box(30, 230, 150, 70, "unreadable")
    drawn.box(345, 160, 170, 90, "unconfirmed", "being registered")
    drawn.box(680, 160, 150, 90, "confirmed", "by the API")
    drawn.arrow("M180 155 C250 155 270 195 339 197")
    drawn.arrow("M180 265 C250 265 270 217 339 213")
    drawn.text(262, 140, "written before\nthe request", size=14, kind="quiet")
    drawn.arrow("M515 190 H674")
    drawn.chip(597, 172, "success", "good", 80)
    drawn.arrow("M680 226 H521")
    drawn.text(598, 250, "another key,\nforce, or its age", size=14, kind="quiet")
    drawn.arrow("M395 160 C375 84 485 84 467 154")
    drawn.text(430, 60, "killed, or success not confirmed:\nthe next run registers again", size=14, kind="quiet")
    drawn.arrow("M725 160 C705 84 805 84 787 154")
    drawn.text(756, 60, "the same key:\nnothing is sent", size=14, kind="quiet")
    drawn.arrow("M430 250 V330", dashed=True)
    drawn.box(295, 336, 270, 66, "as it was before", "the earlier record, byte for byte")
    drawn.chip(430, 288, "refused", "old", 84)
    return drawn


# Of a rotation: title, subtitle, files on the key host, keys of the endpoint, of the numbers, of phones.
_CURRENT, _NEXT, _PREVIOUS = "private.pem", "private.next.pem", "private.previous.pem"
_STATES = [
    ("Before", "one key", [(_CURRENT, "old")], ["old"], ["old"], ["old"]),
    ("Staged", "deployed and verified", [(_CURRENT, "old"), (_NEXT, "new")], ["old", "new"], ["old"], ["old"]),
    ("Registered", "each number moves", [(_CURRENT, "old"), (_NEXT, "new")], ["old", "new"], ["old", "→", "new"], ["old", "→", "new"]),
    ("Promoted", "next becomes current", [(_CURRENT, "new"), (_PREVIOUS, "old")], ["new", "old"], ["new"], ["old", "→", "new"]),
    ("Retired", "after keep_previous", [(_CURRENT, "new")], ["new"], ["new"], ["new"]),
]


def rotation() -> Picture:
    drawn = Picture(
        1000,
        430,
        "The states of a rotation",
        "Five states from left to right: before, staged, registered, promoted, retired. For each, the files on the key host, the keys that the "
        "endpoint holds, the key that the numbers carry and the key that phones use. The endpoint holds both keys from staged to promoted.",
    )
    rows = {"Key host": 142, "Endpoint holds": 214, "Numbers carry": 286, "Phones use": 358}
    for i, (title, below, *dummy) in enumerate(_STATES):
        middle = 224 + 168 * i
        drawn.rect(middle - 80, 24, 160, 370, "column even" if i % 2 else "column")
        drawn.text(middle, 56, title, size=17, kind="strong")
        drawn.text(middle, 78, below, size=12.5, kind="quiet")
        if i:
            drawn.arrow(f"M{middle - 96} 50 h22")
    for name, y in rows.items():
        drawn.text(18, y + 5, name, size=15, kind="strong", anchor="start")
        drawn.rule(18, y - 36, 982)
    for i, (dummy1, dummy2, files, *keys) in enumerate(_STATES):
        middle = 224 + 168 * i
        for j, (name, kind) in enumerate(files):
            drawn.chip(middle, 142 + (j - (len(files) - 1) / 2) * 29, name, kind, 154, 11.5)
        for y, row in zip(list(rows.values())[1:], keys, strict=True):
            _draw_keys(drawn, middle, y, row)
    drawn.text(
        500,
        418,
        "After any failure, the next run continues from the keys that exist. Phones fetch the new key when the endpoint answers 421.",
        size=13.5,
        kind="quiet",
    )
    return drawn


def _draw_keys(drawn: Picture, middle: float, y: float, row: list[str]) -> None:
    """Draw chips for the keys of one cell, with an arrow between them if one replaces the other."""
    moves = "→" in row
    chips = [key for key in row if key != "→"]
    for i, kind in enumerate(chips):
        drawn.chip(middle + (i - (len(chips) - 1) / 2) * (84 if moves else 68), y, kind, kind)
    if moves:
        drawn.arrow(f"M{middle - 10} {y} h18")


def awx() -> Picture:
    drawn = Picture(
        1000,
        470,
        "Where keys and records live in AWX",
        "AWX keeps the credential, the inventory and the project, and starts an execution environment for each job, which is deleted with all "
        "that was written in it. What lasts is on the key host, which the job reaches by SSH: the private key, its public key and the records. "
        "The API is called from there. The public key alone goes to Kaleyra. The workflow hands it from its first job to the second.",
    )
    drawn.rect(24, 24, 270, 422, "column")
    drawn.text(159, 58, "AWX", size=17, kind="strong")
    drawn.text(159, 79, "lasts: its database", size=14, kind="quiet")
    drawn.box(44, 98, 230, 92, "Credential", "account and app secret,\nor the private key itself")
    drawn.box(44, 206, 230, 76, "Inventory", "numbers, and the key host")
    drawn.box(44, 298, 230, 60, "Project", "playbooks, from Git")
    drawn.text(159, 392, "no private key in facts\nor artifacts: clear text", size=14, kind="quiet")
    drawn.rect(354, 24, 270, 422, "column even")
    drawn.text(489, 58, "Execution environment", size=17, kind="strong")
    drawn.text(489, 79, "deleted after each job", size=14, kind="quiet")
    drawn.box(374, 98, 230, 92, "Ensure key pair", "first node of the workflow")
    drawn.arrow("M489 190 V270")
    drawn.chip(489, 228, "public key", "good", 96)
    drawn.box(374, 276, 230, 92, "Register", "second node, in slices\nor with a limit")
    drawn.text(489, 402, "nothing written here lasts,\nneither ~ nor the project", size=14, kind="quiet")
    drawn.rect(684, 24, 292, 280, "column")
    drawn.text(830, 58, "Key host", size=17, kind="strong")
    drawn.text(830, 79, "lasts: ideally the endpoint", size=14, kind="quiet")
    drawn.box(704, 98, 252, 92, "Key pair", "created and kept here\n ")
    drawn.chip(830, 170, "private key", "old", 100)
    drawn.box(704, 206, 252, 82, "Records", "what each number carries")
    drawn.box(684, 362, 292, 84, "Kaleyra", "called from where the records are")
    drawn.arrow("M274 144 H368")
    drawn.arrow("M274 244 H318 V322 H368")
    drawn.arrow("M604 144 H698")
    drawn.text(651, 132, "SSH", size=14, kind="quiet")
    drawn.arrow("M604 322 H646 V247 H698")
    drawn.text(664, 340, "SSH", size=14, kind="quiet")
    drawn.arrow("M830 288 V356")
    drawn.chip(830, 328, "public key", "good", 96)
    return drawn


def key_narrow() -> Picture:
    drawn = Picture(400, 660, "The path of a key", "The same as the wide picture, from top to bottom.")
    drawn.box(115, 16, 170, 84, "Key host", "openssl creates\nthe key pair")
    for y, title, below in ((170, "Kaleyra", "for each number"), (290, "WhatsApp", ""), (390, "Phone", "of a customer")):
        drawn.box(16, y, 170, 64, title, below)
    drawn.box(16, 560, 368, 84, "Your Flow endpoint", "holds the private key: only it can decrypt")
    drawn.arrow("M150 100 V164")
    drawn.chip(110, 132, "public key", "good", 96)
    drawn.arrow("M101 234 V284")
    drawn.arrow("M101 354 V384")
    drawn.arrow("M101 454 V554")
    drawn.text(112, 500, "messages, encrypted\nwith the public key", size=14, kind="quiet", anchor="start")
    drawn.arrow("M250 100 V150 H330 V554")
    drawn.chip(330, 200, "private key", "old", 100)
    drawn.text(318, 300, "verified first,\nwith an\nencrypted\nhealth check", size=14, kind="quiet", anchor="end")
    return drawn


def record_narrow() -> Picture:
    drawn = Picture(400, 640, "The states of a record", "The same as the wide picture, from top to bottom.")
    drawn.box(16, 16, 170, 56, "absent")
    drawn.box(214, 16, 170, 56, "unreadable")
    drawn.box(115, 150, 170, 80, "unconfirmed", "being registered")
    drawn.box(115, 350, 170, 80, "confirmed", "by the API")
    drawn.box(66, 560, 268, 66, "as it was before", "the earlier record, byte for byte")
    drawn.arrow("M101 72 V122 H160 V144")
    drawn.arrow("M299 72 V122 H240 V144")
    drawn.text(200, 92, "written before\nthe request", size=14, kind="quiet")
    drawn.arrow("M170 230 V344")
    drawn.chip(170, 282, "success", "good", 80)
    drawn.arrow("M250 350 V236")
    drawn.text(262, 292, "another key,\nforce, or its age", size=14, kind="quiet", anchor="start")
    drawn.arrow("M285 180 C350 160 350 226 291 206")
    drawn.text(392, 244, "killed, or success\nnot confirmed", size=13, kind="quiet", anchor="end")
    drawn.arrow("M285 380 C350 360 350 426 291 406")
    drawn.text(392, 446, "the same key:\nnothing is sent", size=13, kind="quiet", anchor="end")
    drawn.arrow("M115 190 H40 V500 H150 V554", dashed=True)
    drawn.chip(58, 460, "refused", "old", 84)
    return drawn


def rotation_narrow() -> Picture:
    drawn = Picture(400, 1060, "The states of a rotation", "The same as the wide picture, from top to bottom.")
    for i, (title, below, files, *keys) in enumerate(_STATES):
        top = 12 + 200 * i
        drawn.rect(12, top, 376, 192, "column even" if i % 2 else "column")
        drawn.text(28, top + 26, title, size=17, kind="strong", anchor="start")
        drawn.text(372, top + 26, below, size=14, kind="quiet", anchor="end")
        for j, name in enumerate(("Key host", "Endpoint holds", "Numbers carry", "Phones use")):
            drawn.text(28, top + (56 if j == 0 else 80 + 30 * j) + 5, name, size=14, kind="strong", anchor="start")
        for j, (name, kind) in enumerate(files):
            drawn.chip(270, top + 52 + 28 * j, name, kind, 170, 13)
        for j, row in enumerate(keys, start=1):
            _draw_keys(drawn, 270, top + 80 + 30 * j, row)
    drawn.text(200, 1030, "After any failure, the next run continues\nfrom the keys that exist.", size=14, kind="quiet")
    return drawn


def awx_narrow() -> Picture:
    drawn = Picture(400, 940, "Where keys and records live in AWX", "The same as the wide picture, from top to bottom.")
    drawn.rect(12, 12, 376, 236, "column")
    drawn.text(200, 40, "AWX", size=17, kind="strong")
    drawn.text(200, 60, "lasts: its database", size=14, kind="quiet")
    drawn.box(28, 76, 164, 64, "Credential", "account, secrets")
    drawn.box(208, 76, 164, 64, "Inventory", "and the key host")
    drawn.box(28, 156, 164, 64, "Project", "playbooks")
    drawn.text(290, 184, "no private key\nin facts: clear text", size=14, kind="quiet")
    drawn.rect(12, 288, 376, 220, "column even")
    drawn.text(200, 316, "Execution environment", size=17, kind="strong")
    drawn.text(200, 336, "deleted after each job", size=14, kind="quiet")
    drawn.box(20, 352, 166, 84, "Ensure key pair", "first node")
    drawn.box(222, 352, 150, 84, "Register", "second node")
    drawn.arrow("M186 400 H216")
    drawn.chip(200, 462, "public key", "good", 96)
    drawn.text(200, 496, "from the first node to the second", size=13, kind="quiet")
    drawn.rect(12, 568, 376, 220, "column")
    drawn.text(200, 596, "Key host", size=17, kind="strong")
    drawn.text(200, 616, "lasts: ideally the endpoint", size=14, kind="quiet")
    drawn.box(28, 632, 164, 92, "Key pair", "created and\nkept here")
    drawn.box(208, 632, 164, 92, "Records", "what each\nnumber carries")
    drawn.chip(110, 746, "private key", "old", 100)
    drawn.box(12, 848, 376, 76, "Kaleyra", "called from where the records are")
    drawn.arrow("M200 248 V282")
    drawn.arrow("M200 508 V562")
    drawn.text(214, 542, "SSH", size=14, kind="quiet", anchor="start")
    drawn.arrow("M290 788 V842")
    drawn.chip(290, 812, "public key", "good", 96)
    return drawn


PICTURES: dict[Path, Callable[[], Picture]] = {
    **{FOLDER / f"{draw.__name__}.svg": draw for draw in (key, record, rotation, awx)},
    **{
        NARROW_FOLDER / f"{draw.__name__.removesuffix('_narrow')}.svg": draw
        for draw in (key_narrow, record_narrow, rotation_narrow, awx_narrow)
    },
}

if __name__ == "__main__":
    NARROW_FOLDER.mkdir(exist_ok=True)
    for path, draw in PICTURES.items():
        path.write_text(draw().svg(), encoding="utf-8")
