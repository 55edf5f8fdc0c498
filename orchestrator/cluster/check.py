"""What is wrong or unsafe in a cluster file, before anything is started: pure rules, nothing is contacted."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator import strict_yaml
from orchestrator.cluster import check_ray_up
from orchestrator.cluster.findings import Finding
from orchestrator.sections import shown
from orchestrator.strict_yaml import Place


@dataclass(frozen=True)
class Problem:
    """One thing to put right in a cluster file: `file:line`, its key, the rule, what stands there, what to do."""

    place: str
    key: str
    rule: str
    value: Any
    next: str

    def __str__(self) -> str:
        got = "" if self.value is None else f", got {shown(self.value)}"
        return f"{self.place}: {self.key + ': ' if self.key else ''}{self.rule}{got}; {self.next}"


def check(path: Path) -> tuple[str, list[Problem]]:
    """What kind of cluster file this is, and everything that is wrong in it, in the file's order.

    Raises FileNotFoundError where there is none, ValueError for one of a kind that has no rules here.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no cluster file {path}; this project's are in cluster/")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: a cluster file is text in UTF-8; save it so") from None
    try:
        config, places = strict_yaml.read(text, str(path))
    except ValueError as error:
        place, _, rule = str(error).partition(": ")
        rule, _, next_step = rule.partition("; ")
        return "YAML", [Problem(place, "", rule, None, next_step or "write it so that it can be read in one way")]
    if not isinstance(config, dict) or "provider" not in config:
        raise ValueError(
            f"{path}: not a cluster file that this knows: one for `ray up` has the key provider; see cluster/"
        )
    try:
        otherwise = list(check_ray_up.read_otherwise(config, strict_yaml.read_as_1_1(text)))
    except ValueError as error:
        otherwise = [((), str(error), None, "Ray reads its files by YAML 1.1; put dates in quotes")]
    found = [_located(finding, places) for finding in (*otherwise, *check_ray_up.findings(config))]
    return "ray up", sorted(found, key=lambda problem: int(problem.place.rpartition(":")[2]))


def _located(finding: Finding, places: dict[Place, str]) -> Problem:
    """A finding with the line of its key, or that of the nearest key above it where it is missing."""
    place, rule, value, next_step = finding
    known = next(place[:length] for length in range(len(place), -1, -1) if place[:length] in places)
    return Problem(places[known], ".".join(map(str, place)), rule, value, next_step)
