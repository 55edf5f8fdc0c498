"""What a job takes to a cluster: this program's code, the study file and the user's own modules; nothing else."""

import shutil
import sys
from collections.abc import Iterable
from importlib.metadata import distribution
from pathlib import Path
from types import ModuleType

PACKAGES = ("orchestrator", "idennet_core")
CODE = Path(__file__).parents[2]  # the folder that holds the packages


def own_modules(folder: Path, loaded: Iterable[ModuleType]) -> list[Path]:
    """The files in `folder` that these modules were loaded from, relative to it; not this program's, none installed.

    For a module in a package they include the package's own.
    """
    found = set()
    for module in list(loaded):
        path = getattr(module, "__file__", None)
        # some say they come from a file that there is not: those of torch that are made as it runs
        if not path or not Path(path).is_file() or not Path(path).resolve().is_relative_to(folder):
            continue
        relative = Path(path).resolve().relative_to(folder)
        installed = Path(path).resolve().is_relative_to(Path(sys.prefix).resolve()) or "site-packages" in relative.parts
        ours = module.__name__.partition(".")[0] in {*PACKAGES, "__main__"}
        if not installed and not ours and relative.suffix == ".py":
            found.add(relative)
    return sorted(found)


def pack(target: Path, files: Iterable[Path], modules: Iterable[Path], folder: Path) -> list[str]:
    """Put code, files and the modules of `folder` into the empty folder `target`; gives what is there, in words."""
    for package in PACKAGES:
        for source in sorted((CODE / package).rglob("*.py")):
            _copy(source, target / source.relative_to(CODE))
    named = distribution("idenctl")
    information = target / f"idenctl-{named.version}.dist-info" / "METADATA"  # which says the version in the rows
    information.parent.mkdir()
    information.write_text(f"Metadata-Version: 2.1\nName: idenctl\nVersion: {named.version}\n")
    for file in files:
        _copy(file, target / file.name)
    for module in modules:
        _copy(folder / module, target / module)
    return [*PACKAGES, *(file.name for file in files), *map(str, modules)]


def size(folder: Path) -> int:
    """The bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
