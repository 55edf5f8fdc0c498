"""What the suite has survived, as a table and as JSON."""

import json
import os
import platform
from collections import defaultdict
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from statistics import median


@dataclass(frozen=True)
class Blow:
    """One fault and what came of it."""

    kind: str
    survived: bool
    lost: int = 0  # rows
    doubled: int = 0
    repeated: float | None = None  # seconds between the last thing saved and the fault, which are worked again
    recovery: float | None = None  # seconds from the fault, or the start of the next run, to the next thing saved


def by_kind(blows):
    """A line a kind, in the order in which they came."""
    groups = defaultdict(list)
    for blow in blows:
        groups[blow.kind].append(blow)
    return [
        {
            "kind": kind,
            "faults": len(found),
            "survived": sum(blow.survived for blow in found),
            "rows_lost": sum(blow.lost for blow in found),
            "rows_doubled": sum(blow.doubled for blow in found),
            "seconds_repeated": _middle(blow.repeated for blow in found),
            "seconds_to_recover": _middle(blow.recovery for blow in found),
        }
        for kind, found in groups.items()
    ]


def _middle(values):
    """Median and largest; None where nothing was measured."""
    known = [value for value in values if value is not None]
    return [round(median(known), 2), round(max(known), 2)] if known else None


HEADS = ("fault", "times", "survived", "rows lost", "rows doubled", "work repeated, s", "recovery, s")


def markdown(lines):
    """The table of docs/measured/faults.md."""
    cells = [
        [line["kind"], line["faults"], line["survived"], line["rows_lost"], line["rows_doubled"]]
        + ["-" if pair is None else f"{pair[0]:.1f} ({pair[1]:.1f})" for pair in _pairs(line)]
        for line in lines
    ]
    total = ["all", *(sum(line[key] for line in lines) for key in ("faults", "survived", "rows_lost", "rows_doubled"))]
    rows = [HEADS, ["---", *["---:"] * 6], *cells, [*total, "", ""]]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows)


def _pairs(line):
    return line["seconds_repeated"], line["seconds_to_recover"]


def write(path, blows, seed, command, seconds):
    """The table and where it comes from, as JSON."""
    content = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "seed": seed,
        "seconds": round(seconds),
        "machine": {"system": platform.platform(), "cores": os.cpu_count()},
        "kinds": by_kind(blows),
        "faults": [asdict(blow) for blow in blows],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")
