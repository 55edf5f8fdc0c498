"""What rules about cluster files say, and how they look into one of any shape."""

import re
import shlex
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from idennet_core import naming
from orchestrator.strict_yaml import Place

UNKNOWN = "unknown key"
OWN_MACHINE = ("127.0.0.1", "localhost", "::1")
SECRETS = re.compile(r"\b(RAY_AUTH_TOKEN|AWS_SECRET_ACCESS_KEY|AWS_SESSION_TOKEN)=")
LEFT, FILL = "left to be filled in", "write your own; docs/how-to/cluster.md says where it comes from"
GAP = "FILL_IN"  # begins what a cluster file leaves to its reader

Finding = tuple[Place, str, Any, str]  # where, the rule, what stands there (None: nothing), the next step


def within(value: Any, *keys: Any) -> Any:
    """What stands under these keys, or None where something on the way is not there or not a mapping."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def mapping(value: Any) -> dict[Any, Any]:
    """The value where it is a mapping, else an empty one."""
    return value if isinstance(value, dict) else {}


def items(value: Any) -> list[Any]:
    """The value where it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def nearest(word: str, choices: Iterable[str]) -> str:
    """The choice that may have been meant, else the choices, cut where they are many."""
    known = list(choices)
    close = naming.nearest(word, known)
    return f"did you mean '{close}'?" if close else textwrap.shorten(f"valid: {', '.join(known)}", 200)


def leaves(value: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Every scalar and where it stands; a key of a mapping counts as one."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*place, key), key
            yield from leaves(inner, (*place, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from leaves(inner, (*place, index))
    else:
        yield place, value


def is_gap(value: Any) -> bool:
    """Whether this is left to be filled in."""
    return isinstance(value, str) and GAP in value


def gaps(value: Any) -> Iterator[Finding]:
    """What is left to be filled in."""
    for place, text in leaves(value):
        for word in re.findall(rf"{GAP}\w*", text) if is_gap(text) else ():
            yield place, LEFT, word, FILL


def unknown_keys(value: Any, valid: Sequence[str], place: Place) -> Iterator[Finding]:
    """Keys of a mapping that nothing would ever read."""
    for key in mapping(value):
        if key not in valid and not is_gap(key):
            yield (*place, key), UNKNOWN, key, nearest(str(key), valid)


def image_findings(image: Any, place: Place) -> Iterator[Finding]:
    """An image that is another one tomorrow."""
    if isinstance(image, str) and "@sha256:" not in image and not is_gap(image):
        tag = image.rpartition("/")[2].partition(":")[2]
        if tag in ("", "latest", "nightly") or tag.startswith(("latest-", "nightly-")):
            yield place, "an image must be pinned, or machines differ", image, "name a version"


def loose_installations(command: str) -> Iterator[str]:
    """The parts of a shell command that install whatever is newest on that day."""
    for part in re.split(r"&&|\|\||;|\n", command):
        if re.search(r"\b(curl|wget)\b.*\|\s*(sudo\s+)?(ba|z|da)?sh\b", part):
            yield part.strip()
        try:
            words = shlex.split(part)
        except ValueError:
            words = part.split()
        pip = [index for index, word in enumerate(words) if re.fullmatch(r"(.*/)?(pip|pip3|uv)", word)]
        if not pip or "install" not in words[pip[0] :]:
            continue
        wanted = words[words.index("install", pip[0]) + 1 :]
        if {"-c", "--constraint", "--require-hashes"} & set(wanted) or any("--constraint=" in word for word in wanted):
            continue
        if any(not word.startswith("-") and not re.search(r"==[0-9]", word) for word in wanted):
            yield part.strip()
