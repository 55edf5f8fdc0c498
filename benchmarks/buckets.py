"""What a store in a bucket adds to one in a folder, against a server that speaks S3 on this machine.

    python -m benchmarks.buckets [--packs 20] [--rounds 3] [--latency 0.03]

Packs of ten trials with 48 test frames each are written, read back, and read from a second node; folder and bucket by
turns. `--latency` is what the server waits before it answers, as one that is far away does. Seconds on this machine say
little of a real bucket; the requests are the same there.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.rows import Run
from orchestrator.store import Store, at
from orchestrator.trial import Configuration, Predictions, Trial, TrialResult

TRIALS, FRAMES, CLASSES, EPOCHS = 10, 48, tuple("abcdef"), 100
SETTINGS = {"x": 1}
COUNTS = "/counts"  # what the server answers with the requests so far


def serve(latency: float) -> None:
    """Run the server until this process is ended; the first line says its port."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    app, asked = DomainDispatcherApplication(create_backend_app), Counter[str]()

    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        if environ["PATH_INFO"] == COUNTS:
            start("200 OK", [])
            return [json.dumps(asked).encode()]
        asked[environ["REQUEST_METHOD"]] += 1
        time.sleep(latency)
        return app(environ, start)

    server = make_server("127.0.0.1", 0, answer, threaded=True)
    print(server.server_port, flush=True)
    server.serve_forever()


@contextmanager
def served(latency: float) -> Iterator[Callable[[], Counter[str]]]:
    """A server with the bucket `bench`, which the environment leads to; gives what counts its requests."""
    command = [sys.executable, "-m", "benchmarks.buckets", "--serve", "--latency", str(latency)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        url = f"http://127.0.0.1:{int(process.stdout.readline())}"
        keys = {"AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none", "AWS_EC2_METADATA_DISABLED": "true"}
        os.environ.update(keys, AWS_ENDPOINT_URL=url)
        urllib.request.urlopen(urllib.request.Request(f"{url}/bench", method="PUT")).close()

        def asked() -> Counter[str]:
            with urllib.request.urlopen(url + COUNTS) as answer:
                return Counter(json.load(answer))

        yield asked
    finally:
        process.terminate()
        process.wait()


def pack(number: int) -> list[TrialResult]:
    """The results of a pack."""
    names = [f"P{frame:02}" for frame in range(FRAMES)]
    said = np.full((FRAMES, len(CLASSES)), 1 / len(CLASSES), np.float32)
    predictions = Predictions(names, names, names, ["a"] * FRAMES, said, CLASSES)
    curve = [{"epoch": epoch, "loss": 1.0} for epoch in range(EPOCHS)]
    configuration = Configuration({"dataset": "drawn", "x": number}, {"recipe": "1"})
    facts: dict[str, Any] = {"synthetic": True, "accuracy": 0.5, "n_train": 9, "n_test": FRAMES, "seconds": 0.0}
    trials = [Trial(configuration, fold, 0) for fold in range(TRIALS)]
    return [TrialResult(t, "complete", epochs=EPOCHS, curve=curve, predictions=predictions, **facts) for t in trials]


def turn(address: str, scratch: Path, packs: int) -> dict[str, float]:
    """Seconds a pack: written, read where it was written, and read elsewhere for the first time."""
    run = Run("cpu", "here", datetime.now(UTC), datetime.now(UTC), "0")
    results = [pack(number) for number in range(packs)]
    os.environ["XDG_CACHE_HOME"] = str(scratch / "one")
    writer = at(address).open()
    began = time.perf_counter()
    for each in results:
        writer.write_pack(each, SETTINGS, run)
    seconds = {"written": time.perf_counter() - began}
    seconds["read again"] = _timed(lambda: _read(writer, packs))
    os.environ["XDG_CACHE_HOME"] = str(scratch / "two")
    reader = at(address).check()
    seconds["read elsewhere"] = _timed(lambda: _read(reader, packs))
    return {name: value / packs for name, value in seconds.items()}


def _read(store: Store, packs: int) -> None:
    assert store.predictions().height == packs * TRIALS * FRAMES


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def compare(packs: int, rounds: int, latency: float) -> None:
    """Folder and bucket by turns; print medians, their ratio, and the requests."""
    found: dict[str, list[dict[str, float]]] = {"folder": [], "bucket": []}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, served(latency) as asked:
        before = asked()
        for number in range(rounds):
            scratch = Path(folder, str(number))
            found["folder"].append(turn(str(scratch / "store"), scratch, packs))
            found["bucket"].append(turn(f"s3://bench/{number}", scratch, packs))
        requests = asked() - before
    print(f"ms a pack of {TRIALS} trials, median of {rounds} rounds of {packs}; the server answers after {latency:g} s")
    for name in found["folder"][0]:
        one, other = (1000 * statistics.median(each[name] for each in found[kind]) for kind in found)
        print(
            f"  {name:16} folder {one:8.1f}   bucket {other:8.1f}   ratio {other / one:6.1f}   more {other - one:8.1f}"
        )
    each = {method: count / rounds / packs for method, count in sorted(requests.items())}
    print("requests a pack, all told: " + ", ".join(f"{count:.1f} {method}" for method, count in each.items()))


def main() -> None:
    """Serve, or compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packs", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--latency", type=float, default=0.03, help="seconds")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    serve(given.latency) if given.serve else compare(given.packs, given.rounds, given.latency)


if __name__ == "__main__":
    main()
