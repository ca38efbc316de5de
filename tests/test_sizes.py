"""No file of the library is longer than 250 lines, and no function than 60 besides its docstring."""

import ast
from pathlib import Path

import localgrad

LIBRARY = Path(localgrad.__file__).parent
FILE, FUNCTION = 250, 60
# What is longer, and why it reads better so.
LONGER = {
    "__init__.py": "every public name, imported once and listed once",
    "base.py": "the whole vocabulary, in the order in which one learns it",
    "methods/al.py al": "the three published forms of one block, which differ in a line each",
    "methods/feedback.py": "the three direct methods and the forms of feedback that they share",
    "methods/parts.py": "the makers of blocks and of the model, which name each other",
    "pipeline/chain.py": "GPipe from its way up to its update, one object",
    "pipeline/sequential.py sequential": "the specification, from top to bottom",
    "pipeline/stream.py": "the tick of three schedules, one object",
    "pipeline/ticks.py engine": "the engine of all schedules",
}


def lengths() -> dict[str, int]:
    """Lines of each file, and of each function by `file name`, without its docstring."""
    found = {}
    for path in sorted(LIBRARY.rglob("*.py")):
        text = path.read_text()
        name = path.relative_to(LIBRARY).as_posix()
        found[name] = len(text.splitlines())
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                first = node.body[0]
                documented = ast.get_docstring(node) is not None
                doc = (first.end_lineno or 0) - first.lineno + 1 if documented else 0
                found[f"{name} {node.name}"] = (node.end_lineno or 0) - node.lineno + 1 - doc
    return found


def over(found: dict[str, int]) -> dict[str, int]:
    return {name: lines for name, lines in found.items() if lines > (FUNCTION if " " in name else FILE)}


def test_files_and_functions_are_short() -> None:
    too_long = {name: lines for name, lines in over(lengths()).items() if name not in LONGER}
    assert not too_long, f"split these, or say in LONGER why they read better so: {too_long}"


def test_no_exception_is_kept_that_is_not_needed() -> None:
    unneeded = set(LONGER) - set(over(lengths()))
    assert not unneeded, f"these are short enough by now; delete their rows in LONGER: {sorted(unneeded)}"


def test_a_long_function_is_seen() -> None:
    assert over({"a.py": 251, "a.py f": 61, "b.py": 250, "b.py g": 60}) == {"a.py": 251, "a.py f": 61}
