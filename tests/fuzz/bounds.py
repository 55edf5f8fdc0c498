"""What a case of fuzzing may take, and how many cases there are: some in the suite, ten thousand in the slow one."""

import functools
import resource
import signal
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

SECONDS = 20.0  # of this process's processor time, a case
MEBIBYTES = 512.0  # that all cases together may add to the most memory that the process has had
FEW, MANY = 200, 10_000
COUNTS = [FEW, pytest.param(MANY, marks=pytest.mark.slow)]
each_count = pytest.mark.parametrize("cases", COUNTS)


class TooLong(BaseException):
    """A case that goes on and on; no handler of errors takes it for one."""


def bounded(check):
    """The check, refusing a case that takes too long; all cases together may not take much memory."""

    @functools.wraps(check)
    def run(*arguments, **named):
        def expired(*_):
            raise TooLong(f"a case took more than {SECONDS:g} s of processor time")

        before = signal.signal(signal.SIGVTALRM, expired)
        signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
        try:
            return check(*arguments, **named)
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            signal.signal(signal.SIGVTALRM, before)

    return run


class Memory:
    """The most memory that this process has had, and what was added to it."""

    def __init__(self):
        self.before = self.most()

    @staticmethod
    def most():
        """In MiB."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    def check(self):
        """Nothing took more than is allowed."""
        added = self.most() - self.before
        assert added < MEBIBYTES, f"the cases took {added:.0f} MiB more than there had been"


def fuzz(check, cases, *examples, **strategies):
    """Run a check on so many cases drawn from the strategies, and on the examples that once failed."""
    memory, began = Memory(), time.process_time()
    check = bounded(check)
    for example in examples:
        check(**example)
    drawn = settings(
        max_examples=cases,
        deadline=None,
        derandomize=cases == FEW,
        database=None,
        print_blob=True,
        suppress_health_check=[*HealthCheck],
    )
    drawn(given(**strategies)(check))()
    memory.check()
    print(f"{cases} cases, {time.process_time() - began:.0f} s, {memory.most() - memory.before:.0f} MiB more")


def damaged(content, rng):
    """The bytes, changed as disks, networks and people change them: flipped, cut, swapped, filled, repeated."""
    content = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        size = len(content)
        if size == 0:
            break
        start = int(rng.integers(0, size))
        end = min(size, start + int(rng.choice([1, 2, 4, 8, 64, 512])))
        way = rng.integers(0, 8)
        if way <= 2:
            content[start] ^= 1 << int(rng.integers(0, 8))
        elif way == 3:
            content[start:end] = rng.bytes(end - start)
        elif way == 4:
            del content[start:]
        elif way == 5:
            del content[start:end]
        elif way == 6:
            other = int(rng.integers(0, size))
            content[start:end], content[other : other + end - start] = (
                content[other : other + end - start],
                content[start:end],
            )
        else:
            content[start:end] = bytes([int(rng.choice([0, 0x7F, 0x80, 0xFF]))]) * (end - start)
    return bytes(content)


def each_seed(cases, check):
    """Run a check on so many seeded generators; the seed of one that fails is in what it raises."""
    memory, began = Memory(), time.process_time()
    check = bounded(check)
    for seed in range(cases):
        try:
            check(np.random.default_rng(seed))
        except BaseException as error:
            error.add_note(f"the seed was {seed}")
            raise
    memory.check()
    print(f"{cases} cases, {time.process_time() - began:.0f} s, {memory.most() - memory.before:.0f} MiB more")
