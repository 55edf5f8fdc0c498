"""The steps that the manual adds to mkdocs: pages that are made from the code, and formulae without a script."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert

sys.path.insert(0, str(Path(__file__).parent.parent))  # `mkdocs` itself finds only what is installed

from manual import commands, study_file, tables

MADE: dict[str, Callable[[], str]] = {
    "commands": commands.page,
    "study file": study_file.page,
    "tables": tables.page,
}
MARK = re.compile(r"^<!-- made from the code: (.+) -->$", re.MULTILINE)


def on_config(config: Any) -> Any:
    """Let blocks of `math` become MathML, which browsers draw by themselves."""
    fences = config["mdx_configs"].setdefault("pymdownx.superfences", {}).setdefault("custom_fences", [])
    fences.append({"name": "math", "class": "math", "format": _formula})
    return config


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page with its marks replaced; KeyError for a mark that names nothing that is made."""
    return MARK.sub(lambda found: MADE[found[1]](), markdown)


def _formula(source: str, *_: Any, **__: Any) -> str:
    return f'<div class="formula" tabindex="0">{convert(source, display="block")}</div>'
