"""How Sphinx builds the manual: ``script/docs``."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import weir  # noqa: E402

project = "Weir"
copyright = "the Weir authors"  # noqa: A001
author = "the Weir authors"
version = release = weir.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "capi",
    "pictures",
]
exclude_patterns = ["_build", "README.md"]
source_suffix = {".md": "markdown"}
root_doc = "index"
primary_domain = "py"
default_role = "code"
highlight_language = "none"

# Markdown
myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3

# Reference. Nothing is fetched while the manual is built: what is not ours is not linked.
intersphinx_mapping: dict[str, tuple[str, None]] = {}
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_default_options = {"members": True}
nitpicky = True
nitpick_ignore_regex = [
    # C's own
    ("c:identifier", r"u?int\d+_t|size_t"),
    # Names that Python's signatures carry, of other projects or not meant to be looked up
    (
        "py:.*",
        r"(flask|werkzeug|collections|typing|abc|enum|logging|redis|pymemcache|blinker)\b.*",
    ),
    ("py:(exc|class|obj|func|data|attr)", r"[a-z]?[A-Za-z]+"),
    ("py:.*", r"weir\._core\..*"),
]
# One name of several modules (ConfigurationError): the first that is found will do.
suppress_warnings = ["ref.python"]

# HTML
html_theme = "furo"
html_title = f"Weir {release}"
html_static_path = ["_static"]
html_css_files = ["weir.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
pygments_style = "tango"
pygments_dark_style = "monokai"
