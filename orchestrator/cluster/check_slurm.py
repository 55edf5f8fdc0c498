"""Rules for a Slurm script that starts a Ray; what can be seen in its text, for a script can do anything."""

import re
from collections.abc import Iterator

from orchestrator.cluster.findings import (
    FILL,
    GAP,
    LEFT,
    OWN_MACHINE,
    SECRETS,
    Finding,
    loose_installations,
)

OPTIONS = {"--time": "or the site's default ends it", "--signal": "or the study is killed without saving its state"}


def findings(text: str) -> Iterator[Finding]:
    """What is wrong or unsafe in a script, each place being the number of a line."""
    lines = text.splitlines()
    code = {
        number: line.partition(" #")[0] for number, line in enumerate(lines, 1) if not line.lstrip().startswith("#")
    }
    options = [line.removeprefix("#SBATCH").split("=")[0].strip() for line in lines if line.startswith("#SBATCH")]
    for number, line in enumerate(lines, 1):
        if line.startswith("#SBATCH") or number in code:
            for word in re.findall(rf"{GAP}\w*", line):
                yield (number,), LEFT, word, FILL
    for option, otherwise in OPTIONS.items():
        if option not in options:
            yield (), f"#SBATCH {option} must be given, {otherwise}", None, "see cluster/slurm.sh"
    yield from _token(code)
    for number, line in code.items():
        for host in re.findall(r"--dashboard-host[= ]+(\S+)", line):
            if host.strip("'\"") not in OWN_MACHINE:
                rule = "the dashboard takes jobs, and must listen on its own machine alone"
                yield (number,), rule, host, "use --include-dashboard=false"
        for loose in loose_installations(line):
            rule = "what is installed must be pinned, or machines differ"
            yield (number,), rule, loose, "add --constraint constraints.txt"


def _token(code: dict[int, str]) -> Iterator[Finding]:
    """The token is asked for from the first Ray on, lies in a file of its owner alone, and in no command line."""
    first = {
        what: min((number for number, line in code.items() if re.search(pattern, line)), default=None)
        for what, pattern in {
            "start": r"\bray start\b",
            "mode": r"\bRAY_AUTH_MODE=token\b",
            "path": r"\bRAY_AUTH_TOKEN_PATH=",
            "private": r"\bumask 0?77\b|\bchmod 0?600\b|install\b.*-m *0?600",
        }.items()
    }
    start = first["start"]
    if start is None:
        yield (), "no `ray start`: this starts no cluster", None, "see cluster/slurm.sh"
        return
    wanted = {
        "mode": ("whoever reaches this Ray can run code: it must ask for the token", "export RAY_AUTH_MODE=token"),
        "path": ("the nodes must find the token in a file", "export RAY_AUTH_TOKEN_PATH=… in a folder that all see"),
        "private": ("nobody else may read the token", "put umask 077 before it is written"),
    }
    for what, (rule, next_step) in wanted.items():
        number = first[what]
        if number is None or number > start:
            yield (start,), rule, None, f"{next_step}, before the first ray start"
    for number, line in code.items():
        if found := SECRETS.search(line):
            rule = "a secret in the environment's text or on a command line is seen by others"
            yield (number,), rule, found[1], "name a file that only its owner reads"
        if re.search(r"RAY_AUTH_MODE=(?!token\b)\S+", line):
            yield (number,), "this Ray must ask for the token", line.strip(), "write RAY_AUTH_MODE=token"
