"""A contract for import-linter that says what a room may import, instead of what it may not.

The domain of a service may use the standard library and three modules of `common`: a list of what
is forbidden would have to grow with every new dependency, and would be forgotten.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output
from importlinter.domain.helpers import module_expression_to_modules

STANDARD_LIBRARY = frozenset(sys.stdlib_module_names)


class AllowedImportsContract(Contract):
    """The rooms `importers` import, of the packages `judged` (all when left out), only `allowed`.

    Rooms may import themselves, and everybody the standard library. Imports that stand under
    `if TYPE_CHECKING` count: a type is knowledge too.
    """

    type_name = "allowed_imports"

    importers = fields.SetField(subfield=fields.ModuleExpressionField())
    allowed = fields.SetField(subfield=fields.ModuleExpressionField())
    judged = fields.SetField(subfield=fields.StringField(), required=False)

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        """Return every import that is not allowed."""
        importers = _members(graph, self.importers)
        allowed = importers | _members(graph, self.allowed)
        judged: frozenset[str] = frozenset(self.judged or ())  # type: ignore[arg-type]
        broken = []
        for importer in sorted(importers):
            for imported in sorted(graph.find_modules_directly_imported_by(importer)):
                root = imported.partition(".")[0]
                is_judged = root in judged if judged else root not in STANDARD_LIBRARY
                if not is_judged or imported in allowed:
                    continue
                lines = graph.get_import_details(importer=importer, imported=imported)
                broken.append((importer, imported, [line["line_number"] for line in lines]))
        return ContractCheck(kept=not broken, metadata={"broken": broken})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Print every import that is not allowed, with its lines."""
        for importer, imported, lines in check.metadata["broken"]:
            where = ", ".join(str(line) for line in lines)
            output.print_error(f"- {importer} -> {imported} (l.{where})", bold=False)
        output.new_line()


def _members(graph: ImportGraph, expressions: Any) -> set[str]:
    """Return the modules that the expressions name, with all inside them that the graph knows."""
    found: Iterable[Any] = expressions
    names = {
        module.name
        for expression in found
        for module in module_expression_to_modules(graph, expression, as_packages=False)
    }
    inner = (graph.find_descendants(name) for name in names if not graph.is_module_squashed(name))
    return names.union(*inner)
