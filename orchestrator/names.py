"""Names that others chose: which may become part of a path, and how any text of theirs is shown."""

import re

_DEVICE = r"(?!(?i:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:@|\Z))"  # what Windows takes for a device, not a folder
_WORD = r"(?!-)[A-Za-z0-9_-]{1,64}"
RULES = {
    "a name": (_DEVICE + _WORD, "1 to 64 letters, digits, _ or -, not - first, and no device of Windows such as nul"),
    "a study's name": (f"{_DEVICE}{_WORD}(@{_WORD})?", "1 to 64 letters, digits, _ or -, not - first, or NAME@PROFILE"),
    "a data set's name": (_DEVICE + r"[a-z0-9][a-z0-9+-]{0,63}", "1 to 64 small letters, digits, + or -"),
    "an id": (r"[0-9a-f]{32}", "32 hexadecimal digits"),
}


def named(what: str, name: object) -> str:
    """A name that becomes part of a path. Raises ValueError for one that could lead elsewhere, or pass for another."""
    pattern, rule = RULES[what]
    if not isinstance(name, str) or not re.fullmatch(pattern, name):
        raise ValueError(f"{what} is {rule}, got {quoted(name) if isinstance(name, str) else type(name).__name__}")
    return name


def visible(text: str) -> str:
    """The text with what has no shape of its own written out, as escape sequences; lines and tabs stay."""
    return "".join(char if char.isprintable() or char in "\n\t" else ascii(char)[1:-1] for char in text)


def quoted(text: str, longest: int = 60) -> str:
    """A name that is refused, in quotes and in ASCII: letters that look like others show what they are."""
    shown = ascii(text)
    return shown if len(shown) <= longest else f"{shown[: longest - 4]}...{shown[0]}"
