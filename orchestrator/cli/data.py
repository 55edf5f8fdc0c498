"""`idenctl data`: draw a data set, look at one, prepare its faces for training."""

import inspect
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from idennet_core.naming import suggest
from orchestrator.cli import completion
from orchestrator.cli.options import Json, StoreAddress
from orchestrator.names import quoted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from idennet_core.datasets.preparation import Locate
    from idennet_core.datasets.scan import Scan
    from orchestrator.store import Store

app = typer.Typer(help="Faces: draw, look at and prepare data sets.", no_args_is_help=True)
detector_app = typer.Typer(help="The face detector's model file.", no_args_is_help=True)
app.add_typer(detector_app, name="detector")

POINTS = (
    "rex",
    "rey",
    "lex",
    "ley",
    "nx",
    "ny",
    "rmx",
    "rmy",
    "lmx",
    "lmy",
)  # pixels; "right" is the subject's
DRAWN_LANDMARKS = "landmarks.csv"  # in the root of a drawn data set: its true points

Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="oulu-casia, ck+, mmi, ferplus or casia-webface", autocompletion=completion.datasets
    ),
]
Root = Annotated[Path, typer.Option(help="The folder that holds the data set.")]
Manifest = Annotated[
    Path | None, typer.Option(help="For mmi: the sequences to use, a line session/clip (12/S001-002) each.")
]
Votes = Annotated[
    str | None,
    typer.Option(help="ferplus: the file with the votes.", show_default="fer2013new.csv, else label.csv"),
]


@app.command()
def synth(
    name: Name,
    out: Annotated[Path, typer.Option(help="The folder to draw into.")],
    subjects: Annotated[int | None, typer.Option(help="How many people.", show_default="as many as suit NAME")] = None,
    identity_effect: Annotated[float, typer.Option(help="How much a person's resting face shifts the cues.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Another seed draws other people.")] = 0,
    form: Annotated[
        str,
        typer.Option(
            help="Another form in which NAME is published: png (ferplus), recordio (casia-webface) or cropped "
            "(oulu-casia).",
            show_default="the usual one",
        ),
    ] = "",
    sheet: Annotated[Path | None, typer.Option(help="Also write a contact sheet, a picture of some faces.")] = None,
) -> None:
    """Draw a data set in NAME's real layout, marked as synthetic."""
    from idennet_core.datasets.synthetic import sets

    check_name(name, sets.DRAWN)
    if sheet and sheet.suffix != ".png":
        raise ValueError(f"--sheet must end in .png, got {sheet}; give another name")
    drawn = sets.synthesise(name, out, subjects, identity_effect, seed, form=form)
    done = "was there already" if drawn.reused else "drawn"
    people = "1 person" if drawn.subjects == 1 else f"{drawn.subjects} people"
    typer.echo(f"{name} (synthetic) {done}: {people}, {drawn.pictures} pictures in {out}")
    if sheet:
        sets.contact_sheet(name, sheet, identity_effect=identity_effect, seed=seed)
        typer.echo(f"contact sheet (synthetic): {sheet}")


@app.command()
def show(name: Name, root: Root, manifest: Manifest = None, votes: Votes = None, as_json: Json = False) -> None:
    """Print counts, classes, folds and what is skipped and why; decodes no picture."""
    from idennet_core.datasets.scan import describe

    description = describe(scan_of(name, root, manifest=manifest, votes=votes))
    if as_json:
        typer.echo(json.dumps({"root": str(root), **description}, indent=1))
    else:
        print_description(description)


@app.command()
def prepare(
    name: Name,
    root: Root,
    store: StoreAddress = "runs",
    detector: Annotated[Path | None, typer.Option(help="A YuNet ONNX file.")] = None,
    landmarks: Annotated[
        Path | None, typer.Option(help=f"CSV or Parquet with the columns source,{','.join(POINTS)}.")
    ] = None,
    cropped: Annotated[bool, typer.Option("--cropped", help="The pictures are cropped faces.")] = False,
    manifest: Manifest = None,
    votes: Votes = None,
    as_json: Json = False,
) -> None:
    """Detect, align and crop the faces into the store; stopped, it goes on from there, and done it does nothing."""
    from idennet_core.datasets.preparation import prepare as prepare_faces
    from orchestrator.store import at

    scan, place = scan_of(name, root, manifest=manifest, votes=votes), at(store)
    locate, settings = points_of(scan, place, detector, landmarks, cropped)
    target = place.open().fetch_all("data", name)
    before = set(place.data.glob("*"))
    drawn_points = root / DRAWN_LANDMARKS
    measured = scan.synthetic and settings["points"] == "detector" and drawn_points.is_file()
    with progress_of(title(scan.name, scan.synthetic)) as progress:
        result = prepare_faces(
            scan,
            target,
            locate,
            settings,
            truth=read_landmarks(drawn_points) if measured else None,
            progress=progress,
        )
    if result.fresh:
        place.keep(*sorted(set(place.data.glob("[!.]*")) - before - {target}), target)  # a replaced set, then this one
    if as_json:
        typer.echo(json.dumps({"fresh": result.fresh, **result.metadata}, indent=1))
    else:
        print_prepared(f"{place}/data/{name}", result.metadata, result.fresh)


@detector_app.command()
def get(
    store: StoreAddress = "runs",
    out: Annotated[Path | None, typer.Option(help="The file to write.", show_default="a place in the store")] = None,
    url: Annotated[str | None, typer.Option(help="Fetch from here.", show_default="its publisher")] = None,
) -> None:
    """Fetch YuNet's model file from its publisher and check its sha256."""
    from idennet_core.faces.detection import MODEL_NAME, MODEL_SHA256, MODEL_URL, fetch, sha256
    from orchestrator.store import at

    place = at(store)
    target = out or model_place(place)
    if target.is_file() and sha256(target) == MODEL_SHA256:
        typer.echo(f"{MODEL_NAME} is already in {target}")
        return
    fetch(target, url or MODEL_URL)
    if not out:
        place.keep(target)
    typer.echo(f"{MODEL_NAME} stored in {target}, sha256 {MODEL_SHA256}")


def scan_of(name: str, root: Path, **options: str | Path | None) -> "Scan":
    """Scan a data set with the options that are given, and say on stderr what is unusual about it.

    Raises ValueError for an unknown name, an option of another data set, another layout or nothing that can be used.
    """
    from idennet_core.datasets.preparation import SCANS
    from idennet_core.datasets.scan import require_pictures

    check_name(name, SCANS)
    given = {option: value for option, value in options.items() if value is not None}
    for option in given:
        if option not in inspect.signature(SCANS[name]).parameters:
            raise ValueError(f"--{option} belongs to another data set, but got it for {name}: leave it out")
    scan = require_pictures(SCANS[name](root, **given), root)
    for warning in scan.warnings:
        typer.echo(f"warning: {warning}", err=True)
    return scan


def check_name(name: str, valid: Iterable[str]) -> None:
    """Raise ValueError unless `name` is one of the valid names."""
    names = list(valid)
    if name not in names:
        raise ValueError(f"unknown data set {quoted(name)}; {suggest(name, names)}")


def points_of(
    scan: "Scan", store: "Store", detector: Path | None, landmarks: Path | None, cropped: bool
) -> tuple["Locate | None", dict[str, Any]]:
    """Where the five points come from, None for cropped faces, and the settings that record it.

    Raises ValueError for more than one choice or one that does not suit the data set, FileNotFoundError for a
    missing file.
    """
    from idennet_core.datasets.preparation import from_landmarks
    from idennet_core.faces import detection

    given = [
        option
        for option, value in (("--detector", detector), ("--landmarks", landmarks), ("--cropped", cropped))
        if value
    ]
    if len(given) > 1:
        raise ValueError(f"--detector, --landmarks and --cropped exclude each other, but got {' '.join(given)}")
    if scan.cropped and given not in ([], ["--cropped"]):
        raise ValueError(f"the pictures of {scan.name} are cropped faces: leave {given[0]} out")
    if scan.cropped or cropped:
        return None, {"points": "cropped"}
    if landmarks:
        table = read_landmarks(landmarks)
        if not any(picture.source in table for picture in scan.pictures):  # said before they are all decoded
            raise ValueError(
                f"{landmarks} must name the pictures, such as {scan.pictures[0].source}, but names none of them"
                + (f"; it names {next(iter(table))}" if table else "")
            )
        record = {"file": landmarks.name, "sha256": detection.sha256(landmarks)}
        return from_landmarks(table), {"points": "landmarks", **record}
    model = detector or model_place(store)
    if not detector and not model.is_file():
        raise FileNotFoundError(detection.no_model_message(model))
    find = detection.Detector(model)
    record = {"file": model.name, "sha256": detection.sha256(model)}
    settings = {"points": "detector", **record, "score": detection.SCORE}
    return lambda picture, image: find(image, scan.looks(picture, image)), settings


def model_place(store: "Store") -> Path:
    """Where the detector's model file lies in a store, or would."""
    from idennet_core.faces.detection import MODEL_NAME

    return store.fetch("detector", MODEL_NAME)


def read_landmarks(path: Path) -> dict[str, "NDArray[np.float64]"]:
    """Five points [5, 2] a picture, by its source, from a CSV or Parquet file.

    Raises FileNotFoundError, or ValueError for other columns, a source that occurs twice or a point that is
    not a finite number.
    """
    import polars as pl

    if not path.is_file():
        raise FileNotFoundError(f"--landmarks {path} does not exist: give a CSV or Parquet file")
    columns = ["source", *POINTS]
    is_parquet = path.suffix.lower() == ".parquet"
    try:
        table = pl.read_parquet(path) if is_parquet else pl.read_csv(path, infer_schema=False)
        if sorted(table.columns) != sorted(columns):
            raise ValueError(f"{path} must have the columns {','.join(columns)}, but has {','.join(table.columns)}")
        table = table.select(pl.col("source").cast(pl.String), pl.col(POINTS).cast(pl.Float64, strict=False))
    except pl.exceptions.PolarsError as error:
        raise ValueError(f"{path} must be CSV or Parquet, but cannot be read: {error}") from error
    wrong = table.filter(~pl.all_horizontal(pl.col(POINTS).is_finite().fill_null(False)))
    if len(wrong):
        raise ValueError(f"{path} must hold finite numbers, but the points of {wrong['source'][0]} are not")
    twice = table.filter(pl.col("source").is_duplicated())
    if len(twice):
        raise ValueError(f"{path} must name a picture once, but {twice['source'][0]} occurs twice: mend it")
    points = table.select(POINTS).to_numpy().reshape(-1, 5, 2)
    return dict(zip(table["source"].to_list(), points, strict=True))


def title(name: str, synthetic: bool) -> str:
    """A data set's name for a title, with the word synthetic where it is drawn."""
    return f"{name} (synthetic)" if synthetic else name


@contextmanager
def progress_of(label: str) -> Iterator[Callable[[int, int], None]]:
    """A callback (done, total) that shows progress on stderr: a bar in a terminal, else a line a quarter."""
    if sys.stderr.isatty():
        from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

        from orchestrator.cli.console import plain_console

        columns = (*Progress.get_default_columns()[:-1], MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=plain_console(stderr=True), transient=True) as bar:
            task = bar.add_task(label, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
    else:

        def line(done: int, total: int) -> None:
            if done * 4 // total > (done - 1) * 4 // total:
                typer.echo(f"{label}: {done} of {total} pictures", err=True)

        yield line


def print_description(description: dict[str, Any]) -> None:
    """Print what `describe` counted, as tables."""
    from rich.table import Table

    from orchestrator.cli.console import plain_console

    console = plain_console()
    counts = [f"{description[key]} {key}" for key in ("subjects", "sequences", "frames") if description[key]]
    protocol = ", ".join(f"{key} {value}" for key, value in description["protocol"].items())
    console.print(title(description["dataset"], description["synthetic"]), style="bold")
    console.print(", ".join(counts) + (f" ({protocol})" if protocol else ""), soft_wrap=True)
    if description["missing"]:
        console.print(description["missing"], soft_wrap=True)
    for kind, heading in (("classes", "class"), ("splits", "split")):
        if description[kind]:
            table = Table(heading, "frames")
            for key, number in description[kind].items():
                table.add_row(key, str(number))
            console.print(table)
    for source, splits in description["label_sources"].items():
        counts = [f"{number} {split}" for split, number in splits.items()]
        console.print(f"by {source}: {', '.join(counts)}", soft_wrap=True)
    if description["folds"]:
        table = Table("fold", "subjects", "sequences", "frames")
        for fold in description["folds"]:
            table.add_row(*(str(number) for number in fold.values()))
        console.print(table)
    print_skipped(console, description["skipped"])


def print_prepared(where: str, metadata: dict[str, Any], fresh: bool) -> None:
    """Print what is in a prepared set and how it came about."""
    from orchestrator.cli.console import plain_console

    console = plain_console()
    console.print(title(metadata["name"], metadata["synthetic"]), style="bold")
    done = "prepared" if fresh else "already prepared from the same files and settings, nothing to do"
    console.print(f"{metadata['num_faces']} faces {done}: {where}, data id {metadata['data_id']}", soft_wrap=True)
    if error := metadata["point_error"]:
        console.print(
            f"points found against true points: mean {error['mean']:.2f} px, "
            f"95th percentile {error['p95']:.2f} px, over {error['faces']} faces",
            soft_wrap=True,
        )
    if twins := metadata.get("twins"):
        console.print(
            f"{twins['count']} faces are bit for bit those of another person or split, the first of "
            f"{' and '.join(twins['sources'])}: what is learnt from one is tested on the other; remove one of each",
            soft_wrap=True,
        )
    print_skipped(console, metadata["skipped"])


def print_skipped(console: Any, skipped: list[dict[str, Any]]) -> None:
    """Print what was skipped: a row a reason, with the first sources."""
    from rich.table import Table

    if not skipped:
        console.print("nothing skipped")
        return
    table = Table("skipped because", "count", "where")
    for entry in skipped:
        more = f" and {entry['count'] - 2} more" if entry["count"] > 2 else ""
        table.add_row(entry["reason"], str(entry["count"]), ", ".join(entry["sources"][:2]) + more)
    console.print(table)
