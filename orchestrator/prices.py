"""What a device costs, from a Ray cluster file: a node type states its price as one of its labels."""

from math import inf, nan
from pathlib import Path
from typing import Any

from orchestrator import strict_yaml
from orchestrator.cluster.check import other_kind, text_of
from orchestrator.cluster.findings import within
from orchestrator.sections import shown

LABEL = "price-per-hour"  # of the node, in any currency: `labels: {price-per-hour: "2.50"}`


def device_price(path: Path, kind: str) -> float:
    """The price of a device (`gpu`, or `cpu`: a whole node) an hour, of the node types that have such devices.

    Raises FileNotFoundError or ValueError where the file does not state exactly one.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no cluster file {path}; give the path of a Ray cluster file, or --price-per-hour")
    if other := other_kind(text := text_of(path)):
        raise ValueError(
            f"{path}: a file for `ray up` states prices, got one for {other.partition(';')[0]}; give --price-per-hour"
        )
    data, places = strict_yaml.read(text, str(path))
    types: Any = data.get("available_node_types") if isinstance(data, dict) else None
    if not isinstance(types, dict) or not all(isinstance(node, dict) for node in types.values()):
        raise ValueError(f"{path}:1: a Ray cluster file has available_node_types; give another, or --price-per-hour")
    prices = {}
    for name, node in types.items():
        gpus, stated = within(node, "resources", "GPU") or 0, within(node, "labels", LABEL)
        if not isinstance(gpus, int):
            at = places["available_node_types", name, "resources", "GPU"]
            raise ValueError(f"{at}: GPU must be a whole number, got {shown(gpus)}; write how many a node has")
        if stated is None or bool(gpus) != (kind == "gpu"):
            continue
        at = places["available_node_types", name, "labels", LABEL]
        try:
            prices[name] = float(stated) / max(gpus, 1)
        except (TypeError, ValueError):
            prices[name] = nan
        if not 0 <= prices[name] < inf:
            raise ValueError(f"{at}: {LABEL} must be a number of at least 0, such as '2.50', got '{stated}'")
    if len(set(prices.values())) != 1:
        found = ", ".join(f"{name} {price:g}" for name, price in prices.items()) or "none"
        raise ValueError(
            f"{path}: one {kind} price must be stated as the label {LABEL} of a node type, got {found}; "
            "use --price-per-hour"
        )
    return next(iter(prices.values()))
