"""Sphinx builds the pages of this folder: ``sphinx-build -W docs docs/_build``, without the network."""

from __future__ import annotations

import re
from importlib.metadata import version as installed_version
from typing import Any

from sphinx.application import Sphinx

project = "jaa_ext"
author = copyright = "The jaa_ext authors"
version = release = installed_version("jaa_ext")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
# README.md is the folder's page on GitHub; index.rst takes it in.
exclude_patterns = ["_build", "README.md"]

html_theme = "furo"
html_title = f"jaa_ext {release}"
html_show_sphinx = False
html_copy_source = False
myst_heading_anchors = 3

# `name` in a docstring links to what has that name here, and is code otherwise.
default_role = "py:obj"
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 90


def setup(app: Sphinx) -> None:
    app.connect("source-read", _carry_files_along)
    app.connect("autodoc-process-signature", _leave_out_what_says_nothing)


def _carry_files_along(app: Sphinx, page: str, source: list[str]) -> None:
    """Links out of this folder lead on GitHub to a file there; the site has a copy of it to download."""
    source[0] = re.sub(r"\]\((\.\./[^)#]+)(#[^)]*)?\)", r"](path:\1)", source[0])


def _leave_out_what_says_nothing(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, signature: str | None, returned: str | None
) -> tuple[str, None] | None:
    """Classes without an ``__init__`` of their own show no arguments, in place of any."""
    return ("", None) if what == "class" and (signature or "").startswith("(*args") else None
