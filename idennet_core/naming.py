"""What may have been meant by a name that is not known: the one place where names are compared."""

import difflib
from collections.abc import Iterable


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The choice that `word` may have meant: nearly the same but for case, or its letters in another order.

    Else the only one that begins with it.
    """
    known = list(choices)
    lowered = {choice.casefold(): choice for choice in reversed(known)}
    mixed = [choice for choice in lowered if sorted(choice) == sorted(word.casefold())]
    if close := difflib.get_close_matches(word.casefold(), lowered, n=1) or mixed:
        return lowered[close[0]]
    begun = [choice for choice in known if word and choice.casefold().startswith(word.casefold())]
    return begun[0] if len(begun) == 1 else None


def suggest(word: str, choices: Iterable[str]) -> str:
    """The end of a message that refuses `word`: the nearest choice, and all."""
    known = list(choices)
    close = nearest(word, known)
    hint = f"did you mean '{close}'? " if close else ""
    return f"{hint}valid: {', '.join(known) or 'none'}"
