# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Settings of Sphinx for the documentation site: the guides in docs/, and the reference from antsibull-docs. ``make docs`` builds it."""

from __future__ import annotations

import importlib.resources
import re
from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx

GALAXY = yaml.safe_load((Path(__file__).resolve().parents[2] / "galaxy.yml").read_text())

project = f"{GALAXY['namespace']}.{GALAXY['name']}"
release = GALAXY["version"]
project_copyright = project + " contributors"
html_title = project

extensions = ["myst_parser", "sphinx_antsibull_ext", "sphinx_copybutton"]
exclude_patterns = ["README.md", "examples"]  # the home page includes the README, and guides link to the examples
myst_heading_anchors = 3  # the same as on GitHub
default_role = "any"
highlight_language = "YAML+Jinja"
pygments_style, pygments_dark_style = "default", "github-dark"
copybutton_prompt_text = "$ "
copybutton_exclude = ".linenos, .gp, .go"

html_theme = "furo"
html_static_path = ["static"]
html_favicon = "static/favicon.svg"
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_use_index = False


def _colours(scheme: str) -> dict[str, str]:
    """Return the colours of antsibull-docs for the tables of options, so that they follow the theme's light and dark mode."""
    css = importlib.resources.files("sphinx_antsibull_ext").joinpath(f"colors-{scheme}.css").read_text(encoding="utf-8")
    return dict(re.findall(r"--(antsibull[\w-]+):([^;}]+)", css))


antsibull_ext_color_scheme = "none"
html_theme_options: dict[str, Any] = {
    "light_css_variables": {
        "sidebar-item-font-size": "0.8125rem",
        **_colours("default"),
        "color-brand-primary": "#0b6e4f",
        "color-brand-content": "#0b6e4f",
        "color-brand-visited": "#0b6e4f",
        "antsibull-table-background-header": "#dcebe5",
        "antsibull-table-background-even": "#f4f8f6",
        "antsibull-table-border": "#b9c9c2",
        "antsibull-narrowtable-background": "#f4f8f6",
        "antsibull-attribute-support-none": "#b91c1c",
        "antsibull-attribute-support-partial": "#7a5d00",
        "antsibull-option-required": "#b91c1c",
        "antsibull-links-background": "#0b6e4f",
        "antsibull-links-background-active": "#0e8a63",
    },
    "dark_css_variables": {
        **_colours("default-dark"),
        "antsibull-table-background-header": "#2b302e",
        "antsibull-narrowtable-background": "#2b302e",
        "color-brand-primary": "#5fd3a6",
        "color-brand-content": "#5fd3a6",
        "color-brand-visited": "#5fd3a6",
        "antsibull-links-background": "#1f6b51",
        "antsibull-links-background-active": "#27876a",
    },
}

# A guide's link to a file outside docs/ -> the page with the same content here, or else the file on GitHub.
_PAGES = [
    (r"\.\./README\.md", "index.md"),
    (r"\.\./roles/(\w+)/README\.md", r"reference/\1_role.rst"),
    (r"\.\./plugins/modules/(\w+)\.py", r"reference/\1_module.rst"),
    (r"\.\./", GALAXY["repository"] + "/blob/main/"),
    (r"(examples/\w+)\)", GALAXY["repository"] + r"/tree/main/docs/\1)"),
]


def _fit_in(app: Sphinx, docname: str, source: list[str]) -> None:
    for path, page in _PAGES:
        source[0] = re.sub(rf"\]\({path}", f"]({page}", source[0])
    # The theme shows the contents of a page in its sidebar.
    source[0] = re.sub(r"^\.\. contents::\n(?: +:.*\n)+", "", source[0], flags=re.MULTILINE)


# Pages on docs.ansible.com that the reference refers to. For a dozen links, no inventory of that site is downloaded.
_ELSEWHERE = [
    (r"ansible_collections\.(?!kaleyra\.)(\w+)\.(\w+)\.(\w+_module)(?:__.*)?", r"collections/\1/\2/\3.html"),
    (r"action_plugins", "plugins/action.html"),
    (r"(common_return_values)", r"reference_appendices/\1.html"),
    (r"ansible_configuration_settings", "reference_appendices/config.html"),
    (r"(ANSIBLE_\w+)", r"reference_appendices/config.html#envvar-\1"),
]


def _lead_to_docs_ansible_com(app: Sphinx, env: Any, node: pending_xref, contnode: nodes.Element) -> nodes.reference | None:
    for label, page in _ELSEWHERE:
        if match := re.fullmatch(label, node["reftarget"]):
            return nodes.reference("", "", contnode, internal=False, refuri="https://docs.ansible.com/ansible/latest/" + match.expand(page))
    return None


_BREAKS = re.compile(r"(?<=[._])(?=\w)")


def _let_names_break(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Let long names of modules and plugins in titles break after a dot or an underscore, and not within a word."""
    for title in doctree.findall(nodes.title):
        for text in list(title.findall(nodes.Text)):
            parts = _BREAKS.split(text)
            if len(parts) > 1 and text.parent:
                broken = [node for part in parts for node in (nodes.Text(part), nodes.raw("", "<wbr>", format="html"))][:-1]
                text.parent.replace(text, broken)


def _let_names_break_in_navigation(app: Sphinx, pagename: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """Do the same in the sidebar, whose HTML the theme has made."""
    tree = context.get("furo_navigation_tree", "")
    context["furo_navigation_tree"] = re.sub(r"(?<=>)[^<]+", lambda text: _BREAKS.sub("<wbr>", text[0]), tree)


def setup(app: Sphinx) -> None:
    app.connect("html-page-context", _let_names_break_in_navigation, priority=900)  # after the theme
    app.connect("doctree-resolved", _let_names_break)
    app.connect("source-read", _fit_in)
    app.connect("missing-reference", _lead_to_docs_ansible_com)
