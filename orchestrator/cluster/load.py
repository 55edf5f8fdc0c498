"""How much of a cluster is taken, in words."""

import ray


def busy() -> str:
    """The devices that packs, and whatever else runs there, hold; empty where this process is not connected."""
    if not ray.is_initialized():
        return ""
    there, free = ray.cluster_resources(), ray.available_resources()
    machines = sum(name.startswith("node:") and not name.startswith("node:__") for name in there)
    parts = [
        f"{there[name] - free.get(name, 0):g} of {there[name]:g} {name}s taken"
        for name in ("GPU", "CPU")
        if there.get(name)
    ]
    return f"{', '.join(parts)} on {machines} machine{'s' * (machines != 1)}" if parts else ""
