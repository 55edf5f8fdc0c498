"""`idenctl study submit` and `stop`: a study that runs where this terminal is not."""

import sys
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.address import is_address
from orchestrator.cli import completion
from orchestrator.cli.options import DASHBOARD, ClusterFile, Profile, Set, StoreAddress, StudyFile
from orchestrator.cli.plan import loaded
from orchestrator.cli.report import resolve

if TYPE_CHECKING:
    from orchestrator.cluster.jobs import Job, Jobs
    from orchestrator.store import Store
    from orchestrator.study import Study


def submit(
    file: StudyFile,
    address: Annotated[str, DASHBOARD],
    profile: Profile = None,
    set_: Set = None,
    store: StoreAddress = "runs",
    cluster: ClusterFile = None,
    follow: Annotated[bool, typer.Option(help="Show what the job prints until it ends; Ctrl-C ends only this.")] = True,
) -> None:
    """Run a study as a job of a Ray cluster, which goes on when this terminal is closed.

    The exit status is the run's own: 0, 1, 2; 130 where it was stopped.
    """
    from orchestrator.cluster import shipping
    from orchestrator.cluster.jobs import Jobs
    from orchestrator.store import at
    from orchestrator.trial import IDENNET

    place = at(_seen_by_all(store)).check()
    wanted = loaded(file, profile, set_, place)
    _check(wanted, place)
    jobs = Jobs(address)
    here = Path.cwd().resolve()
    modules = [] if wanted.workload == IDENNET else shipping.own_modules(here, sys.modules.values())
    command = ["python", "-m", "orchestrator.cli.app", "study", "run", file.name, "--address", "auto"]
    command += ["--store", place.everywhere, *(["--profile", profile] if profile else [])]
    command += [part for assignment in set_ or [] for part in ("--set", assignment)]
    command += ["--cluster", cluster.name] if cluster else []
    with TemporaryDirectory(prefix="idenctl-job-") as folder:
        shipped = shipping.pack(Path(folder), [file, *([cluster] if cluster else [])], modules, here)
        print(f"sending {', '.join(shipped)} ({shipping.size(Path(folder)) / 1e6:.1f} MB)", file=sys.stderr)
        job = jobs.submit(wanted.folder, command, Path(folder))
    print(f"{wanted.folder} is {jobs.named(job)}; {jobs.next(wanted.folder)}", file=sys.stderr, flush=True)
    if follow:
        raise typer.Exit(_follow(jobs, job))


def stop(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="A study that is running: NAME or NAME@PROFILE.", autocompletion=completion.studies
        ),
    ],
    address: Annotated[str | None, DASHBOARD] = None,
    store: StoreAddress = "runs",
) -> None:
    """Stop a study as Ctrl-C does, on this machine or, with --address, on a cluster, and wait for its end."""
    again = "submit it again" if address else "run the same command again"
    if address:
        from orchestrator.cluster.jobs import Jobs

        jobs = Jobs(address)
        found = jobs.by_study()
        study = resolve(name, list(found), f"the jobs at {jobs.address}") if found else name
        running = [job for job in found.get(study, []) if not job.over]
        if not running:
            raise ValueError(f"only a job that runs can be stopped, {name} has none at {jobs.address}")
        ended, said = jobs.stop(running[-1])
        print(said, end="", file=sys.stderr)
        print(f"{jobs.named(ended)}; to go on: {again}", file=sys.stderr)
        return
    from orchestrator import record
    from orchestrator.store import at

    place = at(store).check()
    study = resolve(name, [study["study"] for study in record.stored_studies(place)], f"the store {place}")
    process = record.stop(place, study)
    print(f"{study} has stopped (process {process}); to go on: {again}", file=sys.stderr)


def _seen_by_all(store: str) -> str:
    """The store, which every machine of the cluster must find under the same name."""
    if not is_address(store) and not Path(store).is_absolute():
        raise ValueError(
            f"a cluster's store is a bucket, or a folder that all its machines see under the same absolute path, "
            f"got {store}; give --store"
        )
    return store


def _check(wanted: "Study", store: "Store") -> None:
    """Raise ValueError or FileNotFoundError for what would be refused on the cluster, as far as one sees from here."""
    from orchestrator import machine, runner

    storage = wanted.optuna.storage if wanted.optuna else ""
    if storage.startswith("sqlite:///") and not storage.startswith("sqlite:////"):
        raise ValueError(f"a job has no folder that stays, so its database is at an absolute path, got {storage}")
    if store.bucket or store.root.is_dir():
        runner.plan(wanted, store, machine.this_machine())
    else:
        print(f"{store.root} is not seen from here: the cluster checks the data", file=sys.stderr)


def _follow(jobs: "Jobs", job: "Job") -> int:
    """Show what the job prints until its end; gives its exit status."""

    def say(text: str) -> None:
        print(text, end="", file=sys.stderr, flush=True)

    try:
        ended = jobs.follow(job, say)
    except KeyboardInterrupt:
        with suppress(OSError):
            print(f"\n{jobs.named(job)} goes on; {jobs.next(job.study)}", file=sys.stderr)
        raise
    print(f"{jobs.named(ended)}{_why(ended)}", file=sys.stderr)
    return ended.exit_status


def _why(job: "Job") -> str:
    """Why a job ended that did not end by itself."""
    if job.exit_code == 127:
        return ": there is no `python` on the PATH of the cluster's Ray"
    return f": {job.message}" if job.state == "FAILED" and job.exit_code is None else ""
