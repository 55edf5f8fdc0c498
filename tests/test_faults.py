"""What docs/measured/faults.md claims is shown by tests that exist."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def those_of(folder):
    trees = [ast.parse(path.read_text()) for path in sorted(folder.rglob("test_*.py"))]
    functions = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return {function.name for function in functions if function.name.startswith("test_")}


def test_every_fault_in_the_docs_names_tests_that_exist_and_every_test_of_faults_is_named():
    text = (ROOT / "docs/measured/faults.md").read_text()
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| ")][2:]
    shown = [set(re.findall(r"`(test_\w+)`", row[5])) for row in rows if len(row) == 7]
    assert len(shown) > 20
    assert all(shown)
    own = {"test_the_clock_can_be_set"} | those_of_control()
    assert set().union(*shown) - those_elsewhere() == those_of(ROOT / "tests/chaos") - own


def those_elsewhere():
    trees = [ast.parse((ROOT / f"tests/test_{name}.py").read_text()) for name in ("bucket", "at_once")]
    return {node.name for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef)}


def those_of_control():
    tree = ast.parse((ROOT / "tests/chaos/test_control.py").read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
