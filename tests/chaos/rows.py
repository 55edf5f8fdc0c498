"""What a store holds of a study, and how that differs from what an undisturbed run left."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from orchestrator.store import Store

ELSEWHERE = {"pack_id", "seconds", "started_at", "finished_at", "host"}  # may differ between two equal runs
KEYS = {"trials": ["trial_id"], "curves": ["trial_id", "epoch"], "predictions": ["trial_id", "sequence", "frame"]}


@dataclass(frozen=True)
class Difference:
    """Rows that one store lacks of another's, has more than once, has more, or has with other bits; other files."""

    lost: int
    doubled: int
    more: int
    changed: int
    files: tuple[str, ...]

    def __bool__(self):
        return bool(self.lost or self.doubled or self.more or self.changed or self.files)


def read(root):
    """The rows that readers are given, by table and key: each a list, as a key may be there twice."""
    store = Store(root)
    every = store.every_trial()
    tables = {"trials": every, "curves": store.curves(every), "predictions": store.predictions(store.trials())}
    found = {}
    for name, rows in tables.items():
        kept = rows.drop(ELSEWHERE & set(rows.columns)).select(sorted(set(rows.columns) - ELSEWHERE))
        for row in kept.iter_rows(named=True):
            # the text of a float says its every bit, the sign of zero too
            found.setdefault((name, *(row[key] for key in KEYS[name])), []).append(repr(row))
    return found


def written(root):
    """How many rows of `trials` lie in the store's files for each trial: more than one where it was trained twice."""
    files = sorted((root / "trials").glob("[!.]*.parquet"))
    return Counter(trial_id for file in files for trial_id in pl.read_parquet(file, columns=["trial_id"])["trial_id"])


def products(root):
    """The content of what else a study leaves for good: heads, trunks' weights, a search's batches and answer."""
    tensors = [path for each in ("heads/[!.]*", "trunks/[!.]*/network.safetensors") for path in root.glob(each)]
    texts = [path for each in ("asked/*/*/[!.]*.json", "search.json") for path in root.glob(f"studies/*/{each}")]
    found = {path: _tensors(path.read_bytes()) for path in tensors} | {path: path.read_text() for path in texts}
    return {str(path.relative_to(root)): content for path, content in found.items()}


def _tensors(content):
    """The header of a safetensors file but its seal, as the metadata have no order, and the bytes of its tensors."""
    begin = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:begin])
    header.get("__metadata__", {}).pop("seal", None)
    return header, content[begin:]


def compare(root: Path, whole: Path) -> Difference:
    """How the store at `root` differs from the one of an undisturbed run."""
    here, there = read(root), read(whole)
    assert there, "an undisturbed run has rows"
    ours, theirs = products(root), products(whole)
    return Difference(
        lost=sum(key not in here for key in there),
        doubled=sum(len(rows) - 1 for rows in here.values()),
        more=sum(key not in there for key in here),
        changed=sum(set(here[key]) != set(there[key]) for key in here.keys() & there.keys()),
        files=tuple(sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))),
    )
