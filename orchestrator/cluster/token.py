"""Ray's token, which every Ray that this project starts or reaches asks for; never printed, logged or in a row.

Ray reads its mode and token from the environment when it is imported, and passes them on to the processes it starts.
"""

import os
import secrets
from pathlib import Path

MODE, TOKEN, PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
LENGTH = 32  # bytes of a new token


def for_own_ray() -> None:
    """Let the Ray that this process is about to start ask for a token: that of its user, else one made for it."""
    os.environ[MODE] = "token"
    if _given() is None:
        os.environ[TOKEN] = secrets.token_hex(LENGTH)


def for_cluster() -> None:
    """Let this process show its user's token to a cluster. Raises ValueError where there is none, or others read it."""
    os.environ[MODE] = "token"
    if _given() is None:
        raise ValueError(
            f"a cluster asks for a token, and {_path()} holds none; copy it from the machine that started the cluster, "
            f"or set {TOKEN}"
        )


def keep() -> Path:
    """The file with this user's token, made where it is missing, which nobody else can read."""
    path = _path()
    if _given() is None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(LENGTH))
        try:
            path.hardlink_to(beside)
        except FileExistsError:
            if _given() is None:  # an empty file; else another process has just made its own
                beside.replace(path)
        beside.unlink(missing_ok=True)
    return path


def _given() -> str | None:
    """What says the token: the environment, or a file that only its owner reads."""
    if os.environ.get(TOKEN):
        return TOKEN
    path = _path()
    if not path.is_file() or not path.read_text().strip():
        return None
    if path.stat().st_mode & 0o077:
        raise ValueError(f"a token is its owner's alone, others can read {path}; run: chmod 600 {path}")
    return str(path)


def _path() -> Path:
    return Path(os.environ.get(PATH) or Path.home() / ".ray" / "auth_token").expanduser()
