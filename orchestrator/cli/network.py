"""`idenctl predict` and `idenctl export`: the trained network of a stored trial, put to use."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli import completion
from orchestrator.cli.options import Json, StoreAddress
from orchestrator.cli.report import check_out, resolve, write
from orchestrator.names import named, quoted

if TYPE_CHECKING:
    from idennet_core.inference import Network
    from orchestrator.store import Store

SHORTEST = 6  # characters of a trial's id that may stand for it

Trial = dict[str, Any]  # a row of the store's trials


def predict(
    pictures: Annotated[list[Path], typer.Argument(metavar="IMAGE", help="Pictures with a face each.")],
    trial: Annotated[str | None, typer.Option(metavar="ID", help="The trial whose network to use.")] = None,
    study: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Use the study's most accurate cell.", autocompletion=completion.studies),
    ] = None,
    detector: Annotated[Path | None, typer.Option(help="A YuNet ONNX file; else the store's.")] = None,
    cropped: Annotated[bool, typer.Option("--cropped", help="The pictures are cropped faces.")] = False,
    store: StoreAddress = "runs",
    as_json: Json = False,
) -> None:
    """Say which expression the faces in pictures show; exit status 1 where a picture has none."""
    import numpy as np

    from idennet_core import inference
    from idennet_core.datasets.workers import Workers
    from orchestrator.store import at

    results = at(store).check()
    if (trial is None) == (study is None):
        raise ValueError("one of --trial and --study must say whose network to use, got both or none; give one")
    row = find_trial(results, trial) if trial is not None else best_trial(results, str(study))
    locate = _locate(results, detector, cropped)
    with Workers(lambda number: inference.face_of(pictures[number], locate)) as workers:
        found = list(workers.map([[number] for number in range(len(pictures))]))
    network, classes = load_network(results, row), classes_of(results, row)
    faces = [face for face in found if not isinstance(face, str)]
    probabilities = iter(inference.probabilities(network, np.stack(faces)).tolist() if faces else [])
    synthetic = is_synthetic(results, row)
    answers: list[dict[str, Any]] = []
    for picture, face in zip(pictures, found, strict=True):
        answer: dict[str, Any] = {"picture": str(picture), "trial_id": row["trial_id"], "synthetic": synthetic}
        if isinstance(face, str):
            answers.append(answer | {"reason": face})
        else:
            shares = dict(zip(classes, next(probabilities), strict=True))
            answers.append(answer | {"expression": max(shares, key=lambda c: shares[c]), "probabilities": shares})
    if as_json:
        typer.echo(json.dumps(answers, indent=1))
    else:
        _print(row, synthetic, answers)
    failed = [answer for answer in answers if "reason" in answer]
    for answer in failed:
        typer.echo(f"no prediction: {answer['picture']}: {answer['reason']}", err=True)
    raise typer.Exit(1 if failed else 0)


def export(
    trial: Annotated[str, typer.Argument(metavar="TRIAL", help="A trial's id, or how it begins.")],
    out: Annotated[Path, typer.Option(help="The ONNX file to write.")],
    store: StoreAddress = "runs",
) -> None:
    """Write the whole network of a trial as ONNX: grey values of 48x48 centre crops in, probabilities out."""
    from importlib.metadata import version

    from idennet_core import config
    from idennet_core.export import to_onnx
    from orchestrator.store import at

    check_out(out, ".onnx")
    results = at(store).check()
    row = find_trial(results, trial)
    network, synthetic = load_network(results, row), is_synthetic(results, row)
    settings = {name: row[name] for name in config.HEAD_DEFAULTS if row.get(name) is not None}
    about = {
        "trial_id": row["trial_id"],
        "classes": json.dumps(classes_of(results, row)),
        "dataset": row["dataset"],
        "synthetic": json.dumps(synthetic),
        "settings": json.dumps(settings),
        "fold": str(row["fold"]),
        "seed": str(row["seed"]),
        "input": "grey values 0 to 255 of the middle 48x48 of a face aligned to 60x60, [batch, 1, 48, 48]",
        "idenctl": version("idenctl"),
    }
    write(out, to_onnx(network, about))
    typer.echo(f"network of {describe(row, synthetic)} written to {out}", err=True)


def find_trial(store: "Store", name: str) -> Trial:
    """The complete trial that an id, or how it begins, means. Raises ValueError where there is not exactly one."""
    import polars as pl

    if not re.fullmatch(rf"(?i:[0-9a-f]{{{SHORTEST},32}})", name):
        rule = f"a trial is named by at least {SHORTEST} characters of its id, which are 0-9 and a-f"
        raise ValueError(f"{rule}, got {quoted(name)}; the column trial_id of the store's trials has them")
    rows = store.trials().filter(pl.col("trial_id").str.starts_with(name.lower())).to_dicts()
    if not rows:
        raise ValueError(f"no trial {quoted(name)} in {store}; name another, or a study with --study")
    if len(rows) > 1:
        ids = ", ".join(row["trial_id"] for row in rows[:3])
        raise ValueError(f"a trial must be named without doubt, '{name}' begins {len(rows)}: {ids}; give more of one")
    (row,) = rows
    if row["state"] != "complete":
        raise ValueError(f"a network is kept of complete trials, {row['trial_id']} is {row['state']}; name another")
    return row


def best_trial(store: "Store", name: str) -> Trial:
    """The first trial, by fold and seed, of the study's cell with the highest mean accuracy over what is stored."""
    import polars as pl

    from orchestrator.report.tables import chosen

    rows = chosen(find_plan(store, name)[1], store.trials()).filter(state="complete")
    if rows.is_empty():
        raise ValueError(f"study '{name}' has no complete trial yet; next: idenctl study run FILE")
    mean = pl.col("accuracy").mean().over("configuration_id")
    return rows.sort(-mean, "configuration_id", "fold", "seed").row(0, named=True)


def find_plan(store: "Store", name: str) -> tuple[str, dict[str, Any]]:
    """The stored study that `name` means, and its plan. Raises ValueError where there is none with networks."""
    from orchestrator.frozen import read_plan
    from orchestrator.trial import IDENNET

    known = sorted(path.parent.name for path in store.studies.glob("*/plan.json"))
    study = resolve(name, known, f"the store {store}")
    plan = read_plan(store.studies / study / "plan.json")
    if plan.get("workload", IDENNET) != IDENNET:
        raise ValueError(f"only IDEnNet's studies leave networks, {study} is one of {plan['workload']}; name another")
    return study, plan


def load_network(store: "Store", trial: Trial) -> "Network":
    """The trial's whole network, to be run on one thread: for so little work more would only wait for each other."""
    import torch

    from idennet_core import inference

    torch.set_num_threads(1)
    for trunk_id in trial["trunk_ids"]:
        store.fetch_all("trunks", named("an id", trunk_id))
    return inference.load(store.fetch("heads", f"{named('an id', trial['trial_id'])}.safetensors"), store.trunks)


def classes_of(store: "Store", trial: Trial) -> list[str]:
    """The names of the trial's classes, in the order of its probabilities."""
    import polars as pl

    own = pl.col("trial_id") == trial["trial_id"]
    rows = store.predictions(store.trials(["trial_id", "pack_id"]).filter(own)).filter(own)
    return list(rows["classes"][0])


def is_synthetic(store: "Store", trial: Trial) -> bool:
    """Whether the trial, or a trunk that it reads, learnt from drawn faces."""
    from idennet_core import sealing

    return trial["synthetic"] or any(sealing.trunk_facts(store.trunks / t)["synthetic"] for t in trial["trunk_ids"])


def describe(trial: Mapping[str, Any], synthetic: bool) -> str:
    """A trial for a reader: which, and that it learnt from drawn faces where it did."""
    drawn = ", SYNTHETIC (learnt from drawn faces)" if synthetic else ""
    facts = f"{trial['dataset']}, variant {trial['variant']}, depth {trial['depth']}, fold {trial['fold']}"
    return f"trial {trial['trial_id'][:12]} ({facts}, seed {trial['seed']}){drawn}"


def _locate(store: "Store", detector: Path | None, cropped: bool) -> Any:
    """What finds the five points: a detector, or nothing for cropped faces."""
    from idennet_core.faces import detection
    from orchestrator.cli.data import model_place

    if cropped and detector:
        raise ValueError("--detector and --cropped exclude each other, got both; give one")
    if cropped:
        return None
    model = detector or model_place(store)
    if not detector and not model.is_file():
        raise FileNotFoundError(
            f"no face detector in {model.parent}: run `idenctl data detector get`, or give --detector FILE "
            "or --cropped (already cropped faces)"
        )
    return detection.Detector(model)


def _print(trial: Trial, synthetic: bool, answers: Sequence[Mapping[str, Any]]) -> None:
    from rich.table import Column, Table

    from orchestrator.cli.console import plain_console

    console = plain_console()
    console.print(f"by {describe(trial, synthetic)}", soft_wrap=True)
    table = Table(Column("picture", overflow="fold"), "expression", "probability", "next")
    for answer in answers:
        if "reason" in answer:
            table.add_row(answer["picture"], "-", "-", answer["reason"])
            continue
        (expression, share), *others = sorted(answer["probabilities"].items(), key=lambda item: -item[1])
        following = ", ".join(f"{name} {other:.1%}" for name, other in others[:2])
        table.add_row(answer["picture"], expression, f"{share:.1%}", following)
    console.print(table)
