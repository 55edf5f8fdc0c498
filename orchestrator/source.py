"""Where an engine's packs come from, what becomes of those that do harm, and when it stops taking them."""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Protocol

from orchestrator.planning import halves
from orchestrator.progress import Event, PackCut, Progress, TrialFailed
from orchestrator.trial import Pack

ALONE = "alone in its pack it "  # how the reason begins why a trial failed that another machine, or day, may let pass


class Source(Protocol):
    """Packs for an engine, one after the other; some are made only when others are done."""

    def next(self) -> Pack | None:
        """The next pack; None where there is none now."""

    def done(self, pack_id: str) -> None:
        """The pack has ended, however it ended."""

    @property
    def over(self) -> bool:
        """Whether no pack will come any more."""


class Listed:
    """Packs that are all known before the first one runs."""

    def __init__(self, packs: Iterable[Pack]) -> None:
        self.waiting = deque(packs)

    def next(self) -> Pack | None:
        """The next pack, in order."""
        return self.waiting.popleft() if self.waiting else None

    def done(self, pack_id: str) -> None:
        """Nothing: what a pack found is in the store."""

    @property
    def over(self) -> bool:
        """Whether every pack was handed out."""
        return not self.waiting


class Divided:
    """The packs of a source, any of which may come again in parts: the source hears of its end when all have ended."""

    def __init__(self, packs: Source) -> None:
        self.packs = packs
        self.parts: deque[Pack] = deque()
        self.whole: dict[str, str] = {}  # by pack_id, the source's pack that it is, or is a part of
        self.going: Counter[str] = Counter()  # how many parts of each of the source's packs have not ended

    def next(self) -> Pack | None:
        """The next part of what was cut, else the source's next pack."""
        if self.parts:
            return self.parts.popleft()
        if (pack := self.packs.next()) is not None:
            self.whole[pack.pack_id] = pack.pack_id
            self.going[pack.pack_id] += 1
        return pack

    def again(self, pack_id: str, parts: Iterable[Pack]) -> None:
        """Hand out these before the pack has ended, in its stead."""
        for part in parts:
            whole = self.whole[part.pack_id] = self.whole[pack_id]
            self.going[whole] += 1
            self.parts.append(part)

    def done(self, pack_id: str) -> None:
        """A pack has ended, or is handed out again."""
        whole = self.whole[pack_id]
        self.going[whole] -= 1
        if not self.going[whole]:
            del self.going[whole]
            self.packs.done(whole)

    @property
    def over(self) -> bool:
        """Whether no pack will come any more: none that runs can be cut."""
        return not self.going and self.packs.over


def harmed(pack: Pack, reason: str, traceback: str = "") -> PackCut | TrialFailed:
    """What becomes of a pack that took too much memory or killed its worker: two, down to the trial that does it."""
    if len(pack.trials) == 1:
        return TrialFailed(pack.pack_id, pack.trials[0], ALONE + reason, traceback)
    return PackCut(pack.pack_id, reason, halves(pack))


class Stopped(Exception):
    """The time is up: a pack has ended at a checkpoint."""


def spent(deadline: float | None) -> bool:
    """Whether the time is up; a deadline is in seconds since 1970."""
    return deadline is not None and time.time() >= deadline


def until(deadline: float | None, tell: Callable[[Event], None]) -> Callable[[Event], None]:
    """`tell`, which raises `Stopped` once the time is up and the pack has done an epoch, and so has a checkpoint."""
    first: list[int] = []

    def telling(event: Event) -> None:
        tell(event)
        if isinstance(event, Progress):
            first.append(event.epoch)
            if event.epoch > first[0] and spent(deadline):
                raise Stopped

    return telling
