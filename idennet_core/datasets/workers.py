"""Pictures are decoded in processes of their own: whatever ends one costs the picture it was at, and no more.

They guard the run against a decoder that crashes, hangs or takes all memory; they are no sandbox.
"""

import multiprocessing
import os
import resource
import signal
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Generic, TypeVar

import cv2

SECONDS = 120.0  # that an item, or the group that it is in, may take
MEMORY = 2 * 2**30  # bytes that a process may take beyond those that it starts with
TRIES = 2  # what alone ends two processes is given up; one may have been ended by somebody else
T = TypeVar("T")


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    items: Sequence[int] = ()  # that it was given
    since: float = 0.0  # when, on the monotonic clock


class Workers(Generic[T]):
    """A process a core, forked from this one when first needed, that does `work` on items, which are numbers.

    While they are open OpenCV runs on one thread, since one picture a core beats all cores on one picture, and says
    nothing of pictures that cannot be read.
    """

    def __init__(self, work: Callable[[int], T | str]) -> None:
        self._work = work
        self._idle: list[_Worker] = []
        self._busy: list[_Worker] = []
        self._ended: Counter[int] = Counter()  # processes, by the item that they had alone
        self._opencv = cv2.getNumThreads(), cv2.utils.logging.getLogLevel()

    def __enter__(self) -> "Workers[T]":
        cv2.setNumThreads(1)  # now: a forked process has no pool of threads that it could take apart
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in (*self._idle, *self._busy):
            _end(worker)
        threads, level = self._opencv
        cv2.utils.logging.setLogLevel(level)
        cv2.setNumThreads(threads)

    def map(self, groups: Sequence[Sequence[int]]) -> Iterator[T | str]:
        """What `work` gives for every item, in order, or the reason why it gave nothing.

        A group's items are done by one process, one after the other. Should that end, each is done again alone.
        """
        waiting = deque(groups)
        done: dict[int, T | str] = {}
        for item in [item for group in groups for item in group]:
            while item not in done:
                self._give(waiting)
                self._take(waiting, done)
            yield done.pop(item)

    def _give(self, waiting: deque[Sequence[int]]) -> None:
        """Give every process a group, as far as there are some."""
        while waiting and len(self._busy) < (os.cpu_count() or 1):
            worker = self._idle.pop() if self._idle else self._start()
            try:
                worker.pipe.send(waiting[0])
            except OSError:  # somebody ended it while it had nothing to do
                _end(worker)
                continue
            worker.items, worker.since = waiting.popleft(), time.monotonic()
            self._busy.append(worker)

    def _take(self, waiting: deque[Sequence[int]], done: dict[int, T | str]) -> None:
        """Take the next answers, or what became of a process that ended or is taking too long."""
        now = time.monotonic()  # before the look: who has answered until then is not late
        until = min(worker.since for worker in self._busy) + SECONDS
        ready = wait([worker.pipe for worker in self._busy], max(0.0, until - now))
        for worker in list(self._busy):
            if worker.pipe in ready:
                try:
                    done.update(zip(worker.items, worker.pipe.recv(), strict=True))
                except (EOFError, OSError):
                    self._give_up(worker, waiting, done, "")
                    continue
                self._busy.remove(worker)
                self._idle.append(worker)
            elif now - worker.since > SECONDS:
                self._give_up(worker, waiting, done, f"it takes longer than {SECONDS:g} s")

    def _give_up(self, worker: _Worker, waiting: deque[Sequence[int]], done: dict[int, T | str], reason: str) -> None:
        """End a process; its items are tried again, each alone, but for one that was alone often enough."""
        self._busy.remove(worker)
        status = _end(worker)
        if len(worker.items) > 1:
            waiting.extendleft([item] for item in reversed(worker.items))
            return
        (item,) = worker.items
        self._ended[item] += 1
        if self._ended[item] < TRIES:
            waiting.appendleft([item])
        else:
            ended = signal.Signals(-status).name if status < 0 else f"exit status {status}"
            done[item] = reason or f"it crashes the decoder ({ended})"

    def _start(self) -> _Worker:
        ours, its = multiprocessing.Pipe()
        # an end of ours that it kept open would hide from the others that this process has ended
        closes = [ours, *(worker.pipe for worker in (*self._idle, *self._busy))]
        process = multiprocessing.get_context("fork").Process(
            target=_serve, args=(self._work, its, closes), daemon=True
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads: none of ours holds what it needs
            process.start()
        its.close()
        return _Worker(process, ours)


def _end(worker: _Worker) -> int:
    """Kill a process; gives its exit status, that of its own end where it had ended already."""
    worker.pipe.close()
    worker.process.kill()
    worker.process.join()
    return worker.process.exitcode or 0


def _serve(work: Callable[[int], T | str], pipe: Connection, closes: Sequence[Connection]) -> None:
    """Answer until the other end is closed, which it is however that process ends."""
    for other in closes:
        other.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the other end is told too, and ends this process
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the decoders' own complaints; what comes of them is answered
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _limit_memory()
    try:
        while True:
            pipe.send([_answer(work, item) for item in pipe.recv()])
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def _answer(work: Callable[[int], T | str], item: int) -> T | str:
    try:
        return work(item)
    except MemoryError:
        return f"it takes more than {MEMORY >> 30} GiB of memory"
    except Exception as error:  # hostile input: what nobody thought of costs one item too, and is named
        return f"it cannot be processed: {type(error).__name__}: {error}"


def _limit_memory() -> None:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:  # no Linux: no limit
        return
    limit = pages * resource.getpagesize() + MEMORY
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
