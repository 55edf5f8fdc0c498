"""Packs on Ray Tune, one Tune trial a pack; before them trunks as Ray tasks, one a device.

Ray Tune owns the loop and places packs on devices; the store owns the truth, so Tune's own experiment state is
thrown away with its folder and never restored.
"""

import logging
import os
import re
import shutil
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orchestrator.cluster import token

# Read by Ray when it is imported.
os.environ[token.MODE] = "token"
os.environ.setdefault("RAY_DEDUP_LOGS", "0")
os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = "256"  # packs to ask the cluster for beyond those that run
os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = "inf"  # seconds between two writings of all packs' states, which nobody reads
os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # Ctrl-C is KeyboardInterrupt here, as everywhere else
os.environ["TUNE_WARN_THRESHOLD_S"] = "60"
os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # the new output prints a box even when it is told to be quiet
os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"

import ray
from ray import tune
from ray._private import ray_constants, services
from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]  # a compiled module
from ray.exceptions import RayTaskError
from ray.tune.experiment import Trial
from ray.tune.search import Searcher
from ray.util.queue import Queue

from orchestrator.cluster import placement
from orchestrator.cluster.address import reached
from orchestrator.cluster.growth import Growth
from orchestrator.cluster.placement import Cluster, Need, Watch
from orchestrator.planning import Capacity
from orchestrator.progress import Event, PackCut, PackFailed, PackStopped, Waiting
from orchestrator.source import Divided, Source, harmed, spent, until
from orchestrator.store import Store
from orchestrator.trial import Pack, Setting
from orchestrator.workload import Context, Workload, run_pack

OBJECT_STORE = 256 * 2**20  # bytes: packs and events pass through it, never data
MOST_RUNNING = 10_000  # packs at once, more than there are devices
HEARD_EVERY = 0.2  # seconds between two looks at what trunks report
STARTS_WITHIN = 180.0  # seconds, for a Ray of our own; by itself it gives up after 30, which a busy machine takes
RETRIES = 2  # of a pack whose worker died, from its checkpoint
# how Ray says that a worker died while its node went on; and that the pack had no part in it
KILLED = re.compile(r"its worker process has died|the node running low on memory")
LOST = re.compile(r"its node has died|^The actor \w+ is unavailable", re.MULTILINE)


class PackSearcher(Searcher):
    """Hands out packs as they come, and ends when there are none left or the time is up."""

    def __init__(self, packs: Divided, deadline: float | None) -> None:
        super().__init__(metric="done", mode="max")
        self.packs, self.deadline = packs, deadline
        self.running: dict[str, str] = {}  # pack ids by the ids of Tune's trials

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune writes its searcher to its state file, and where packs come from belongs to this process."""
        return {}

    def suggest(self, trial_id: str) -> Any:
        """The next pack as a Tune trial's configuration, None to wait for others, or `FINISHED`."""
        if spent(self.deadline):
            return Searcher.FINISHED
        pack = self.packs.next()
        if pack is None:
            return Searcher.FINISHED if self.packs.over else None
        self.running[trial_id] = pack.pack_id
        return {"pack": pack}

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """What a pack found is in the store; others may be made of it. Of one that died the callback hears why."""
        pack_id = self.running.pop(trial_id)
        if not error:
            self.packs.done(pack_id)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the plan is made anew from the store at every start."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, as there is nothing saved."""


class _Listener(tune.Callback):
    """Passes on the events that workers report and what packs wait for, and says what becomes of packs that died."""

    def __init__(self, packs: Divided, listen: Callable[[Event], None], watch: Watch) -> None:
        self.packs, self.listen, self.watch = packs, listen, watch
        self.killed: Counter[str] = Counter()  # by pack_id, how many workers died under it

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune writes its callbacks to its state file, and whoever listens belongs to this process."""
        return {}

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Mapping[str, Any], **_: Any) -> None:
        event = result["event"]
        self.listen(event)
        if isinstance(event, PackCut):
            self.packs.again(trial.config["pack"].pack_id, event.halves)

    def on_step_end(self, iteration: int, trials: Any, **_: Any) -> None:
        states = Counter(trial.status for trial in trials)
        self.watch.look(states[Trial.PENDING], states[Trial.RUNNING])

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        pack: Pack = trial.config["pack"]
        said = Path(trial.error_file).read_text() if trial.error_file else ""
        killed, raised = deaths(said)
        self.killed[pack.pack_id] += killed
        if raised:
            self.listen(PackFailed(pack.pack_id, pack.trial_ids, f"its worker died{_cause(said)}", said))
        elif self.killed[pack.pack_id] <= RETRIES:
            self.packs.again(pack.pack_id, [pack])
        else:
            event = harmed(pack, f"killed its worker {self.killed[pack.pack_id]} times{_cause(said)}", said)
            self.listen(event)
            if isinstance(event, PackCut):
                self.packs.again(pack.pack_id, event.halves)
        self.packs.done(pack.pack_id)


def deaths(said: str) -> tuple[int, int]:
    """How many workers died under a pack, of what Tune writes of its failures, and how many errors were raised there.

    What is neither is a node that was lost.
    """
    failures = re.split(r"^Failure # \d+ .*$", said, flags=re.MULTILINE)[1:]
    killed = [failure for failure in failures if KILLED.search(failure)]
    lost = [failure for failure in failures if failure not in killed and LOST.search(failure)]
    return len(killed), len(failures) - len(killed) - len(lost)


def _cause(said: str) -> str:
    """Of what Ray says of a death the last error, else how the worker ended, else what became of it; `: ` before it."""
    causes = (
        re.findall(r"^(?:\w+\.)*(\w+(?:Error|Exception): .+)$", said, re.MULTILINE)
        or re.findall(r"Worker exit detail: (.+?)(?:\. |$)", said, re.MULTILINE)
        or re.findall(r"killed due to (the node running low on memory)", said)
        or re.findall(r"^The actor .+?(?=\. |$)", said, re.MULTILINE)
    )
    return f": {causes[-1]}" if causes else ""


def _sweep() -> None:
    """Remove the scratch folders that killed processes left behind."""
    for folder in Path(tempfile.gettempdir()).glob("idenctl-*-*"):
        owner = folder.name.split("-")[1]
        if owner.isdigit() and not _lives(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)


def _lives(process: int) -> bool:
    """Whether there is a process of that number on this machine."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def devices(address: str, cluster_file: Path | None) -> tuple[Capacity, Cluster, str]:
    """The devices of the running cluster at `address` (HOST:PORT or auto), the cluster, and what it is in words.

    `cluster_file` says what its autoscaler can start, where this machine does not know. Raises ValueError for what is
    no such address, ConnectionError where nothing answers.
    """
    token.for_cluster()
    cluster = Cluster(reached(address), placement.growth(cluster_file))
    with _connected(Capacity("cpu", 1, 1), cluster, False):
        here = placement.machines()
    return placement.capacity(here, cluster.growth), cluster, placement.describe(here, cluster.growth)


def starts(capacity: Capacity) -> str:
    """Start a Ray as `run` does and let a worker of it answer; gives what it has. Raises what Ray raises."""
    with _connected(capacity, None, False):
        ray.get(ray.remote(lambda: None).remote(), timeout=STARTS_WITHIN)
        found: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        return f"{found['CPU']:g} CPUs"


def run(
    packs: Source,
    workload: Workload,
    store: Store,
    capacity: Capacity,
    listen: Callable[[Event], None],
    deadline: float | None = None,
    cluster: Cluster | None = None,
    verbose: bool = False,
) -> None:
    """Run the packs on a Ray cluster, or on one that lives as long as this call.

    Tells `listen` what happens, until the deadline (seconds since 1970). A pack that fails is told; one whose worker
    dies is tried again from its checkpoint, twice, and then cut in halves, as one that runs out of memory is at once;
    one whose node is lost is tried again. Raises `NoDevice` when packs wait in vain.
    """
    divided = Divided(packs)
    gpus = 1 / capacity.share if capacity.kind == "gpu" else 0.0
    logging.getLogger("ray.tune").setLevel(logging.INFO if verbose else logging.CRITICAL)

    def train_pack(configuration: Mapping[str, Pack]) -> None:
        def tell(event: Event) -> None:
            tune.report({"event": event, "done": 0})

        if spent(deadline):  # Tune asks for packs long before there is a device for them
            tell(PackStopped(configuration["pack"].pack_id))
            return
        if store.bucket:
            store.bucket.tell = lambda reason: tell(Waiting(reason))
        context = Context(store, capacity.kind, capacity.threads, until(deadline, tell))
        run_pack(workload, configuration["pack"], context)

    def waits(reason: str) -> None:
        listen(Waiting(reason))

    with _connected(capacity, cluster, verbose) as scratch:
        # its own Ray too: when that has lost its only node, packs would wait for ever
        watch = Watch(Need(capacity.threads, gpus), cluster.growth if cluster else Growth(), waits)
        tune.Tuner(
            tune.with_resources(train_pack, {"cpu": float(capacity.threads), "gpu": gpus}),
            tune_config=tune.TuneConfig(
                search_alg=PackSearcher(divided, deadline),
                num_samples=-1,
                max_concurrent_trials=MOST_RUNNING,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="packs",
                storage_path=f"{scratch}/tune",
                failure_config=tune.FailureConfig(max_failures=RETRIES),
                callbacks=[_Listener(divided, listen, watch)],
                verbose=1 if verbose else 0,
            ),
        ).fit()


def train_trunks(
    recipes: Sequence[Mapping[str, Setting]],
    train: Callable[[Mapping[str, Setting], Callable[[Any], None]], None],
    capacity: Capacity,
    on_progress: Callable[[Any], None],
    cluster: Cluster | None = None,
    on_waiting: Callable[[str], None] = lambda reason: None,
) -> None:
    """Run `train(recipe, tell)` for each recipe as a Ray task of its own: on a GPU each, or a core each on CPUs.

    What a task tells reaches `on_progress`. One whose worker dies is tried again from its checkpoint, twice. The
    first error of a task is raised as it was there, and ends the others. `on_waiting` is told why they wait while none
    has told anything; raises `NoDevice` when they wait in vain.
    """
    cpus, gpus = (capacity.cpus, 1) if capacity.kind == "gpu" else (1, 0)
    with _connected(capacity, cluster, False):
        heard = Queue(actor_options={"num_cpus": 0})
        watch = Watch(Need(cpus, gpus), cluster.growth, on_waiting) if cluster else None
        running = 0
        task = ray.remote(train).options(num_cpus=cpus, num_gpus=gpus, max_retries=2)
        waiting = [task.remote(dict(recipe), heard.put) for recipe in recipes]
        while waiting:
            ended, waiting = ray.wait(waiting, timeout=HEARD_EVERY)
            for progress in heard.get_nowait_batch(heard.qsize()):
                running = 1
                on_progress(progress)
            if watch:
                watch.look(len(waiting), running)
            try:
                ray.get(ended)
            except RayTaskError as error:
                raise error.cause from None


@contextmanager
def _connected(capacity: Capacity, cluster: Cluster | None, verbose: bool) -> Iterator[str]:
    """The Ray cluster, or one that lives as long as this context; gives a scratch folder."""
    _sweep()
    scratch = tempfile.mkdtemp(prefix=f"idenctl-{os.getpid()}-")  # short, for sockets
    try:
        with _own_sigterm():
            if cluster:
                token.for_cluster()
                ray.init(address=cluster.address, log_to_driver=verbose, logging_level=logging.ERROR)
            else:
                token.for_own_ray()
                AuthenticationTokenLoader.instance().reset_cache()  # what this process showed an earlier Ray
                with _loopback(), _patiently():
                    ray.init(
                        address="local",
                        num_cpus=capacity.cpus * capacity.devices,
                        include_dashboard=False,
                        object_store_memory=OBJECT_STORE,
                        log_to_driver=verbose,
                        logging_level=logging.INFO if verbose else logging.ERROR,
                        configure_logging=verbose,
                        _temp_dir=scratch,
                    )
        yield scratch
    finally:
        ray.shutdown()
        shutil.rmtree(scratch, ignore_errors=True)
        _sweep()  # again: agents outlive a killed driver by a minute and write to its folder


@contextmanager
def _loopback() -> Iterator[None]:
    """Let all that Ray starts listen on loopback alone, as it does by itself where it makes no clusters (macOS)."""
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _patiently() -> Iterator[None]:
    """Let a Ray take `STARTS_WITHIN` to start: what it asks for its node waits as long for the answer."""
    once: Callable[..., Any] = services.get_node

    def get_node(*asked: Any) -> Any:
        ends = time.monotonic() + STARTS_WITHIN
        while True:
            try:
                return once(*asked)
            except RuntimeError:  # it is not there yet
                if time.monotonic() >= ends:
                    raise ConnectionError(
                        f"a Ray of this machine's own must start within {STARTS_WITHIN:g} s, it did not; "
                        "run the same command again when the machine is less busy"
                    ) from None
                time.sleep(0.1)

    services.get_node = get_node
    try:
        yield
    finally:
        services.get_node = once


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep what this program does on SIGTERM, which Ray overwrites when it starts."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
