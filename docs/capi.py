"""Sphinx extension: ```` ```{c-header} weir.h ```` becomes what that header declares."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from header import INCLUDE, functions, set_header
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class CHeader(SphinxDirective):
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        path = INCLUDE / self.arguments[0]
        header = path.read_text()
        lines = set_header(header)
        for name in functions(header):
            if not any(line.startswith(".. c:function::") and f"{name}(" in line for line in lines):
                raise self.error(f"{name}() is missing")
        return list(self.parse_text_to_nodes("\n".join(["````{eval-rst}", *lines, "````"])))


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("c-header", CHeader)
    return {"version": "1", "parallel_read_safe": True}
