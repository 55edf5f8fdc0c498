"""The structure that the code keeps: who imports whom, who owns which library, what a fresh process loads."""

import ast
import re
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in ("idenctl", "orchestrator", "idennet_core")
    for path in sorted((ROOT / package).rglob("*.py"))
}
# named random streams, from which every draw of the project comes; ids, checksums and locks in a store; names
COMMON = {f"idennet_core.{name}" for name in ("streams", "ids", "sealing", "locks", "naming")}
DOORS = {
    "orchestrator.calibration",
    "orchestrator.checkpoints",
    "orchestrator.stacks",
    "orchestrator.idennet",
    "orchestrator.cli.completion",
    "orchestrator.cli.data",
    "orchestrator.cli.doctor",
    "orchestrator.cli.heatmap",
    "orchestrator.cli.network",
    "orchestrator.cli.trunk",
    "orchestrator.trunks",
}
OWNERS = {
    "typer": {"orchestrator.cli"},
    "rich": {"orchestrator.cli", "orchestrator.report"},
    "pydantic": {
        "orchestrator.study",
        "orchestrator.study_sections",
        "orchestrator.sections",
        "orchestrator.design_sections",
        "orchestrator.search.space",
        "orchestrator.search.pruning",
    },
    "yaml": {"orchestrator.strict_yaml"},
    "optuna": {"orchestrator.search.sampler", "orchestrator.search.mirror"},
    "optuna_dashboard": {"orchestrator.cli.dashboard"},
    "psycopg": {"orchestrator.search.mirror"},
    "ray": {"orchestrator.tune_engine", "orchestrator.trackers", "orchestrator.cluster"},
    "grpc": {"orchestrator.cluster"},
    "botocore": {"orchestrator.cluster"},
    "jsonschema": {"orchestrator.cluster"},
    "pyarrow": {
        "orchestrator.cleaning",
        "orchestrator.store",
        "orchestrator.rows",
        "orchestrator.index",
        "orchestrator.bucket",
        "orchestrator.sealed",
    },
    "scipy": {"orchestrator.statistics.folds", "orchestrator.statistics.power"},
    "polars": {
        "orchestrator.cleaning",
        "orchestrator.store",
        "orchestrator.index",
        "orchestrator.statistics.folds",
        "orchestrator.report",
        "orchestrator.cli",
        "idenctl",
    },
    "cv2": {"idennet_core.faces", "idennet_core.datasets", "idennet_core.heatmaps", "idennet_core.inference"},
    "onnxruntime": {"idennet_core.export"},
    "onnxscript": {"idennet_core.export"},
    "torch": {"idennet_core", *DOORS},
    "numba": {"idennet_core.kernels"},
    "llvmlite": {"idennet_core.kernels"},
    "altair": {"idenctl", "orchestrator.report.figure", "orchestrator.report.page_charts"},
    "vl_convert": {"orchestrator.report.figure", "orchestrator.report.page_charts"},
    "jinja2": {"orchestrator.report.page"},
}


@cache
def imports(module: str) -> set[str]:
    """All that a module imports, in functions and for type checkers too; `from a import b` gives `a.b`."""
    found = set()
    for node in ast.walk(ast.parse(SOURCES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import, which this test does not follow"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def modules_of(names: set[str]) -> set[str]:
    """The project's modules among imported names: `a.b.function` is module `a.b`."""
    return {name if name in SOURCES else name.rpartition(".")[0] for name in names} & SOURCES.keys()


@pytest.mark.parametrize("module", [name for name in SOURCES if within(name, "idennet_core")])
def test_idennet_core_imports_nothing_of_the_orchestrator(module):
    assert not {name for name in imports(module) if within(name, "orchestrator")}


@pytest.mark.parametrize("module", [name for name in SOURCES if within(name, "orchestrator")])
def test_only_the_doors_import_idennet_core(module):
    found = {name for name in imports(module) if within(name, "idennet_core")}
    assert module in DOORS or not {name for name in found if not any(within(name, common) for common in COMMON)}


@pytest.mark.parametrize("module", [name for name in SOURCES if within(name, "orchestrator")])
def test_only_the_command_line_and_its_python_form_import_the_command_line(module):
    assert within(module, "orchestrator.cli") or not {
        name for name in imports(module) if within(name, "orchestrator.cli")
    }


@pytest.mark.parametrize("library", OWNERS)
def test_a_library_is_imported_by_its_owners_alone(library):
    users = {module for module in SOURCES if any(within(name, library) for name in imports(module))}
    assert not {user for user in users if not any(within(user, owner) for owner in OWNERS[library])}


@pytest.mark.parametrize("package", ["orchestrator", "idennet_core"])
def test_modules_import_each_other_in_one_direction(package):
    graph = {module: modules_of(imports(module)) - {module} for module in SOURCES if within(module, package)}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the cycle


def test_python_form_is_light_until_it_is_asked_to_do_something():
    script = "import sys, idenctl; print({'torch', 'ray', 'polars', 'pyarrow', 'typer', 'altair'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("arguments", [["--help"], ["study", "run", "--help"], ["--version"]])
def test_asking_for_help_loads_no_heavy_library(arguments):
    heavy = ["torch", "ray", "polars", "pyarrow", "cv2", "scipy", "optuna"]
    script = (
        "import sys; from orchestrator.cli.app import main\n"
        f"sys.argv = {['idenctl', *arguments]!r}\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        f"print([name for name in {heavy} if name in sys.modules], file=sys.stderr)"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert done.stdout


@pytest.mark.parametrize("path", SOURCES.values(), ids=SOURCES)
def test_a_source_file_is_short_and_finished(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    assert not re.findall(r"TODO|FIXME|XXX|NotImplementedError", text)
