"""Where an engine's packs come from, and when it stops taking them."""

import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

from orchestrator.progress import Event, Progress
from orchestrator.trial import Pack


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
