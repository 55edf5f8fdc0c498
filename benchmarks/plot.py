"""Member-steps a second against the members of a pack, drawn from the figures of `make bench`.

python -m benchmarks.plot [--json benchmarks/results.json] [--out docs/images/speed.png]
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import altair as alt
import vl_convert

from benchmarks.steps import RAY

OURS, PEER = "#1f4e79", "#c8553d"
RESULTS, PICTURE = Path(__file__).with_name("results.json"), Path("docs/images/speed.png")


def points(curve: dict[str, Any]) -> list[dict[str, float]]:
    """Median, least and most member-steps a second of the packs of every size."""
    turns = [(int(size), way["steps_per_second"]) for size, way in curve.items()]
    return [{"members": n, "speed": statistics.median(v), "least": min(v), "most": max(v)} for n, v in turns]


def chart(found: dict[str, Any]) -> Any:
    """A line through our medians, bars from least to most, and Ray Tune as a level."""
    cpu, values = found["cpu"], points(found["cpu"]["curve"])
    x = alt.X("members:Q", scale=alt.Scale(type="log", base=2), axis=alt.Axis(values=[v["members"] for v in values]))
    y = alt.Y("speed:Q", title="member-steps a second")
    packs = alt.Chart(alt.InlineData(values)).encode(x=x.title("members a pack"), y=y)
    line = packs.mark_line(color=OURS, point={"filled": True, "color": OURS})
    bars = packs.mark_rule(color=OURS, strokeWidth=2).encode(y=alt.Y("least:Q"), y2="most:Q")
    ray = [{"speed": statistics.median(cpu["steps"][RAY]["steps_per_second"]), "name": RAY}]
    level = alt.Chart(alt.InlineData(ray)).encode(y=y)
    level, name = level.mark_rule(color=PEER), level.mark_text(color=PEER, dy=-8, align="left").encode(text="name:N")
    about = f"depth {cpu['depth']}, fp32, {found['cores']} CPU cores, {found['measured_at'][:10]}"
    title = alt.TitleParams("Trials trained together", subtitle=about, anchor="start")
    return (line + bars + level + name.encode(x=alt.value(10))).properties(width=420, height=260, title=title)


def main() -> None:
    """Read the figures, write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("json", RESULTS), ("out", PICTURE)):
        parser.add_argument(f"--{name}", type=Path, default=default)
    given = parser.parse_args()
    spec = chart(json.loads(given.json.read_text())).to_dict()
    given.out.write_bytes(vl_convert.vegalite_to_png(spec, scale=2))


if __name__ == "__main__":
    main()
