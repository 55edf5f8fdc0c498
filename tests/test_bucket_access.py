"""Who reaches a store in a bucket, and where: addresses, rights, credentials, names of objects."""

import os
from pathlib import Path

import pytest
from buckets import address, ran
from conftest import idenctl
from s3 import BUCKET, KEYS

from orchestrator.store import at


@pytest.mark.parametrize(
    ("store", "status", "said"),
    [
        ("s3://", 2, "got '' as the bucket; give its name"),
        ("s3:///p", 2, "got '' as the bucket; give its name"),
        ("foo://bucket/p", 2, "got one that begins with 'foo'"),
        ("://", 2, "got one that begins with ''"),
        (f"s3://{BUCKET}/../x", 2, "got '..' in the prefix"),
        (f"s3://{BUCKET}//x", 2, "got '' in the prefix"),
        (f"s3://{BUCKET}/a%2e%2e/x", 2, "got 'a%2e%2e' in the prefix"),
        (f"s3://{BUCKET}/.hidden", 2, "got '.hidden' in the prefix"),
        ("s3://BUCKET/x", 2, "got 'BUCKET' as the bucket"),
        (f"s3://{'b' * 64}/x", 2, "as the bucket; give its name: 3 to 63"),
        (f"s3://{BUCKET}/{'x' * 600}", 2, "in the prefix"),
        (f"s3://{BUCKET}/x?access_key=a", 2, "the options endpoint_override, scheme, region, got another"),
        (f"s3://{BUCKET}/x?region=a/b", 2, "region of letters, digits"),
        ("s3://no-such-bucket/x", 2, "a store's bucket must exist, s3://no-such-bucket/x has none; create it"),
        (f"s3://{BUCKET}/x?endpoint_override=127.0.0.1:1&scheme=http", 1, "must be reachable, it is not (network"),
    ],
)
@pytest.mark.parametrize("words", [("study", "run", "shares.yaml"), ("report", "shares")])
def test_a_wrong_address_is_answered_in_one_line(s3, shares, store, status, said, words):
    done = idenctl(*words, "--store", store)
    assert (done.returncode, done.stdout) == (status, "")
    assert said in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
def test_a_bucket_that_may_not_be_used_is_named_in_one_line(s3, shares, method):
    s3.fails = lambda asked, key, query: asked == method and "403 Forbidden"
    done = ran(address())
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"error: the store {address()} must be readable and, to run, writable" in done.stderr


def test_credentials_in_an_address_are_refused_and_shown_nowhere(s3, shares):
    for store in ("s3://AKIAKEY:hunter2/hunter3@bucket/p", f"s3://{BUCKET}/p?secret_key=hunter2"):
        done = idenctl("study", "run", "shares.yaml", "--store", store)
        assert done.returncode == 2
        assert "hunter" not in done.stdout + done.stderr
        assert "AKIAKEY" not in done.stderr


def test_no_credential_is_in_anything_that_is_written_or_said(s3, shares):
    done = ran(address())
    written = [path.read_bytes() for path in Path(os.environ["XDG_CACHE_HOME"]).rglob("*") if path.is_file()]
    written += [s3.read(key) for key in s3.objects()] + [(done.stdout + done.stderr).encode()]
    assert not any(secret.encode() in content for secret in KEYS.values() for content in written)


def test_a_folder_of_the_mirror_is_of_its_user_alone(s3, shares):
    assert ran(address()).returncode == 0
    assert at(address()).root.stat().st_mode & 0o777 == 0o700


def test_names_of_objects_never_leave_the_mirror(s3, shares):
    for key in ("p/studies/../../../out", "p/studies/a\\..\\b", "p/studies//x", "p/studies/.ssh/key"):
        s3.client.put_object(Bucket=BUCKET, Key=key, Body=b"x")
    s3.client.put_object(Bucket=BUCKET, Key="p/studies/fine.txt", Body=b"x")
    store = at(address()).check()
    assert [path.name for path in store.root.rglob("*") if path.is_file() and ".locks" not in path.parts] == [
        "fine.txt"
    ]
    assert not list(shares.rglob("out"))
