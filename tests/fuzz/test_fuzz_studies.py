"""Study files, cluster files and command lines of any kind: an answer or one line, never a traceback or a hang."""

import copy
import json
import re
from pathlib import Path

import numpy as np
import pytest
from bounds import damaged, each_count, fuzz
from conftest import TINY_STUDY, idenctl
from hypothesis import strategies as st
from searching import SAMPLERS, mirrored, text
from study_files import GOOD, TWO_WAY

from orchestrator import strict_yaml

ROOT = Path(__file__).parents[2]
SEARCHES = [*map(text, SAMPLERS), mirrored("sqlite:///x.db")]
SHIPPED = [path.read_text() for path in sorted((ROOT / "studies").glob("*.yaml"))]
VALID = [GOOD, TWO_WAY, TINY_STUDY, *SEARCHES, *SHIPPED]
TREES = [strict_yaml.read(text, "valid")[0] for text in VALID]
CLUSTERS = [path.read_text() for path in sorted((ROOT / "cluster").glob("*.yaml"))]

numbers = st.one_of(
    st.integers(-3, 50),
    st.sampled_from([2**31, 2**63 - 1, -(2**63), 10**15, 100_000, 1e-300, 1e300, 0.5, -0.0, 1.5]),
    st.floats(allow_nan=False, allow_infinity=False),
)
SPECIAL = [
    "all", "none", "original", "i", "f", "if", "epochs", "depth", "alpha", "id_rate", "lr", "variant", "<<",
    "*a", "accuracy", "tpe", "cma-es", "gp", "nsga-ii", "qmc", "random", "=", "../x", "oulu-casia", "ferplus",
    "\u0000", "",
]  # fmt: skip
words = st.one_of(st.text(max_size=20), st.sampled_from(SPECIAL))
scalars = st.one_of(st.none(), st.booleans(), numbers, words)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(words, inner, max_size=3)),
    max_leaves=8,
)
places = st.integers(0, 10**6)


def nodes(tree, place=()):
    """Every place in a tree of mappings and lists, but that of the code to import."""
    if isinstance(tree, dict | list):
        for key in tree if isinstance(tree, dict) else range(len(tree)):
            if key != "workload":
                yield (*place, key)
                yield from nodes(tree[key], (*place, key))


def mutated(tree, changes):
    tree = copy.deepcopy(tree)
    for number, way, value in changes:
        found = list(nodes(tree))
        if not found:
            break
        *inner, last = found[number % len(found)]
        parent = tree
        for key in inner:
            parent = parent[key]
        if way == "delete":
            del parent[last]
        elif way == "replace":
            parent[last] = value
        elif way == "wrap":
            parent[last] = [parent[last]]
        elif isinstance(parent, dict):
            parent[value if isinstance(value, str) else last] = copy.deepcopy(parent[last])
        else:
            parent.insert(last, value)
    return json.dumps(tree)  # YAML too


ways = st.sampled_from(["delete", "replace", "replace", "replace", "wrap", "add"])
trees = st.builds(
    mutated, st.sampled_from(TREES), st.lists(st.tuples(places, ways, values), min_size=1, max_size=3)
).map(str.encode)
bytes_of = st.builds(
    lambda text, seed: damaged(text.encode(), np.random.default_rng(seed)), st.sampled_from(VALID), places
)
lines = st.builds(
    lambda text, number, line: "\n".join(
        line if i == number % len(text.splitlines()) else kept for i, kept in enumerate(text.splitlines())
    ).encode(errors="replace"),
    st.sampled_from(VALID),
    places,
    st.text(st.sampled_from("abcfi:{}[],&*!|>'\"#%@`- \t0123456789.e~?\x00\x85\u2028"), max_size=30),
)
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join([f'*{name}'] * 9)}]\n" for name, after in zip("abcdefgh", "bcdefghi", strict=True)
)
ONCE_FAILED = [
    BOMB.encode(),
    b"[" * 100_000,
    b"{a: " * 100_000,
    b"- " * 100_000,
    b"name: " + b"9" * 5000,
    b"seeds: [" + b"1" * 4000 + b"]",
    b"a: " + b"://a:" * 100_000,  # what looks for passwords in URLs
    b"x" * 2**22,
    b"? [a]\n: b\n",
    b"<<: {name: x}\n",
    "name: é\n".encode("latin-1"),
    "name: x\n".encode("utf-16"),
    b"\xef\xbb\xbfname: x\n",
    (
        b"{name: top, question: none, workload: benchmarks.simulated:Simulated, dataset: simulated, folds: all, "
        b"search: null, report: {by: y}}"
    ),
    b"name: !!python/object/apply:os.system [id]\n",
    b'question: "\\x1b[31m"\n',
    b"%YAML 9.9\n---\nname: x\n",
    TINY_STUDY.replace("Does it see?", "'Does [/] it [red] see :smile:?'").encode(),
    TINY_STUDY.replace("[0.5, 1.0]}", json.dumps([i / 5000 for i in range(5000)]) + ", lr: "
                       + json.dumps([i / 5000 for i in range(1, 5000)]) + "}").encode(),
    TINY_STUDY.replace("folds: [0, 3]", f"folds: [0, 3]\nseeds: {list(range(100_000))}").encode(),
]  # fmt: skip


def answered(*arguments, statuses=(0, 2)):
    """How a command ended: with an answer, or one line on what is wrong with the request."""
    ended = idenctl(*arguments)
    assert ended.returncode in statuses, ended
    assert "Traceback" not in ended.stderr
    assert "internal error" not in ended.stderr, ended.stderr
    return ended


@each_count
def test_whatever_stands_in_a_study_file_planning_it_answers(trained_store, tmp_path, cases):
    file = tmp_path / "study.yaml"
    known = {f"workload: {name}" for name in ("benchmarks.simulated:Simulated", "")}

    def check(content):
        code = re.findall(rb"workload[^\n,}]*", content)
        if {line.decode(errors="replace").replace('"', "").rstrip() for line in code} - known:
            return  # the module that a file names is imported: whoever plans it runs that code
        file.write_bytes(content)
        ended = answered("study", "plan", file, "--store", trained_store)
        assert ended.returncode == 0 or (ended.stderr.startswith("error: ") and ended.stderr.count("\n") == 1)

    fuzz(check, cases, *({"content": content} for content in ONCE_FAILED), content=st.one_of(trees, bytes_of, lines))


def test_every_valid_study_is_one_before_it_is_changed(tmp_path):
    for valid in VALID:
        (tmp_path / "study.yaml").write_text(valid)
        ended = answered("study", "plan", tmp_path / "study.yaml", "--store", tmp_path / "runs")
        assert ended.returncode == 0 or "must be prepared" in ended.stderr


COMMANDS = [
    ["report"], ["study", "plan"], ["study", "list"], ["study", "status"], ["heatmap"], ["predict"], ["export"],
    ["data", "show"], ["data", "prepare"], ["trunk", "list"], ["cluster", "check"], ["study"], ["data"], [],
]  # fmt: skip
WORDS = [
    "tiny", "tiny@x", "../tiny", "study.yaml", "x.png", "x.onnx", ".", "..", "nowhere/x.svg", "oulu-casia",
    "ferplus", "--", "-", "--store", "runs", "--json", "--out", "csv", "json", "latex", "--details", "--figure",
    "x.svg", "--profile", "--set", "lr=1", "lr=", "=", "lr=[[[[", "--root", "--cropped", "--landmarks",
    "--detector", "--cell", "--study", "--subject", "--people", "0", "-1", "99999999999999999999", "1e309",
    "nan", "--class", "--price-per-hour", "--cluster", "--version", "--trial", "--format", "--help", "",
]  # fmt: skip
WORDS += ["a" * 5000, "a/" * 3000]
arguments = st.tuples(
    st.sampled_from(COMMANDS),
    st.lists(st.one_of(st.sampled_from(WORDS), st.text(max_size=8).filter(lambda text: "/" not in text)), max_size=6),
).map(lambda parts: [*parts[0], *parts[1]])


@each_count
def test_whatever_the_command_line_it_is_answered(trained_store, tmp_path, monkeypatch, cases):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IDENCTL_STORE", str(trained_store))
    Path("study.yaml").write_text(TINY_STUDY)
    Path("x.png").write_bytes(b"\x89PNG")

    def check(words):
        if "--debug" in words:
            return
        answered(*words, statuses=(0, 1, 2))

    failed = [
        ["report", "a" * 5000],
        ["study", "plan", "a/" * 3000],
        ["study", "plan", "a\0b"],
        ["data", "show", "\ud800"],
    ]
    fuzz(check, cases, *({"words": words} for words in failed), words=arguments)


@pytest.mark.skipif(not CLUSTERS, reason="no cluster files are shipped")
@each_count
def test_whatever_stands_in_a_cluster_file_checking_it_answers(tmp_path, cases):
    file = tmp_path / "cluster.yaml"
    readable = []
    for shipped in CLUSTERS:
        try:
            readable.append(strict_yaml.read(shipped, "cluster")[0])
        except ValueError:
            continue  # several documents in one file
    changes = st.lists(st.tuples(places, ways, values), min_size=1, max_size=3)
    drawn = [st.builds(lambda s, t: damaged(t.encode(), np.random.default_rng(s)), places, st.sampled_from(CLUSTERS))]
    if readable:
        drawn.append(st.builds(mutated, st.sampled_from(readable), changes).map(str.encode))

    def check(content):
        file.write_bytes(content)
        answered("cluster", "check", file, statuses=(0, 1, 2))

    failed = [BOMB.encode(), *(shipped.replace("type: local", "type: []").encode() for shipped in CLUSTERS)]
    fuzz(check, cases, *({"content": content} for content in failed), content=st.one_of(*drawn))
