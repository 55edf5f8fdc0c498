"""Any text as LaTeX, and about how wide it is set. Pure."""

# ruff: noqa: RUF001 the letters that look like others are meant
import re
import unicodedata

SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": "$<$", ">": "$>$", "|": "$|$", '"': "''",
    "`": r"\textasciigrave{}", "-": "-{}", "'": "'{}",
}  # fmt: skip
KNOWN = {
    "\u00a0": "~", "±": r"$\pm$", "×": r"$\times$", "÷": r"$\div$", "·": r"$\cdot$", "…": r"\dots{}", "°": r"$^\circ$",
    "–": "--", "—": "---", "‘": "`", "’": "'", "“": "``", "”": "''", "≤": r"$\le$", "≥": r"$\ge$", "−": "$-$",
    "→": r"$\to$", "µ": r"$\mu$", "ß": r"\ss{}", "æ": r"\ae{}", "Æ": r"\AE{}", "œ": r"\oe{}", "Œ": r"\OE{}",
    "ø": r"\o{}", "Ø": r"\O{}", "ł": r"\l{}", "Ł": r"\L{}", "ı": r"\i{}", "§": r"\S{}", "¶": r"\P{}",
}  # fmt: skip
ACCENTS = {
    "\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0308": '"', "\u030a": "r", "\u030c": "v",
    "\u0304": "=", "\u0307": ".", "\u030b": "H", "\u0327": "c", "\u0306": "u", "\u0323": "d",
}  # fmt: skip
GREEK = (
    "|alpha|beta|gamma|delta|epsilon|zeta|eta|theta|iota|kappa|lambda|mu|nu|xi|pi|rho|sigma|tau|upsilon|phi|chi|psi"
    "|omega|Gamma|Delta|Theta|Lambda|Xi|Pi|Sigma|Upsilon|Phi|Psi|Omega|"
)
LONGEST, PART = 18, 6  # characters of a word that is never broken, and of the parts of a longer one
POINTS = {"narrow": 2.5, "usual": 4.3, "wide": 6.7}  # of a letter in the footnote size of a paper, 8 pt


def tex(text: str) -> str:
    """The text with nothing that LaTeX would obey; a letter that its plain fonts lack is spelled as U+ and its number.

    Long words and names with underlines, slashes and the like may be broken at the end of a line.
    """
    return " ".join(map(_word, text.split(" ")))


def number(text: str) -> str:
    """A table's number, interval or p with proper signs; other texts as `tex` has them."""
    if text == "-":
        return "--"
    return " ".join(
        f"${part[0]}${part[1:]}" if re.fullmatch(r"[-+][\d.,]+", part) else tex(part) for part in text.split(" ")
    )


def points(text: str) -> float:
    """About how wide a text is set in footnote size, in points; rather more than less."""
    return sum(_points(letter) for letter in text)


def _points(letter: str) -> float:
    if (set_as := _letter(letter)).startswith("U+"):
        return sum(map(_points, set_as))
    if letter in ".,:;!|'()[]/ -iljftI":
        return POINTS["narrow"] + (0.6 if letter in "- ()/tf" else 0)
    return POINTS["wide" if letter in "+<>=±%_@&mwMW" or letter.isupper() or ord(letter) > 127 else "usual"]


def _word(word: str) -> str:
    breaks = r"\allowbreak{}"
    letters = [f"{_letter(one)}{breaks if one in '_/@=,.:;-' and len(word) > PART else ''}" for one in word]
    if len(word) > LONGEST:
        letters = [f"{one}{breaks if place % PART == PART - 1 else ''}" for place, one in enumerate(letters)]
    return "".join(letters)


def _letter(letter: str) -> str:
    if known := SPECIAL.get(letter) or KNOWN.get(letter):
        return known
    if letter.isascii():
        return letter if letter.isprintable() else " "
    base, *accents = list(unicodedata.normalize("NFD", letter))
    if len(accents) == 1 and accents[0] in ACCENTS and base.isascii():
        return rf"\{ACCENTS[accents[0]]}{{{chr(92) + base if base in 'ij' else base}}}"
    size, _, name = unicodedata.name(letter, "").replace("LAMDA", "LAMBDA").partition(" LETTER ")
    name = {"GREEK SMALL": name.lower(), "GREEK CAPITAL": name.capitalize()}.get(size, "")
    return rf"$\{name}$" if f"|{name}|" in GREEK else f"U+{ord(letter):04X}"
