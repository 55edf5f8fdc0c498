"""`idenctl heatmap`: where in test faces a study's networks find an expression (paper Fig. 4, 5 and 7)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from idennet_core.naming import nearest
from orchestrator.cli import completion
from orchestrator.cli.network import Trial, find_plan, load_network
from orchestrator.cli.options import StoreAddress
from orchestrator.cli.report import check_out, write
from orchestrator.names import named, quoted

if TYPE_CHECKING:
    import polars as pl

    from idennet_core.datasets.prepared import FaceSet
    from idennet_core.heatmaps import Block
    from orchestrator.store import Store

VARIANTS = {"original": "Original", "i": "IDEnNet-I", "f": "IDEnNet-F", "if": "IDEnNet-IF"}
CAPTION = (
    "A map splits a logit among the places of the picture, exactly: its mean plus the classifier's bias is the logit.",
    "Every map has a scale of its own: no colour is 0, full colour its largest share, for the class or against it.",
    "Under a map stand the predicted expression and its probability; a cross marks a wrong one.",
)


class Shown(StrEnum):
    """Whose map is drawn."""

    PREDICTED = "predicted"
    TRUE = "true"


@dataclass(frozen=True)
class Sitter:
    """A test person, or where a data set has no subjects a number: the frame shown of each class, and the fold."""

    name: str
    fold: int
    frames: Mapping[str, tuple[str, str, str]]  # (subject, sequence, frame) by class


def heatmap(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="A study that was run: NAME or NAME@PROFILE.", autocompletion=completion.studies
        ),
    ],
    out: Annotated[Path, typer.Option(help="The PNG file to draw.")],
    subject: Annotated[
        list[str] | None, typer.Option(help="A person to show; repeat for several.", show_default="chosen by rule")
    ] = None,
    people: Annotated[
        int | None, typer.Option(min=1, help="How many to show, chosen by rule.", show_default="1")
    ] = None,
    cell: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE", help="A cell to show; repeat for several.", show_default="the last of each variant"
        ),
    ] = None,
    shown: Annotated[Shown, typer.Option("--class", help="Whose map to draw.")] = Shown.PREDICTED,
    store: StoreAddress = "runs",
) -> None:
    """Draw class-activation maps of test faces: a column an expression, a row a variant.

    Every face is of a person that the networks beside it never saw. Without --subject these are the people with
    the most expressions, first by name, of the first fold that all cells have.
    """
    import polars as pl

    from idennet_core import heatmaps
    from idennet_core.datasets import prepared
    from orchestrator.store import at

    check_out(out, ".png")
    if subject and people:
        raise ValueError("--subject and --people exclude each other, got both; give one")
    results = at(store).check()
    study, plan = find_plan(results, name)
    stored = results.trials()
    trials = trials_of(plan, stored, cell or [])
    first = [trial["trial_id"] for trial in next(iter(trials.values())).values()]
    predictions = results.predictions(stored.filter(pl.col("trial_id").is_in(first)))
    sitters = sitters_of(predictions, list(trials.values()), subject or [], people or 1)
    faces = prepared.load(results.fetch_all("data", named("a data set's name", plan["dataset"])))
    if faces.data_id != plan["data_id"]:
        raise ValueError(f"the faces of {faces.name} changed after {study} was run; run it again")
    blocks = [_block(sitter, trials, faces, results, shown) for sitter in sitters]
    drawn = ", SYNTHETIC (drawn faces)" if plan["synthetic"] else ""
    folds = sorted({sitter.fold for sitter in sitters}, key=str)
    tested = "the publisher's test split" if folds == [None] else f"fold {', '.join(map(str, folds))}"
    heading = (
        f"Class-activation maps of {study} on {plan['dataset']}{drawn}",
        f"After the fusion dense block, of the {shown.value} expression. Test faces of {tested}: no network here "
        "learnt from them.",
    )
    write(out, heatmaps.png(heatmaps.figure(heading, faces.classes, blocks, CAPTION)))
    typer.echo(f"heat maps of {', '.join(sitter.name for sitter in sitters)} written to {out}", err=True)


def trials_of(
    plan: Mapping[str, Any], trials: "pl.DataFrame", wanted: Sequence[str]
) -> dict[tuple[str, ...], dict[int, Trial]]:
    """The complete trials of the study's first seed by fold, for each cell to show by the lines of its label.

    Raises ValueError for a wanted cell that the study has not, or one without a complete trial.
    """
    import polars as pl

    from orchestrator.design import describe

    complete = trials.filter(pl.col("state") == "complete", pl.col("seed") == plan["seeds"][0])
    names = [describe(cell["label"]) for cell in plan["cells"]]
    for name in wanted:
        if name not in names:
            close = nearest(name, names)
            hint = f"did you mean '{close}'? " if close else ""
            raise ValueError(f"the study has no cell {quoted(name)}; {hint}it has {'; '.join(names)}")
    found: dict[tuple[str, ...], dict[int, Trial]] = {}
    for name, cell in zip(names, plan["cells"], strict=True):
        rows = complete.filter(pl.col("configuration_id") == cell["configuration_id"]).to_dicts()
        if wanted and name not in wanted:
            continue
        if wanted and not rows:
            raise ValueError(f"the cell '{name}' has no complete trial of seed {plan['seeds'][0]}; run the study")
        if rows:
            rest = {key: value for key, value in cell["label"].items() if key != "variant"}
            label = (VARIANTS[rows[0]["variant"]], *(f"{key} {value}" for key, value in rest.items()))
            found[label] = {row["fold"]: row for row in rows}
    if not found:
        raise ValueError(f"study '{plan['study']}' has no complete trial yet; next: idenctl study run FILE")
    if not wanted:
        last = {label[0]: label for label in found}
        found = {last[variant]: found[last[variant]] for variant in VARIANTS.values() if variant in last}
    return found


def sitters_of(
    predictions: "pl.DataFrame", cells: Sequence[Mapping[int, Trial]], names: Sequence[str], count: int
) -> list[Sitter]:
    """Whom to show, out of the test frames of the cells' trials: the people named, or `count` chosen by rule.

    Of each class the last frame of the person's first sequence is shown. Raises ValueError for a name that no
    fold tests, or more people than there are.
    """
    import polars as pl

    folds = sorted(set.intersection(*(set(trials) for trials in cells)))
    if not folds:
        raise ValueError("the cells shown must have a fold in common, and have none yet; run the study to its end")
    found: dict[str, Sitter] = {}
    for fold in folds if names else folds[:1]:
        rows = predictions.filter(pl.col("trial_id") == cells[0][fold]["trial_id"])
        numbered = pl.int_range(1, pl.len() + 1).over("label").cast(pl.String)
        rows = rows.sort("subject", "sequence", "frame").with_columns(
            sitter=pl.when(pl.col("subject") == "").then(numbered).otherwise("subject")
        )
        rows = rows.filter(pl.col("sequence") == pl.col("sequence").first().over("sitter", "label"))
        for (name,), own in rows.group_by("sitter", maintain_order=True):
            frames = {row["label"]: (row["subject"], row["sequence"], row["frame"]) for row in own.to_dicts()}
            found[str(name)] = Sitter(str(name), fold, frames)
    for name in names:
        if name not in found:
            known = f"{', '.join(sorted(found)[:5])}{', …' * (len(found) > 5)}"
            raise ValueError(f"no stored fold of these cells tests the person {quoted(name)}; they test {known}")
    if names:
        return [found[name] for name in dict.fromkeys(names)]
    if count > len(found):
        raise ValueError(f"--people must be at most {len(found)}, those of fold {folds[0]}, got {count}")
    return sorted(found.values(), key=lambda sitter: -len(sitter.frames))[:count]


def _block(
    sitter: Sitter,
    trials: Mapping[tuple[str, ...], Mapping[int, Trial]],
    faces: "FaceSet",
    store: "Store",
    shown: Shown,
) -> "Block":
    """A sitter's faces, and a row for each cell: its trial on the fold that tests the sitter."""
    import numpy as np

    from idennet_core import heatmaps

    labels = [label for label in faces.classes if label in sitter.frames]
    places = [
        np.flatnonzero((faces.subject == subject) & (faces.sequence == sequence) & (faces.frame == frame))[0]
        for subject, sequence, frame in (sitter.frames[label] for label in labels)
    ]
    pictures = np.stack([faces.faces[place] for place in places])
    crops = dict(zip(labels, map(heatmaps.crop_of, pictures), strict=True))
    rows = []
    for label, by_fold in trials.items():
        trial = by_fold[sitter.fold]
        network = load_network(store, trial)
        readings = heatmaps.read(network, pictures, faces.classes, labels, shown is Shown.TRUE)
        by_class = dict(zip(labels, readings, strict=True))
        rows.append(((*label, trial["trial_id"][:12]), [by_class.get(name) for name in faces.classes]))
    return heatmaps.Block((sitter.name,), [crops.get(name) for name in faces.classes], rows)
