"""An example for every command, which its `--help` ends with."""

import typer

PROGRAM = "idenctl"
EXAMPLES = {
    "": "study run studies/oulu_idrate.yaml --profile quick",
    "data": "data show oulu-casia --root /data/oulu",
    "data synth": "data synth ck+ --out demo/faces/ck+ --sheet demo/ck+.png",
    "data show": "data show mmi --root /data/mmi --manifest sequences.txt",
    "data prepare": "data prepare oulu-casia --root /data/oulu --store runs",
    "data detector": "data detector get",
    "data detector get": "data detector get --store runs",
    "trunk": "trunk train studies/oulu_idrate.yaml --profile quick",
    "trunk train": "trunk train studies/oulu_idrate.yaml --profile quick --set trunks.emotion.epochs=20",
    "trunk list": "trunk list --store s3://my-bucket/idenctl --json",
    "study": "study plan studies/oulu_idrate.yaml",
    "study new": "study new depths --dataset ck+ --vary depth=16,22,40 --vary variant=original,if",
    "study plan": "study plan studies/oulu_idrate.yaml --profile paper --calibrate --price-per-hour 2.5",
    "study run": "study run studies/oulu_idrate.yaml --profile quick --set epochs=10",
    "study submit": "study submit studies/oulu_idrate.yaml --address http://127.0.0.1:8265 --store s3://my-bucket/idenctl",
    "study status": "study status oulu_idrate@quick",
    "study stop": "study stop oulu_idrate@quick --address http://127.0.0.1:8265",
    "study list": "study list --store demo/runs --json",
    "study schema": "study schema",
    "cluster": "cluster check cluster/gpu.yaml",
    "cluster check": "cluster check cluster/gpu.yaml --json",
    "cluster up": "cluster up cluster/gpu.yaml --limit 1800",
    "cluster down": "cluster down cluster/gpu.yaml",
    "store": "store clean --store runs",
    "store clean": "store clean --store runs --older-than 30 --yes",
    "store compact": "store compact --store runs",
    "report": "report oulu_idrate@quick --format html --out fig3.html --details",
    "dashboard": "dashboard focal_search --port 0",
    "heatmap": "heatmap oulu_idrate@paper --out where.png --people 3 --cell variant=f",
    "predict": "predict face.jpg --study oulu_idrate@quick --json",
    "doctor": "doctor --store runs",
    "export": "export 0f3a9c --out network.onnx",
}


def show(app: typer.Typer, at: str = "") -> None:
    """Let the help of each command in `app`, and of the group itself, end with its example."""
    app.info.epilog = _ending(at)
    for command in app.registered_commands:
        assert command.name or command.callback
        name = command.name or command.callback.__name__.rstrip("_")  # type: ignore[union-attr]
        command.epilog = _ending(f"{at} {name}".strip())
    for group in app.registered_groups:
        assert group.typer_instance
        show(group.typer_instance, f"{at} {group.name}".strip())


def _ending(path: str) -> str:
    return f"Example: {PROGRAM} {EXAMPLES[path]}"
