"""Sphinx extension: the directive ``c-headers`` inserts the declarations of the public headers."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from header import functions, headers, set_header
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class CHeaders(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        page = []
        for path in headers():
            header = path.read_text()
            lines = set_header(header)
            heads = [line for line in lines if line.startswith(".. c:function::")]
            for name in functions(header):
                if not any(f"{name}(" in head for head in heads):
                    raise self.error(f"{path.name}: {name}() is missing")
            page += [f"## weir/{path.name}", "", "````{eval-rst}", *lines, "````", ""]
        return list(self.parse_text_to_nodes("\n".join(page), allow_section_headings=True))


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("c-headers", CHeaders)
    return {"version": "1", "parallel_read_safe": True}
