"""Sphinx extension: inlines the pictures of timelines, so that they use the colours of the page.

``![words](pictures/fixed-window.svg)`` stays plain Markdown in the file. A linked SVG
cannot use the colour scheme that the reader has chosen on the page.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform


class Inline(SphinxTransform):
    default_priority = 200  # before Sphinx collects images

    def apply(self, **kwargs: Any) -> None:
        folder = Path(self.env.doc2path(self.env.docname)).parent
        for image in list(self.document.findall(nodes.image)):
            path = folder / image["uri"]
            if path.suffix != ".svg" or path.parent.name != "pictures":
                continue
            raw = nodes.raw("", path.read_text(), format="html")
            parent = image.parent
            if isinstance(parent, nodes.paragraph) and len(parent) == 1:
                parent.replace_self(raw)
            else:
                image.replace_self(raw)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_transform(Inline)
    return {"version": "1", "parallel_read_safe": True}
