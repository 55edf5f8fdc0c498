"""Every format holds the same numbers: each is read by a parser that is not ours and compared with JSON's, rounded."""

import csv
import io
import json
import re
from itertools import pairwise

import pytest
from kinds import KINDS
from markdown_it import MarkdownIt
from pages import Page, p_of, spread, two
from pylatexenc.latex2text import LatexNodes2Text

from orchestrator.report import Format, formats

MAIN = "folds", "accuracy %", "pooled", "sequences", "paper", "minus paper", "s/trial"


def expected(report):
    """What JSON says, rounded: text by (table, what it is of, line, line under it, column)."""
    found = {}
    for row in report["rows"]:
        label, published = row["label"], bool(report["reference_source"])
        done = f"{row['accuracy']['num_folds']}/{report['num_folds']}" if report["folds"] else "none"
        values = [done, spread(row["accuracy"]), two(row["pooled"]), two(row["sequence_accuracy"]["mean"])]
        values += [two(row["reference"]), two(row["deviation"], "+z.2f"), two(row["seconds"])]
        if report["across"]:
            column = f"{report['across']} {row['column']}"
            _, accuracy, pooled, sequences, paper, minus, seconds = values
            found["accuracy", "", row["row"], "", column] = accuracy
            found |= {
                ("pooled", "", row["row"], name, column): v for name, v in (("", pooled), ("sequences", sequences))
            }
            found["seconds", "", row["row"], "", column] = seconds
            if published:
                found["accuracy", "", row["row"], "paper", column] = paper
                found["accuracy", "", row["row"], "minus paper", column] = minus
        else:
            shown = dict(zip(MAIN, values, strict=True))
            found |= {
                ("main", "", label, "", name): text for name, text in shown.items() if published or "paper" not in name
            }
        for baseline, one in zip(report["baselines"], row["comparisons"], strict=True):
            difference = "-" if one is None else spread(one["difference"], "+")
            p = "-" if one is None else p_of(one["p_holm"])
            if report["across"]:
                found["minus", baseline, row["row"], "", column] = difference
                found["minus", baseline, row["row"], "p Holm", column] = p
            else:
                found["main", "", label, "", f"minus {baseline}"] = difference
                found["main", "", label, "", f"p Holm ({baseline})"] = p
            if "details" in report["show"]:
                over = one and one["by_subject"]
                low_to_high = f"{over['low']:+.2f} to {over['high']:+.2f}" if over and over["low"] is not None else "-"
                found["detail", baseline, label, "", "p"] = "-" if one is None else p_of(one["p"])
                found["detail", baseline, label, "", "p Holm"] = p
                found["detail", baseline, label, "", "effect"] = "-" if one is None else two(one["effect"], "+z.2f")
                found["detail", baseline, label, "", "over subjects"] = low_to_high
        found |= _of_predictions(row, report)
    return found | (_of_search(report) if report["searched"] else {})


def _two_way_beside_the_paper(report):
    """What the page says of each cell of a two-way table beside its grids."""
    found = {}
    for row in report["rows"] if report["across"] else ():
        texts = spread(row["accuracy"]), two(row["reference"]), two(row["deviation"], "+z.2f")
        for name, text in zip(("accuracy %", "paper", "minus paper"), texts, strict=True):
            found["main", "", row["label"], "", name] = text
    return found


def _of_predictions(row, report):
    found, label = {}, row["label"]
    if "expressions" in report["show"]:
        published = any(part["reference"] is not None for each in report["rows"] for part in each["expressions"])
        for part in row["expressions"]:
            lines = {"": part["accuracy"]["mean"], "±": part["accuracy"]["half_width"]}
            lines |= {"pooled": part["pooled"]} if report["folds"] else {}
            lines |= {"sequences": part["sequence_accuracy"]} if part["sequence_accuracy"] is not None else {}
            lines |= {"paper": part["reference"]} if published else {}
            for name, value in lines.items():
                found["expression", "", label, name, part["name"]] = two(value, "z.1f")
            if published:
                found["expression", "", label, "minus paper", part["name"]] = two(part["deviation"], "+z.1f")
            for baseline, one in zip(report["baselines"], part["comparisons"], strict=True):
                mean = "-" if one is None else two(one["difference"]["mean"], "+z.1f")
                found["expression", baseline, label, "", part["name"]] = mean
                if one is not None:
                    found["expression", baseline, label, "p Holm", part["name"]] = p_of(one["p_holm"])
    if "confusion" in report["show"] and row["confusion"]:
        for name, counts in zip(report["expressions"], row["confusion"]["frames"], strict=True):
            for taken_for, count in zip(report["expressions"], counts, strict=True):
                found["confusion", label, name, "", taken_for] = f"{100 * count / sum(counts):.1f}"
            found["confusion", label, name, "", "frames"] = str(sum(counts))
    if "subjects" in report["show"]:
        found |= {("subject", "", one["name"], "", label): f"{one['accuracy']:.1f}" for one in row["subjects"]}
    return found


def said(point):
    return ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in point["settings"].items())


def _of_search(report):
    found, search = {}, report["searched"]
    points, best = search["points"], 0.0
    for number, score in zip(search["chosen"], search["chosen_scores"], strict=True):
        found["answer", "", said(points[number]), "", "validation, chosen by it"] = spread(score)
    if search["nested"]:
        name = "nested: the procedure, on subjects it never saw"
        found["answer", "", name, "", "trained anew and tested"] = spread(search["nested"])
    ranked = sorted((point for point in points if point["accuracy"] is not None), key=lambda point: -point["accuracy"])
    for point in ranked[:10]:
        found["best", "", said(point), "", "asked as"] = str(point["number"])
        found["best", "", said(point), "", "accuracy %"] = f"{point['accuracy']:.2f}"
    for point in points:
        if point["accuracy"] is not None and point["accuracy"] > best:
            best = point["accuracy"]
            found["so far", "", str(point["number"] + 1), "", "accuracy %"] = f"{best:.2f}"
    found |= {("importance", "", name, "", "importance"): f"{s:.2f}" for name, s in search["importance"].items()}
    surface = search["surface"]
    for row, means, counts in zip(surface["row_names"], surface["means"], surface["counts"], strict=True):
        for column, mean, count in zip(surface["column_names"], means, counts, strict=True):
            text = f"{mean:.1f} ({count})" if count else "-"
            found["surface", "", row, "", f"{surface['columns']} {column}"] = text
    return found


TITLES = (
    (r"minus (.*) in detail", "detail"),
    (r"accuracy by expression minus (.*)", "expression"),
    (r"accuracy % by expression()", "expression"),
    (r"(?:(.*): )?what the frames", "confusion"),
    (r"accuracy % by subject()", "subject"),
    (r"accuracy minus (.*) at the same", "minus"),
    (r"accuracy %(), (?:mean of|on the)", "accuracy"),
    (r"()accuracy % of all test frames at once, and", "pooled"),
    (r"^seconds a trial()", "seconds"),
    (r"^the answer()", "answer"),
    (r"()the best configurations", "best"),
    (r"()best so far", "so far"),
    (r"()mean accuracy % \(configurations\)", "surface"),
    (r"()importance, the sum", "importance"),
    (r"^(?:$|accuracy %$|average accuracy|accuracy % of all|paired differences|beside )()", "main"),
)


def kind_of(title):
    """Which table it is, and what it is of; None for one that the page has beside the others."""
    flat = title.replace("SYNTHETIC ", "")
    flat = flat if "what the frames" in flat else flat[:1].lower() + flat[1:]
    return next(((kind, found[1]) for pattern, kind in TITLES if (found := re.search(pattern, flat))), None)


def cells(tables):
    """The cells of tables (title, lines), as `expected` names them; a line that starts with a blank is of the last."""
    found = {}
    for title, (head, *lines) in tables:
        if (kind := kind_of(title)) is None:
            continue
        name = ""
        for line, *texts in lines:
            name = name if line.startswith(" ") else line
            for column, text in zip(head[1:], texts, strict=True):
                key = (*kind, name, line.strip() if line.startswith(" ") else "", column.replace("SYNTHETIC ", ""))
                assert found.setdefault(key, text) == text
    return found


def from_markdown(text, report):
    tokens, tables, title = MarkdownIt("commonmark").enable("table").parse(text), [], ""
    for token, following in pairwise(tokens):
        if token.type == "heading_open":
            title = following.content if token.tag == "h2" else ""
        elif token.type == "table_open":
            tables.append((title, []))
        elif token.type == "tr_open":
            tables[-1][1].append([])
        elif token.type in ("td_open", "th_open"):
            found = "".join(part.content for part in following.children)
            tables[-1][1][-1].append(
                f" {found}" if any(part.type == "em_open" for part in following.children) else found
            )
    return cells(tables)


def from_html(text, report):
    page, tables = Page(text), []
    marks = iter([given.get("class") == "more" for given in page.of("tr")])
    for title, lines in page.tables.items():
        lines[0] = ["accuracy %" if head.endswith("ours, %") else head for head in lines[0]]
        tables.append((title, [[f" {line[0]}" if next(marks) else line[0], *line[1:]] for line in lines]))
    return cells(tables)


def from_latex(text, report):
    """pylatexenc reads each cell; the paper's names of methods and heads are put back."""
    tables = []
    for found in re.findall(r"\\begin\{table\}.*?\\end\{table\}", text, re.DOTALL):
        title = plain(re.search(r"\\caption\{(.*)\.\}", found)[1])
        head, body = re.search(r"\\toprule\n(.*?) \\\\\n\\midrule\n(.*)\\bottomrule", found, re.DOTALL).groups()
        head = re.sub(r"\\begin\{tabular\}\[b\]\{@\{\}r@\{\}\}(.*?)\\end\{tabular\}", r"\1", head).replace(r" \\ ", " ")
        rows = [[plain(cell) for cell in line.removesuffix(r" \\").split(" & ")] for line in body.splitlines()]
        heads = [re.sub(r"^(\d+) layers$", r"depth \1", plain(cell)) for cell in head.split(" & ")]
        tables.append((title, [heads, *([method(row[0]), *row[1:]] for row in rows)]))
    return cells(tables)


def plain(text):
    indented = text.startswith(r"\quad")
    read = LatexNodes2Text(math_mode="text", keep_comments=True, strict_latex_spaces=True).latex_to_text(
        re.sub(r"\\textsubscript|\\allowbreak\{\}|\\quad", "", text).replace(r"\textasciigrave{}", "`")
    )
    read = "-" if read.strip() == "\u2013" else read.strip()
    read = re.sub(
        r"U\+([0-9A-F]{4,5})", lambda found: chr(int(found[1], 16)), read.replace("”", '"').replace("\u02c6", "^")
    )
    return f" {read}" if indented else read


def method(name):
    name = name.removesuffix(" (baseline)").replace("Original Network", "Original")
    return re.sub(r"^(?:Ours \()?IDEnNet([IF]+)\)?", r"\1", name)


def from_terminal(text, report):
    """Columns stand two blanks apart; a table ends with an empty line, a title stands before it."""
    tables, title, heads, inside = [], "", [], False
    for line in text.splitlines():
        if line.strip() and set(line.strip()) == {"─"}:
            tables.append((title, [heads[-1]]))
            inside = True
        elif not line.strip():
            inside, heads = False, []
        elif inside:
            first, *texts = [part for part in re.split(r" {2,}", line.strip()) if not set(part) <= set("├─┤●◇◈")]
            tables[-1][1].append([f" {first}" if line.startswith("   ") else first, *texts])
        elif line.startswith(" "):
            heads.append(re.split(r" {2,}", line.strip()))
        else:
            title = line
    main = [name for name in MAIN if report["reference_source"] or "paper" not in name]
    named = []
    for title, (head, *lines) in tables:
        if "s/trial" in head:
            title, head = "", [head[0], *main]
        elif "minus" in head[1] and "p Holm" in head[2:3]:
            title = "paired differences"
            head = [head[0], *(x for minus in head[1::2] for x in (minus, f"p Holm ({minus.removeprefix('minus ')})"))]
        named.append((title, [head, *lines]))
    return cells(named)


READERS = {"terminal": from_terminal, "markdown": from_markdown, "latex": from_latex, "html": from_html}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The reports of a kind, made once."""
    known = {}

    def of(kind):
        if kind not in known:
            known[kind] = KINDS[kind](tmp_path_factory.mktemp("kind") / "runs")
        return known[kind]

    return of


@pytest.mark.parametrize("format", READERS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_people_read_holds_the_numbers_of_json_and_no_others(kind, format, made):
    for report in made(kind):
        exact = json.loads(formats.render([report], Format.JSON))
        found = READERS[format](formats.render([report], Format(format), width=400), exact)
        wanted = expected(exact)
        if format == "latex":  # which cuts long words of heads in parts
            found, wanted = (
                {(*key[:4], key[4].replace(" ", "")): text for key, text in each.items()} for each in (found, wanted)
            )
        if format == "html":  # its table beside the paper has the lines alone that the paper has
            found = {key: "-" for key in wanted if key[4] in ("paper", "minus paper")} | found
            wanted |= _two_way_beside_the_paper(exact)
        assert {key: found.get(key) for key in wanted} == wanted
        beyond = {key for key in found.keys() - wanted.keys() if re.search(r"\d", found[key])}
        assert not {key for key in beyond if key[0] not in ("detail", "answer") and key[3] != "±"}


@pytest.mark.parametrize("kind", KINDS)
def test_csv_holds_the_numbers_of_json(kind, made):
    reports = made(kind)
    exact = json.loads(formats.render(reports, Format.JSON))
    records = list(csv.DictReader(io.StringIO(formats.render(reports, Format.CSV))))
    for report in exact if isinstance(exact, list) else [exact]:
        own = [record for record in records if record["study"] == report["study"]]
        whole = [record for record in own if record.get("part") in (None, "", "all")]
        for row, record in zip(report["rows"], whole, strict=True):
            same(record, row, row["label"], report)
            parts = [one for one in own if one.get("part") == "expression" and one["cell"] == row["label"]]
            if "expressions" in report["show"]:
                for part, shown in zip(row["expressions"], parts, strict=True):
                    same(shown, part, row["label"], report)
        if report["searched"]:
            points = [record for record in own if record["part"] == "configuration"]
            for point, record in zip(report["searched"]["points"], points, strict=True):
                assert (record["name"], record["state"]) == (said(point), point["state"])
                for name in ("accuracy", "best_so_far"):
                    assert record[name] == two(point[name]).replace("-", "", point[name] is None)
            (answer,) = [r for r in own if r["part"] == "chosen"] or [None]
            assert (answer is None) == (not report["searched"]["chosen"])
            for score in report["searched"]["chosen_scores"]:
                assert f"{answer['accuracy']} ± {answer['accuracy_half_width']}" == spread(score)
            shares = {record["name"]: record["importance"] for record in own if record["part"] == "importance"}
            assert shares == {name: f"{value:.2f}" for name, value in report["searched"]["importance"].items()}


def same(record, of, label, report):
    """A CSV record has the numbers of a row of JSON, or of an expression of one."""

    def text(value, spec="z.2f"):
        return "" if value is None else format(value, spec)

    assert record["cell"] == label
    assert record["accuracy"] == text(of["accuracy"]["mean"])
    assert record["accuracy_half_width"] == text(of["accuracy"]["half_width"])
    assert record["pooled_accuracy"] == text(of["pooled"])
    for baseline, one in zip(report["baselines"], of["comparisons"], strict=True):
        assert record[f"minus_{baseline}"] == text(one and one["difference"]["mean"])
        assert record[f"minus_{baseline}_p"] == text(one and one["p"], ".6g")
        assert record[f"minus_{baseline}_p_holm"] == text(one and one["p_holm"], ".6g")
        assert record[f"minus_{baseline}_effect"] == text(one and one["effect"])
    if report["reference_source"]:
        assert record["paper"] == text(of["reference"])
        assert record["minus_paper"] == text(of["deviation"])
