"""Where studies run and are struck: stores of drawn faces, commands in folders of their own, and what they leave."""

import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path

from chaos import forked, rows
from chaos.ledger import Blow
from idennet_core.streams import generator

ROOT = Path(__file__).parent.parent.parent
SHORT = os.environ.get("CHAOS", "full") == "short"
SEED = int(os.environ.get("CHAOS_SEED", "0"))
# Ray's minute until a driver without a head gives up is ten seconds in the short suite
HURRY = {"RAY_gcs_rpc_server_reconnect_timeout_s": "10"} if SHORT else {}
ENDED = 120  # seconds until what a command has started has ended with it, on a busy machine
AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")  # which tell a head that is gone of a raylet that is gone,
AGENTS_ENDED = 300  # and give up after a minute
FINISH = 600  # seconds after which a command hangs
TRIES = 5  # to strike a run before it ends by itself
PLAN, CHECKPOINT, ROWS = "studies/*/plan.json", "checkpoints/pack-*.safetensors", "trials/*.parquet"  # where one halts
MARK = "IDENCTL_CHAOS"  # in the environment of every process of a command
SAVED = ("checkpoints/[!.]*", "trials/[!.]*", "trunks/[!.]*/trunk.json", "studies/*/asked/*/*/[!.]*")

TRUNKS = """
trunks:
  emotion: {epochs: 2, batch_size: 16}
  identity: {epochs: 2, batch_size: 16}
"""
STUDIES = {
    "design": """
name: design
question: Does a kill lose a row?
dataset: oulu-casia
folds: [0, 4]
base: {depth: 10, epochs: 3, batch_size: 16, lr: 0.1, augment: false}
design:
  cells: [{variant: original}, {variant: f}]
  grid: {id_rate: [0.5, 1.0]}
report: {by: id_rate, baselines: [{variant: original}]}
"""
    + TRUNKS,  # 8 trials in 2 packs
    "search": """
name: search
question: Does a kill change the answer?
dataset: oulu-casia
folds: [0, 4]
base: {variant: if, depth: 10, epochs: 3, batch_size: 16, lr: 0.1, augment: false}
search:
  space: {alpha: {low: 0.01, high: 1, log: true}, gamma: {low: 0, high: 20}}
  configurations: 6
  batch: 2
  pruning: {first: 1}
report: {by: [alpha, gamma]}
"""
    + TRUNKS,  # 3 batches of 2 configurations, then the chosen
}
STUDIES["nan"] = (  # half of its trials fail, as their weights are no longer finite
    STUDIES["design"]
    .replace("name: design", "name: nan")
    .replace("lr: 0.1, augment", "augment")
    .replace("[{variant: original}, {variant: f}]", "[{variant: original, lr: 0.1}]")
    .replace("{id_rate: [0.5, 1.0]}", "{variant: [if], lr: [0.1, 1.0e+30]}")
    .replace("by: id_rate, baselines: [{variant: original}]", "by: lr")
)
STUDIES["poison"] = (
    STUDIES["design"]
    .replace("name: design", "name: poison")
    .replace("dataset:", "workload: tests.chaos.poison:Poison\ndataset:")
)
STATUS = {"nan": 1}  # the exit status of an undisturbed run that is not 0
FACES = {"oulu-casia": 10, "ferplus": 60, "casia-webface": 4}  # people


BOTH = ["search"] if SHORT else ["design", "search"]  # the studies that a fault is tried on


def times(full, short):
    """How often something is tried, in the whole suite and in the short one."""
    return short if SHORT else full


def stream(*names):
    """Random numbers of the suite's seed."""
    return generator("chaos", SEED, *names)


class Command:
    """A running command, in a folder with a home and a place for temporary files of its own."""

    def __init__(self, line, folder, environment, forks=False, **deadly):
        self.mark, self.folder, self.began = f"{MARK}={uuid.uuid4().hex}", folder, time.time()
        self.line = " ".join(map(str, line))
        for name in ("home", "t", "here"):
            (folder / name).mkdir(parents=True)
        own = {"HOME": str(folder / "home"), "TMPDIR": str(folder / "t"), "PYTHONPATH": str(ROOT)}
        own |= {MARK: self.mark.partition("=")[2], **HURRY, **environment}
        if forks:
            self.process = forked.start(line, folder / "here", own, **deadly)
        else:
            with (folder / "here/stdout").open("w") as out, (folder / "here/stderr").open("w") as said:
                self.process = subprocess.Popen(
                    [*map(str, line)],
                    cwd=folder / "here",
                    env={k: v for k, v in os.environ.items() if not k.startswith(("IDENCTL", "RAY"))} | own,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=said,
                    start_new_session=True,
                )
        self.pid = self.process.pid
        self.session = True  # until it was seen empty: then its number may become that of another's

    @property
    def status(self):
        """The exit status, minus the signal where one ended it; None while it runs."""
        return self.process.poll() if isinstance(self.process, subprocess.Popen) else self.process.exitcode

    @property
    def said(self):
        """What it has said on stderr."""
        return (self.folder / "here/stderr").read_text()

    def until(self, happened, within=FINISH):
        """Wait until it has happened, or the command has ended; gives whether it has happened."""
        deadline = time.monotonic() + within
        while True:
            over = self.status is not None or time.monotonic() > deadline  # asked first: then nothing more happens
            if (found := bool(happened())) or over:
                return found
            time.sleep(0.003)

    def end(self, within=FINISH):
        """Wait for its end; gives the exit status."""
        assert not self.until(lambda: False, within)
        assert self.status is not None, f"still running after {within} s: {self.said}"
        return self.status

    def kill(self, number):
        """Send it a signal, unless it has ended."""
        if self.status is None:
            with suppress(ProcessLookupError):  # it ends just now
                os.kill(self.pid, number)

    def kill_group(self):
        """Kill it and its group, and wait for its end; gives whether that is what ended it."""
        if self.status is None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        return self.end() == -signal.SIGKILL

    def halted(self):
        """Wait until it is stopped, or has ended; gives whether it is stopped."""
        return self.until(lambda: _state(self.pid) == "T")

    @property
    def processes(self):
        """The ids of all processes that it has started and that still run, its own too."""
        return [pid for pid in (int(path.name) for path in Path("/proc").glob("[0-9]*")) if self._started(pid)]

    def _started(self, pid):
        try:
            state, _, _, session = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:4]
            marked = self.mark.encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError, PermissionError):  # it has ended, or is somebody else's
            return False
        return state != "Z" and (marked or (self.session and int(session) == self.pid))

    def left(self, agents=False, within=ENDED):
        """The command lines of what still runs of it, waiting for what is just ending; of agents too where asked."""
        end = time.monotonic() + within
        while left := [line for line in map(_line, self.processes) if agents or not line.startswith(AGENTS)]:
            if time.monotonic() > end:
                break
            time.sleep(0.1)
        self.session = bool(left) or self.status is None
        return left

    def children(self, words):
        """The ids of those of its processes whose command line has these words."""
        return [pid for pid in self.processes if words in _line(pid) and pid != self.pid]

    def put_down(self):
        """Kill what still runs of it."""
        for pid in self.processes:
            try:
                os.kill(pid, 9)
            except ProcessLookupError:
                continue


def _state(pid):
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return ""


def _line(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""


class Stage:
    """Stores to run studies in, and the book of what they survived."""

    def __init__(self, root):
        self.root, self.blows, self.commands, self.wholes = root, [], [], {}
        root.mkdir()

    def close(self):
        """Require that nothing runs any more, and leave no process and no file."""
        left = [line for command in self.commands for line in command.left(agents=True, within=AGENTS_ENDED)]
        for command in self.commands:
            command.put_down()
        shutil.rmtree(self.root)
        assert left == []

    def start(self, *line, environment=None, **more):
        """A command that has been started."""
        folder = self.root / str(len(self.commands))
        self.commands.append(Command(line, folder, environment or {}, **more))
        return self.commands[-1]

    def idenctl(self, *arguments, forks=True, **more):
        """An `idenctl` command that has been started."""
        program = () if forks else (sys.executable, "-m", "orchestrator.cli.app")
        return self.start(*program, *arguments, forks=forks, **more)

    def run(self, store, study="design", *options, engine="inline", **more):
        """`study run` of one of `STUDIES`, started."""
        arguments = ("study", "run", store / f"{study}.yaml", "--store", store, "--engine", engine, *options)
        return self.idenctl(*arguments, **({"forks": engine == "inline"} | more))

    def halted(self, store, study, halts):
        """A run that has halted right after it put a file of such a name in its place: it goes on with SIGCONT."""
        command = self.run(store, study, within=store, halts=halts)
        assert command.halted(), f"{command.status}: {command.said}"
        return command

    def at_work(self, *arguments, **more):
        """A run on Ray that was stopped in the midst of its packs, and its store; what ended before is tried again."""
        for _ in range(TRIES):
            command, store = self._begun(*arguments, **more)
            command.kill(signal.SIGSTOP)
            if command.halted() and not list(store.glob(ROWS)):  # nor will there be: workers wait until they are heard
                return command, store
            command.kill(signal.SIGCONT)
            assert command.end() == 0, command.said
        raise AssertionError(f"{TRIES} times it was not stopped before it had rows")

    def _begun(self, study, *options, **more):
        store = self.pretrained()
        command = self.run(store, study, *options, engine="tune", **more)
        command.until(lambda: list(store.glob(CHECKPOINT)))
        return command, store

    def store(self):
        """A new store with drawn faces and the study files, and nothing else."""
        if "faces" not in self.wholes:
            self.wholes["faces"] = self._draw(self.root / "faces")
        return self._copy(self.wholes["faces"])

    def pretrained(self):
        """A new store that has the trunks too, for what is struck later."""
        store = self.store()
        shutil.copytree(self.whole() / "trunks", store / "trunks", dirs_exist_ok=True)
        return store

    def whole(self, study="design"):
        """The store after an undisturbed run; not to be written to."""
        if study not in self.wholes:
            store = self.store()
            command = self.run(store, study)
            assert command.end() == STATUS.get(study, 0), command.said
            self.wholes[study] = store
        return self.wholes[study]

    def copy(self, study="design"):
        """A copy of the store after an undisturbed run."""
        return self._copy(self.whole(study))

    def recover(self, kind, store, study="design", repeated=(), **more):
        """Run the study again after faults, hold the rows against the undisturbed run's, and enter it into the book.

        `repeated` has for each fault the seconds of work that it cost, None where nothing was running.
        """
        command = self.run(store, study, **more)
        recovery = None
        if command.until(lambda: last_saved(store) > command.began):
            recovery = last_saved(store) - command.began
        command.end()
        self.survived(kind, store, study, command, repeated or (None,), recovery)

    def survived(self, kind, store, study, command, repeated=(None,), recovery=None):
        """Enter faults of which `command` is the last that ran, and require that nothing came of them."""
        found = rows.compare(store, self.whole(study))
        fine = command.status == STATUS.get(study, 0) and not found
        self.blows += [Blow(kind, fine, 0, 0, seconds) for seconds in repeated[:-1]]
        self.blows.append(Blow(kind, fine, found.lost, found.doubled, repeated[-1], recovery))
        assert command.status == STATUS.get(study, 0), f"{command.status}: {command.said}"
        assert not found, f"seed {SEED}: {found}"
        self.is_clean(store)

    def is_clean(self, store):
        """No command runs any more, and neither their folders nor the store hold what is not to be there."""
        for command in self.commands:
            assert command.left() == [], f"{command.line} has left what runs"
            strays = [path for name in ("home", "t", "here") for path in (command.folder / name).iterdir()]
            strays = [str(path) for path in strays if path.name not in OWN and not path.match(TORCH)]
            assert strays == [], f"{command.line} has left {strays}"
        assert list((store / "checkpoints").glob("[!.]*")) == [], "nothing is left to resume"

    def _draw(self, store):
        for name, people in FACES.items():
            drawn = self.root / "drawn" / name
            self._done("data", "synth", name, "--out", drawn, "--subjects", people)
            points = () if name == "ferplus" else ("--landmarks", drawn / "landmarks.csv")
            self._done("data", "prepare", name, "--root", drawn, "--store", store, *points)
        for name, content in STUDIES.items():
            (store / f"{name}.yaml").write_text(content)
        return store

    def _done(self, *arguments):
        command = self.idenctl(*arguments)
        assert command.end() == 0, command.said

    def _copy(self, store):
        return shutil.copytree(store, self.root / f"s{uuid.uuid4().hex[:8]}")


OWN = {"stdout", "stderr", "operations"}  # what the harness keeps of a command
TORCH = "t/torchinductor_*"  # an empty folder that torch makes for each user when it is imported


def last_saved(store):
    """When the store last got something that need not be worked again, in seconds since 1970; 0 if never."""
    times = [0.0]
    for path in (path for pattern in SAVED for path in store.glob(pattern)):
        try:
            times.append(path.stat().st_mtime)
        except FileNotFoundError:  # a checkpoint that is no longer needed
            continue
    return max(times)


def at_stake(command, store):
    """Seconds since the command last saved something, or began: what is worked again if it is struck now."""
    return time.time() - max(last_saved(store), command.began)
