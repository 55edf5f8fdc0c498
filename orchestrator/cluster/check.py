"""What is wrong or unsafe in a cluster file, before anything is started: pure rules, nothing is contacted."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from idennet_core.naming import nearest
from orchestrator import strict_yaml
from orchestrator.cluster import check_kuberay, check_ray_up, check_slurm
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


@dataclass(frozen=True)
class Checked:
    """What kind of cluster file it is, all that is wrong in it, in its order, and what could not be looked at."""

    kind: str
    problems: list[Problem]
    note: str | None = None


def check(path: Path) -> Checked:
    """Check a cluster file. Raises FileNotFoundError where there is none, ValueError for one of no kind known here."""
    text = text_of(path)
    if _for_slurm(text):
        lines: dict[Place, str] = {(number,): f"{path}:{number}" for number in range(1, text.count("\n") + 2)}
        return Checked("Slurm", _located(check_slurm.findings(text), {(): f"{path}:1", **lines}))
    try:
        documents, places = _read(text, str(path))
    except ValueError as error:
        place, _, rule = str(error).partition(": ")
        rule, _, next_step = rule.partition("; ")
        unread = Problem(place, "", rule, None, next_step or "write it so that it can be read in one way only")
        return Checked("YAML", [unread])
    if any(str(document.get("apiVersion")).startswith("ray.io/") for document in documents.values()):
        return Checked("KubeRay", _located(check_kuberay.findings(documents), places))
    number, config = next(iter(documents.items()), (0, {}))
    if len(documents) > 1 or "provider" not in config:
        raise ValueError(
            f"{path}: not a cluster file that this knows: one for `ray up` has the key provider, one for KubeRay "
            "apiVersion: ray.io/v1, one for Slurm #SBATCH lines; see cluster/"
        )
    findings = [*_read_otherwise(config, text), *check_ray_up.findings(config)]
    problems = _located([((number, *place), *rest) for place, *rest in findings], places)
    return Checked("ray up", problems, check_ray_up.unseen(config))


def other_kind(text: str) -> str:
    """Of a cluster file that is not for `ray up` what it is for, and what starts and ends it; else nothing."""
    if _for_slurm(text):
        return "Slurm; its job is started by sbatch and ended by scancel"
    if re.search(r"^apiVersion: *[\"']?ray\.io/", text, re.MULTILINE):
        return "KubeRay; next: kubectl apply -f, or kubectl delete -f"
    return ""


def _for_slurm(text: str) -> bool:
    return text.startswith("#!") and "#SBATCH" in text


def text_of(path: Path) -> str:
    """The text of a cluster file. Raises FileNotFoundError where there is none, ValueError where it is no UTF-8."""
    if not path.is_file():
        others = sorted(str(one) for end in ("*.y*ml", "*.sh") for one in path.parent.glob(end) if one.is_file())
        close = nearest(str(path), others)
        hint = f"did you mean '{close}'? " if close else ""
        raise FileNotFoundError(f"no cluster file {path}; {hint}this project's are in cluster/")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: a cluster file is text in UTF-8; save it so") from None


def _read(text: str, source: str) -> tuple[dict[int, Any], dict[Place, str]]:
    """The mappings among the documents of a YAML file, by number, and where their values stand, numbers first."""
    documents: dict[int, Any] = {}
    places: dict[Place, str] = {(): f"{source}:1"}
    above = 0  # lines before the document
    for number, part in enumerate(re.split(r"^---[ \t]*$", text, flags=re.MULTILINE)):
        content, found = strict_yaml.read("\n" * above + part, source)
        if not isinstance(content, dict | None):
            raise ValueError(f"{source}:{above + 1}: each part of a cluster file is a mapping, got {shown(content)}")
        if content:
            documents[number] = content
            places |= {(number, *place): at for place, at in found.items()}
        above += part.count("\n")
    return documents, places


def _read_otherwise(config: dict[str, Any], text: str) -> list[Finding]:
    """Where Ray, which reads its files by YAML 1.1, finds something else than is written."""
    try:
        return list(check_ray_up.read_otherwise(config, strict_yaml.read_as_1_1(text)))
    except ValueError as error:
        return [((), str(error).replace("\n", " "), None, "Ray reads its files by YAML 1.1: put dates in quotes")]


def _located(findings: Iterable[Finding], places: dict[Place, str]) -> list[Problem]:
    """Findings, by line: that of their key, or of the nearest key above it where it is missing.

    The first part of a place is the number of its document or line, which is no key.
    """
    problems = []
    for place, rule, value, next_step in findings:
        known = next(place[:length] for length in range(len(place), -1, -1) if place[:length] in places)
        problems.append(Problem(places[known], ".".join(map(str, place[1:])), rule, value, next_step))
    return sorted(problems, key=lambda problem: int(problem.place.rpartition(":")[2]))
