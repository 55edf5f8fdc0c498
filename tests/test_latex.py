"""The LaTeX report: it compiles with Debian's texlive, fits a column, and has the form of the paper's tables."""

import re
import shutil
import string
import subprocess
from pathlib import Path

import pytest
from kinds import KINDS, LONG, ODD, depths, variants

from orchestrator.report import Format, formats, tex

PAPER = Path(__file__).parents[2] / "shared/reference/idennet-paper.txt"
needs_paper = pytest.mark.skipif(not PAPER.is_file(), reason=f"no text of the paper in {PAPER.parent}")
needs_tex = pytest.mark.skipif(
    not (shutil.which("pdflatex") and shutil.which("pdftotext")),
    reason="no pdflatex or pdftotext; make debian installs texlive-latex-recommended and poppler-utils",
)


def latex(*reports):
    return formats.render(reports, Format.LATEX)


def compiled(folder, text):
    """What LaTeX says, and the words of the PDF in the order in which they are read."""
    (folder / "report.tex").write_text(text)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "report.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
    log = (folder / "report.log").read_text(errors="replace")
    assert done.returncode == 0, log[-2000:]
    shown = subprocess.run(["pdftotext", "-raw", "report.pdf", "-"], cwd=folder, capture_output=True, text=True)
    return log, shown.stdout.replace("\u2212", "-")


@needs_tex
@pytest.mark.parametrize("kind", KINDS)
def test_a_report_of_each_kind_compiles_and_no_line_leaves_its_column(kind, tmp_path):
    reports = KINDS[kind](tmp_path / "runs")
    log, shown = compiled(tmp_path, latex(*reports))
    faults = re.findall(r"Overfull.*|Missing character.*|LaTeX Warning.*|Package \w+ Warning.*|mktexpk.*", log)
    assert faults == []
    for report in reports:
        means = [f"{row.accuracy.mean:.2f}" for row in report.rows if row.accuracy.mean is not None]
        assert all(mean in shown for mean in means)
        assert shown.count("SYNTHETIC") >= 3 * report.synthetic
        assert ("MIXED" in shown) == any(report.mixed for report in reports)


@needs_tex
def test_any_letter_is_set_or_spelled_and_none_is_obeyed(tmp_path):
    texts = [string.printable, ODD, LONG, *("".join(map(chr, range(at, at + 64))) for at in range(0xA0, 0x420, 64))]
    body = "\n\n".join(map(tex.tex, [*texts, r"\input{/etc/hostname}", "a -- b --- c ?` !`"]))
    _, shown = compiled(tmp_path, rf"\documentclass{{article}}\begin{{document}}{body}\end{{document}}")
    flat = re.sub(r"\s", "", shown)
    assert r"\input{/etc/hostname}" in flat
    assert "U+4E2DU+6587U+1F642" in flat
    assert "a--b---c?`!`" in flat
    assert "".join(string.digits + string.ascii_letters) in flat


def table(text, number):
    """A table's lines as cells of plain text."""
    body = re.findall(r"\\toprule\n(.*?)\\bottomrule", text, re.DOTALL)[number]
    body = re.sub(r"\\begin\{tabular\}\[b\]\{.*?r@\{\}\}(.*?)\\end\{tabular\}", r"\1", body.replace(r" \\ ", " "))
    lines = [line.removesuffix(r" \\") for line in body.splitlines() if line != r"\midrule"]
    return [[plain(cell) for cell in line.split(" & ")] for line in lines]


def plain(text):
    return re.sub(r"\\(textsubscript|quad|allowbreak)|[{}$]", "", text).replace(r"\pm", "±").replace(r"\%", "%").strip()


@needs_paper
@pytest.mark.parametrize(("number", "rows"), [(1, 4), (2, 4), (3, 4)])
def test_the_first_table_has_the_lines_of_the_papers_tables_1_to_3(number, rows):
    paper = PAPER.read_text()
    block = paper[paper.index(f"Table {number}. Average accuracy") :]
    named = re.findall(r"^(Original Network ?\(baseline\)|Ours ?\(IDEnNet\w+ ?\)) ", block, re.MULTILINE)[:rows]
    head, *lines = table(latex(variants()), 0)
    assert head[0] == re.search(r"^(Method) Average Accuracy \(%\)$", block, re.MULTILINE)[1]
    assert "accuracy %" in head[1]
    assert [line[0].replace(" ", "") for line in lines] == [name.replace(" ", "") for name in named]
    if number == 1:
        assert [line[2] for line in lines] == re.findall(r"^O(?:riginal|urs).* ([\d.]+)$", block, re.MULTILINE)[:rows]


@needs_paper
def test_a_table_by_variant_and_depth_has_the_form_and_values_of_the_papers_table_4():
    paper = PAPER.read_text()
    block = paper[paper.index("Table 4. Average accuracy of CK+ in") :]
    head, *lines = table(latex(depths()), 0)
    assert " ".join(head) == re.search(r"^Method.*layers$", block, re.MULTILINE)[0]
    for name in ("Original", "IDEnNetIF"):
        values = re.search(rf"^{name} ([\d.% ]+)$", block, re.MULTILINE)[1].replace("%", "").split()
        (place,) = (place for place, line in enumerate(lines) if line[0].replace(" Network", "") == name)
        assert lines[place + 1] == ["paper", *values]


def test_a_table_environment_is_whole_so_that_it_can_be_copied_into_a_paper():
    text = latex(variants())
    found = re.findall(r"\\begin\{table\}.*?\\end\{table\}", text, re.DOTALL)
    assert len(found) == text.count(r"\begin{table}") == text.count(r"\caption") == 3
    needed = set(re.findall(r"\\usepackage(?:\[.*?\])?\{(.*?)\}", text)[-1].split(","))
    assert {"booktabs", "tabularx", "float"} <= needed
