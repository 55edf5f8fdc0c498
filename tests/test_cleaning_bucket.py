"""What is cleaned from a store in a bucket, over the real protocol: what is old and without use, and nothing else."""

import json
import shutil
from pathlib import Path

import pytest
from buckets import address, assert_equal, hold, kept, node, ran, started
from conftest import idenctl
from s3 import BUCKET, until
from test_cleaning import MONTH, checkpoint

from idennet_core import sealing
from idennet_core.ids import content_id
from orchestrator import bucket, cleaning, record
from orchestrator.store import Store, at

HOUR = 3600.0
USED, WHOLE, UNUSED, RECENT = ("1" * 32, "2" * 32, "3" * 32, "4" * 32)  # trunks


def clean(*words):
    return idenctl("store", "clean", "--store", address(), *words)


def put_trunk(s3, name):
    facts = sealing.sealed_facts({"trunk_id": name, "seconds": 1.0}, b"weights")
    s3.client.put_object(Bucket=BUCKET, Key=f"p/trunks/{name}/network.safetensors", Body=b"weights")
    s3.client.put_object(Bucket=BUCKET, Key=f"p/trunks/{name}/trunk.json", Body=json.dumps(facts).encode())
    return [f"p/trunks/{name}/network.safetensors", f"p/trunks/{name}/trunk.json"]


def refer(s3, *trunks):
    """Let the plan of the study refer to these trunks, and to trials of a fold that is still to be run."""
    plan = json.loads(s3.read("p/studies/shares/plan.json"))
    plan["cells"][0]["inputs"] = {f"trunk_{number}": name for number, name in enumerate(trunks)}
    plan["folds"] = [*range(10), 10]
    s3.client.put_object(Bucket=BUCKET, Key="p/studies/shares/plan.json", Body=json.dumps(plan).encode())
    return content_id([plan["cells"][0]["configuration_id"], 10, plan["seeds"][0]])


@pytest.fixture
def littered(s3, shares, tmp_path):
    """A bucket with the study `shares` and what lies beside: the objects that are to go, and those that are to stay."""
    assert ran(address()).returncode == 0
    stored = next(iter(at(address()).check().states()))
    wanted = refer(s3, USED, WHOLE)
    scratch, goes, stays = Store(tmp_path / "scratch").open(), [], s3.objects("p/")

    def put(keys, goes_away, age):
        for key in keys:
            s3.age(key, age)
        (goes if goes_away else stays).extend(keys)

    def put_file(key, goes_away, age, content=b"x"):
        s3.client.put_object(Bucket=BUCKET, Key=key, Body=content)
        put([key], goes_away, age)

    def put_checkpoint(name, goes_away, age, **words):
        put_file(f"p/checkpoints/{name}.safetensors", goes_away, age, checkpoint(scratch, name, **words).read_bytes())

    for key in list(stays):
        s3.age(key, MONTH)
    for name, goes_away, age in (
        (USED, False, MONTH),
        (WHOLE, False, MONTH),
        (UNUSED, True, MONTH),
        (RECENT, False, HOUR),
    ):
        put(put_trunk(s3, name), goes_away, age)
    put_checkpoint(f"trunk-{WHOLE}.5", True, MONTH)
    put_checkpoint(f"trunk-{'5' * 32}.5", True, MONTH)
    put_checkpoint(f"trunk-{'6' * 32}.5", False, HOUR)
    put_checkpoint("pack-wanted.1", False, MONTH, trials=json.dumps([wanted, stored]))
    put_file(f"p/heads/{stored}.safetensors", False, MONTH)
    for name, goes_away, age in (("old", True, MONTH), ("recent", False, 23 * HOUR)):
        put_checkpoint(f"pack-stored-{name}.1", goes_away, age, trials=json.dumps([stored]))
        put_checkpoint(f"pack-strange-{name}.1", goes_away, age, trials=json.dumps(["of no study"]))
        put_file(f"p/checkpoints/pack-damaged-{name}.1.safetensors", goes_away, age)
        put_file(f"p/heads/{name}.safetensors", goes_away, age)
        put_file(f"p/predictions/{name}.parquet", goes_away, age)
        put_file(f"p/.incoming/{name}", goes_away, age)
    return goes, stays


def test_it_is_shown_and_without_yes_the_bucket_stays_as_it_is(s3, littered):
    goes, stays = littered
    s3.asked.clear()
    done = clean()
    assert (done.returncode, done.stderr) == (0, "nothing was removed; next: the same with --yes\n")
    found = json.loads(clean("--json").stdout)
    assert {method for method, *_ in s3.asked} <= {"GET", "HEAD"}
    assert found["removed"] is False
    trunk = f"p/trunks/{UNUSED}"
    single = [key for key in goes if not key.startswith(trunk)]
    assert {each["path"]: each["bytes"] for each in found["leftovers"]} == {
        f"s3://{BUCKET}/{key}": len(s3.read(key)) for key in single
    } | {f"s3://{BUCKET}/{trunk}": sum(len(s3.read(key)) for key in goes if key not in single)}
    assert s3.objects("p/") == sorted(goes + stays)


def test_with_yes_it_goes_and_all_else_stays_and_other_nodes_have_the_same_rows(s3, littered, shares, monkeypatch):
    _, stays = littered
    before = kept(address())
    done = clean("--yes")
    assert done.returncode == 0, done.stderr
    assert s3.objects("p/") == sorted(stays)
    assert "nothing to clean" in clean("--yes").stdout
    node(monkeypatch, shares, "two")
    assert_equal(kept(address()), before)
    assert "nothing to clean" in clean("--yes").stdout


def test_what_is_younger_than_was_asked_for_stays_and_a_day_is_the_least(s3, littered):
    goes, stays = littered
    assert "nothing to clean" in clean("--older-than", "40", "--yes").stdout
    for days in ("0.99", "0"):
        done = clean("--older-than", days, "--yes")
        assert done.returncode == 2
        assert done.stderr == (
            "error: nothing shows who is at work in a bucket, so what is younger than a day stays, "
            f"got --older-than {days}; give 1 or more\n"
        )
    assert s3.objects("p/") == sorted(goes + stays)


@pytest.mark.parametrize("removed", [0, 2, 6])
def test_one_that_fails_in_the_middle_has_removed_nothing_of_use_and_the_next_ends_it(
    s3, littered, monkeypatch, removed
):
    _, stays = littered
    before, count = kept(address()), iter(range(1000))
    monkeypatch.setattr(bucket, "PATIENCE", 1.0)
    s3.fails = lambda method, key, query: method == "DELETE" and next(count) >= removed
    done = clean("--yes")
    assert done.returncode == 1
    assert "must be reachable, it is not" in done.stderr
    s3.fails = lambda *request: False
    left = s3.objects("p/")
    assert set(stays) < set(left)
    trunk = [key for key in left if UNUSED in key]
    assert len(trunk) != 1 or not trunk[0].endswith(".json"), "half a trunk never says that it is whole"
    assert_equal(kept(address()), before)
    assert clean("--yes").returncode == 0
    assert s3.objects("p/") == sorted(stays)


def test_what_a_study_refers_to_since_it_was_shown_stays(s3, littered):
    goes, stays = littered
    place, age = at(address()).check(), 7 * 24 * HOUR
    found = cleaning.leftovers(place, age)
    refer(s3, USED, WHOLE, UNUSED)
    cleaning.clear(place, found, age)
    assert s3.objects("p/") == sorted([*stays, *(key for key in goes if UNUSED in key)])


def test_json_names_what_went_and_not_what_stayed_after_all(s3, littered):
    goes, _ = littered
    looks = []

    def meanwhile(method, key, query):
        if query.get("prefix") == ["p/.incoming/"]:  # the first look ends with it
            looks.append(query)
            if len(looks) == 1:
                refer(s3, USED, WHOLE, UNUSED)
        return False

    s3.fails = meanwhile
    told = json.loads(clean("--yes", "--json").stdout)
    assert len(looks) == 2
    assert told["removed"] is True
    went = [f"s3://{BUCKET}/{key}" for key in goes if UNUSED not in key]
    assert sorted(each["path"] for each in told["leftovers"]) == sorted(went)


def test_where_the_bucket_is_empty_all_of_a_sudden_what_this_machine_has_of_it_stays(s3, littered):
    place = at(address()).check()
    place.fetch_all("trunks")
    before = {path: path.read_bytes() for path in place.root.rglob("*") if path.is_file()}
    for key in s3.objects("p/"):
        s3.client.delete_object(Bucket=BUCKET, Key=key)
    done = clean("--yes")
    assert done.returncode == 2, done.stdout
    assert "a store holds store.json, s3://" in done.stderr
    assert {path: path.read_bytes() for path in place.root.rglob("*") if path.is_file()} == before


def test_a_run_of_this_machine_is_seen_and_one_of_another_loses_nothing(s3, littered, shares, monkeypatch):
    with record.only_run(at(address()).check(), "shares"):
        done = clean("--yes")
    assert done.returncode == 2
    assert "shares runs in s3://" in done.stderr
    expected = kept(address())
    for key in s3.objects("p/trials") + s3.objects("p/curves") + s3.objects("p/predictions"):
        s3.client.delete_object(Bucket=BUCKET, Key=key)
    shutil.rmtree(at(address()).root)
    go_on = hold(2, 3, 4)
    elsewhere = started(address(), XDG_CACHE_HOME=str(shares / "elsewhere"))
    until(lambda: s3.objects("p/trials"))
    assert clean("--yes", "--older-than", "1").returncode == 0
    assert elsewhere.poll() is None, "it was at work meanwhile"
    go_on()
    _, said = elsewhere.communicate(timeout=120)
    assert elsewhere.returncode == 0, said
    assert_equal(kept(address()), expected)


def test_what_is_still_to_be_sent_is_sent_first(s3, littered):
    _, stays = littered
    head = at(address()).heads / "unsent.safetensors"
    head.parent.mkdir(exist_ok=True)
    head.write_bytes(b"x")
    assert clean("--yes").returncode == 0
    assert s3.objects("p/") == sorted([*stays, "p/heads/unsent.safetensors"])


def test_the_mirror_forgets_what_the_bucket_no_longer_has_and_may_itself_be_removed(s3, littered):
    _, stays = littered
    place, before = at(address()).check(), kept(address())
    for name in ("old", "recent"):
        place.fetch("heads", f"{name}.safetensors")
    place.fetch_all("trunks", UNUSED)
    place.fetch_all("checkpoints")
    s3.client.delete_object(Bucket=BUCKET, Key="p/heads/recent.safetensors")
    found = json.loads(clean("--json").stdout)["leftovers"]
    assert [each["path"] for each in found if each["kind"] == "copy"] == [str(place.heads / "recent.safetensors")]
    assert clean("--yes").returncode == 0
    files = {path for path in place.root.rglob("*") if path.is_file()}
    mirrored = {str(path.relative_to(place.root)) for path in files}
    hidden = {name for name in mirrored if any(part.startswith(".") for part in Path(name).parts)}
    assert {f"p/{name}" for name in mirrored - hidden} <= set(stays)
    shutil.rmtree(place.root)
    assert_equal(kept(address()), before)
    assert ran(address()).returncode == 0


@pytest.mark.parametrize(("words", "said"), [
    (("clean", "--yes"), "a store holds store.json, s3://bucket/other does not; give another --store"),
    (("compact",), "stores in folders are made compact, as who reads a bucket meanwhile would miss rows, got s3://"),
])  # fmt: skip
def test_what_is_no_store_and_what_a_bucket_cannot_do_is_refused_in_one_line(s3, words, said):
    s3.client.put_object(Bucket=BUCKET, Key="other/photograph.jpg", Body=b"x")
    done = idenctl("store", *words, "--store", address("other"))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert said in done.stderr
    assert s3.objects() == ["other/photograph.jpg"]
