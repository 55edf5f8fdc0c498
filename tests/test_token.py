"""The token that every Ray of this project asks for."""

import os
import stat

import pytest

from orchestrator.cluster import token


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch):
    """A user without a token, whose environment is put back afterwards."""
    for name in (token.MODE, token.TOKEN, token.PATH):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


def test_a_ray_of_our_own_asks_for_a_token_that_no_file_holds(tmp_path):
    token.for_own_ray()
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
    assert not list(tmp_path.iterdir())


def test_two_rays_never_have_the_same_token(monkeypatch):
    token.for_own_ray()
    first = os.environ["RAY_AUTH_TOKEN"]
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    token.for_own_ray()
    assert os.environ["RAY_AUTH_TOKEN"] != first


def test_a_cluster_is_not_reached_without_a_token():
    with pytest.raises(ValueError, match="a cluster asks for a token"):
        token.for_cluster()


def test_the_kept_token_is_its_owners_alone_and_stays_the_same():
    path = token.keep()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert token.keep().read_text() == path.read_text()
    token.for_cluster()
    assert "RAY_AUTH_TOKEN" not in os.environ, "Ray reads the file itself"


def test_an_empty_file_is_no_token_and_gets_one(tmp_path):
    path = token.keep()
    path.write_text("")
    assert token.keep() == path
    assert len(path.read_text()) == 64
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_a_token_that_others_can_read_is_refused():
    path = token.keep()
    path.chmod(0o644)
    with pytest.raises(ValueError, match="chmod 600"):
        token.for_own_ray()
