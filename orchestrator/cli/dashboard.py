"""`idenctl dashboard`: a search in optuna-dashboard, from its database or from the store."""

import sys
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Annotated, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import typer

from orchestrator.cli import completion
from orchestrator.cli.options import StoreAddress

if TYPE_CHECKING:
    from orchestrator.store import Store

HOST = "127.0.0.1"  # whoever reaches a dashboard can rename and delete what is in its database


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


def dashboard(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            help="A search that was run, NAME or NAME@PROFILE; else all.",
            autocompletion=completion.studies,
        ),
    ] = None,
    store: StoreAddress = "runs",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any that is free.")] = 8080,
) -> None:
    """Open optuna-dashboard on a search: on its Optuna database where it names one, else on a copy from the store."""
    from orchestrator.store import at

    try:
        import optuna_dashboard
    except ImportError:
        raise ValueError(
            "the dashboard needs optuna-dashboard, which is not installed; pip install 'idenctl[dashboard]'"
        ) from None
    storage = _storage(name, at(store).check())
    try:
        server = make_server(HOST, port, optuna_dashboard.wsgi(storage), _Server, _Quiet)
    except OSError as error:
        raise ValueError(f"--port must be free, {port} is not: {error.strerror}; give another, or 0") from None
    with server:
        typer.echo(f"http://{HOST}:{server.server_port}/dashboard")
        print("Ctrl-C ends it", file=sys.stderr)
        server.serve_forever()


def _storage(name: str | None, store: "Store") -> Any:
    """The Optuna database of the named study, or in memory a copy of it or of all searches in the store."""
    from orchestrator import machine, runner
    from orchestrator.cli.report import resolve
    from orchestrator.frozen import read_plan
    from orchestrator.search import mirror

    known = sorted(path.parent.name for path in store.studies.glob("*/plan.json"))
    chosen = [resolve(name, known, f"the store {store}")] if name else known
    searches = [each for each in chosen if read_plan(store.studies / each / "plan.json").get("search")]
    if not searches:
        found, step = (f"{chosen[0]} has a design", f"report {chosen[0]}") if name else ("got none", "study run FILE")
        raise ValueError(f"the dashboard shows searches, {found}; next: idenctl {step}")
    shown, database = [], None
    for each in searches:
        study = runner.load(store.studies / each / "study.yaml", None, {}, store)
        planned = runner.plan(study, store, machine.this_machine())
        assert planned.search is not None
        copies = mirror.shown(planned.search, planned.synthetic)
        shown += copies
        if not any(trial.state.is_finished() for copy in copies for trial in copy.trials):
            print(f"{each}: no configuration has finished yet", file=sys.stderr)
        if name and study.optuna:
            try:
                database = mirror.connected(mirror.address(study.optuna.storage))
            except ConnectionError as error:
                print(f"warning: {error}; this is a copy from the store", file=sys.stderr)
                break
            if {copy.name for copy in copies} - {one.study_name for one in database.get_all_studies()}:
                print(f"{each} is not in its database yet; run it again, which catches up", file=sys.stderr)
    return database or mirror.copied(shown)
