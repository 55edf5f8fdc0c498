"""What a shell completes, asked of bash itself: commands, study files, profiles, settings, data sets, studies."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
import terminals

ROOT = Path(__file__).parent.parent
HEAVY = ["torch", "ray", "polars", "pyarrow", "cv2", "scipy", "optuna", "numpy"]
FILE = """
name: x
profiles: {quick: {}, paper: {}}
"""
MAIN = "from orchestrator.cli.app import main; main()"
# what completion prints, and on stderr which slow libraries it has loaded
WATCHED = f"""
import atexit, sys
from orchestrator.cli.app import main
atexit.register(lambda: print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr))
main()
"""


@pytest.fixture
def shell(tmp_path):
    """A folder with study files and two stores, and the environment of a shell in it that has `idenctl`."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "idenctl"
    program.write_text(f"#!{sys.executable}\n{MAIN}\n")
    program.chmod(0o755)
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "depths.yaml").write_text(FILE)
    (tmp_path / "studies" / "notes.txt").write_text("")
    for store, names in {"runs": ["depths@quick", "depths@paper"], "other": ["elsewhere"]}.items():
        for name in names:
            (tmp_path / store / "studies" / name).mkdir(parents=True)
            (tmp_path / store / "studies" / name / "plan.json").write_text("{}")
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    kept = {key: value for key, value in os.environ.items() if key not in ("IDENCTL_STORE", "BASH_ENV")}
    return tmp_path, kept | {"PATH": path, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "TERM": "dumb", "PS1": "> "}


def bash(shell, script):
    folder, environment = shell
    command = ["bash", "--norc", "-c", script]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)


COMPLETED = {
    "stu": ["study"],
    "study p": ["plan"],
    "study plan ": ["bin/", "other/", "runs/", "studies/", "studies/depths.yaml"],
    "study plan studies/": ["studies/depths.yaml"],
    "trunk train studies/d": ["studies/depths.yaml"],
    "study run studies/depths.yaml --profile ": ["quick", "paper"],
    "study run studies/depths.yaml --profile p": ["paper"],
    "study run --profile p": [],
    "study plan studies/depths.yaml --set alp": ["alpha="],
    "study plan studies/depths.yaml --set trunks.identity.e": ["trunks.identity.epochs="],
    "data prepare ck": ["ck+"],
    "study new x --dataset o": ["oulu-casia"],
    "report d": ["depths@paper", "depths@quick"],
    "report --store other ": ["elsewhere"],
    "study status depths@q": ["depths@quick"],
    "study status depths @ q": ["@quick"],  # as bash splits it
    "report depths @": ["@paper", "@quick"],
    "report depths @ quick depths @ p": ["@paper"],
    "study stop depths@q": ["depths@quick"],
    "heatmap depths@p": ["depths@paper"],
    "predict x.png --study depths@p": ["depths@paper"],
    "dashboard depths@p": ["depths@paper"],
    "report depths@quick --format h": ["html"],
    "report depths@quick --fo": ["--format"],
}


def test_bash_completes_names_out_of_folders(shell):
    asked = "\n".join(
        f"ask {' '.join(repr(word) if word else chr(39) * 2 for word in line.split(' '))}" for line in COMPLETED
    )
    script = f"""
eval "$(idenctl --show-completion)"
function=$(complete -p idenctl | sed 's/.* -F \\([^ ]*\\) .*/\\1/')
ask() {{
    COMP_WORDS=(idenctl "$@") COMP_CWORD=$# COMPREPLY=()
    $function idenctl
    (IFS='|'; echo "=${{COMPREPLY[*]}}")
}}
{asked}
"""
    found = bash(shell, script).stdout.splitlines()
    assert dict(zip(COMPLETED, found, strict=True)) == {line: f"={'|'.join(said)}" for line, said in COMPLETED.items()}


def test_the_tab_key_completes_after_install_completion(shell):
    folder, environment = shell
    bash(shell, "idenctl --install-completion; true")  # bash stays, for idenctl looks which shell calls it
    reader, terminal = pty.openpty()
    ends = {"stdin": terminal, "stdout": terminal, "stderr": terminal}
    command = ["bash", "--rcfile", str(folder / ".bashrc"), "-i"]
    with subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True, **ends) as process:
        os.close(terminal)
        try:
            os.write(reader, b"idenctl report depths@q\t")
            terminals.read_until(reader, b"quick ")  # as the terminal is told to draw it
            os.write(reader, b"\x01echo \x05\n")  # before the line, and run it: what stands there now?
            terminals.read_until(reader, b"\nidenctl report depths@quick")
        finally:
            process.kill()
    os.close(reader)


@pytest.mark.parametrize("line", ["report d", "study run studies/depths.yaml --profile q", "data show f"])
def test_completing_loads_no_heavy_library(shell, line):
    folder, environment = shell
    words = ["idenctl", *line.split()]
    asked = {"_IDENCTL_COMPLETE": "complete_bash", "COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1)}
    command = [sys.executable, "-c", WATCHED]
    done = subprocess.run(command, cwd=folder, env=environment | asked, capture_output=True, text=True, check=True)
    assert done.stdout
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize("kind", ["zsh", "fish"])
def test_other_shells_get_a_script_that_asks_for_the_same(shell, kind):
    assert "_IDENCTL_COMPLETE=complete_" in bash(shell, f"_IDENCTL_COMPLETE=source_{kind} idenctl").stdout
    line = "_TYPER_COMPLETE_ARGS='idenctl report depths@q' _TYPER_COMPLETE_FISH_ACTION=get-args"
    assert re.findall("depths@[a-z]*", bash(shell, f"{line} _IDENCTL_COMPLETE=complete_{kind} idenctl").stdout) == [
        "depths@quick"
    ]
