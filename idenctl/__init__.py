"""Studies from Python, as in a notebook: `Study.load(file).run()`, then its `results()` and its `report()`.

It does what the commands do, by their own functions, and loads nothing heavy before it is asked to.
"""

import html
import json
import os
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import altair as alt
    import polars as pl

    from orchestrator.report import Format
    from orchestrator.report.stored import Stored

__all__ = ["Figure", "Report", "Study"]

HEIGHT = 720  # pixels of a report within a notebook


@dataclass(frozen=True)
class Study:
    """A study file with what was asked of it, and the store that its results go to."""

    file: Path  # like the store absolute: a notebook may go to another folder
    profile: str | None
    overrides: tuple[str, ...]  # KEY=VALUE, as --set takes them
    store: str
    folder: str  # its name in the store
    asked: tuple[str, str]  # file and store as they were given, for the study's provenance

    @classmethod
    def load(
        cls,
        file: str | Path,
        profile: str | None = None,
        overrides: Mapping[str, Any] | None = None,
        store: str | Path | None = None,
    ) -> Self:
        """The study in a YAML file; without a `store` in that of IDENCTL_STORE, or in `runs`.

        Raises ValueError or FileNotFoundError, in one line, for what the file, the profile or an override do not allow.
        """
        from orchestrator.address import is_address
        from orchestrator.cli.plan import loaded
        from orchestrator.store import at

        place = str(os.environ.get("IDENCTL_STORE") or "runs" if store is None else store)
        words = tuple(f"{key}={json.dumps(value)}" for key, value in (overrides or {}).items())
        found = loaded(Path(file), profile, list(words), at(place).check())
        everywhere = place if is_address(place) else str(Path(place).absolute())
        return cls(Path(file).absolute(), profile, words, everywhere, found.folder, (str(file), place))

    def plan(self) -> dict[str, Any]:
        """Exactly what `run` would do: what `idenctl study plan --json` prints."""
        from orchestrator import machine, runner
        from orchestrator.cli.plan import facts_of, loaded
        from orchestrator.store import at

        place = at(self.store).check()
        wanted = loaded(self.file, self.profile, list(self.overrides), place)
        return facts_of(runner.plan(wanted, place, machine.this_machine()), place)

    def run(self, engine: str = "tune", address: str | None = None, verbose: bool = False) -> Self:
        """Run what the store lacks, saying on the way how far it is; `engine` is tune or inline, as for `study run`.

        Raises ValueError for what cannot be run. A trial that fails is in the results, with its reason. After an
        interruption (Ctrl-C, a stopped cell) another call goes on where it was.
        """
        from orchestrator.cli.study import Engine, conduct

        if engine not in set(Engine):
            raise ValueError(f"an engine is {' or '.join(Engine)}, got {engine!r}; give one of them")
        with redirect_stderr(sys.stdout):  # where a notebook shows what is no error
            conduct(
                self.file,
                self.profile,
                list(self.overrides),
                self.store,
                Engine(engine),
                address,
                None,
                verbose,
                self._command(engine, address),
            )
        return self

    def results(self) -> "pl.DataFrame":
        """The stored trials of the study, a row a trial, under the name of its `cell`; accuracies are shares.

        Raises ValueError where the study was not run yet.
        """
        import polars as pl

        from orchestrator.report import cells, tables
        from orchestrator.store import at

        place = at(self.store).check()
        plan = self._frozen()
        by = cells.axes(plan["report"]["by"])[0]
        named: dict[str, str] = {}
        for cell in plan["cells"]:  # two cells may be one configuration
            named.setdefault(cell["configuration_id"], cells.cell_label(cell["label"], by))
        name = pl.col("configuration_id").replace_strict(named, return_dtype=pl.String)
        trials = tables.chosen(plan, place.trials())
        return trials.select(name.alias("cell"), pl.all()).sort("configuration_id", "seed", "fold", maintain_order=True)

    def report(self, details: bool = False) -> "Report":
        """The report of the study as far as it is stored. Raises ValueError where nothing is."""
        from orchestrator.report import stored
        from orchestrator.store import at

        place, plan = at(self.store).check(), self._frozen()
        (found,) = stored.gather(place, [stored.with_details(plan) if details else plan])
        return Report(found)

    def _frozen(self) -> dict[str, Any]:
        from orchestrator import frozen
        from orchestrator.store import at

        place = at(self.store).check()
        if not (place.studies / self.folder / "plan.json").is_file():
            raise ValueError(f"study '{self.folder}' was not run in {self.store} yet; run() it first")
        return frozen.read_plan(place.studies / self.folder / "plan.json")

    def _command(self, engine: str, address: str | None) -> list[str]:
        """The command that does the same, for the study's provenance."""
        file, store = self.asked
        words = ["idenctl", "study", "run", file, "--store", store, "--engine", engine]
        words += ["--profile", self.profile] if self.profile else []
        words += [word for each in self.overrides for word in ("--set", each)]
        return [*words, "--address", address] if address else words


@dataclass(frozen=True)
class Report:
    """A study's report: a notebook shows it, `print` prints it, `save` writes it."""

    stored: "Stored"

    @property
    def figure(self) -> "Figure":
        """The main figure: folds, means with intervals, the paper's values."""
        from orchestrator.report import figure

        return Figure(figure.chart(self.stored.report, self.stored.trials))

    def save(self, path: str | Path) -> Path:
        """Write the report as the ending says: .html, .md, .tex, .csv, .json, .txt, or its figure, .svg, .png, .pdf.

        Raises ValueError for another ending and NotADirectoryError where there is no such folder.
        """
        from orchestrator.cli.report import check_out, write
        from orchestrator.report import FIGURES, SUFFIXES

        path = Path(path)
        check_out(path, what="a report")
        if path.suffix in FIGURES:
            from orchestrator.report import figure

            write(path, figure.draw(self.stored.report, self.stored.trials, path.suffix))
        elif path.suffix in SUFFIXES:
            write(path, self.text(SUFFIXES[path.suffix]))
        else:
            raise ValueError(f"a report ends in {', '.join([*SUFFIXES, *FIGURES])}, got {path}; give another name")
        return path

    def text(self, format: "Format | str", width: int = 120) -> str:
        """The report in a format, as `idenctl report --format` writes it; `width` is the terminal's."""
        from orchestrator.report import Format, formats, stored

        format, found = Format(format), self.stored
        if format is Format.HTML:
            (found,) = stored.gather(found.store, [stored.with_everything(found.plan)])
            return formats.render([found.report], format, evidence=[found.evidence])
        if format is Format.JSON:
            (found,) = stored.gather(found.store, [found.plan], exact=True)
        return formats.render([found.report], format, width)

    def __str__(self) -> str:
        return self.text("terminal")

    def _repr_markdown_(self) -> str:
        return self.text("markdown")

    def _repr_html_(self) -> str:
        """The page in a frame of its own, so that neither it nor the notebook changes how the other looks."""
        page = html.escape(self.text("html"), quote=True)
        style = f"width:100%;height:{HEIGHT}px;border:0"
        return f'<iframe title="{html.escape(self.stored.report.title)}" style="{style}" srcdoc="{page}"></iframe>'


@dataclass(frozen=True)
class Figure:
    """A figure that a notebook shows without asking the network for anything; `chart` is Altair's, to be changed."""

    chart: "alt.ConcatChart"

    def _repr_svg_(self) -> str:
        from orchestrator.report.figure import svg

        return svg(self.chart)
