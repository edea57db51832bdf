"""Changes to a study as text or bytes: what editors, mails, transfers and YAML itself can do to a file."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from random import Random

from tests.fuzz import odd_values
from tests.fuzz.corpus import seeds

EDITS = (1, 1, 1, 1, 2, 4)
TOKENS = (
    *(
        "!!python/object/apply:os.system ['id']",
        "!!binary aGk=",
        "!!set {a}",
        "!!timestamp 2001-01-01",
        "!x ",
        "!!int ",
        "!!str ",
    ),
    *(
        "&a ",
        "*a",
        "<<: *a",
        "? ",
        ": ",
        "- ",
        "{",
        "}",
        "[",
        "]",
        "| \n",
        "> \n",
        "---\n",
        "...\n",
        "%YAML 1.1\n",
        "#",
    ),
    *(
        "\t",
        "\r",
        "\r\n",
        "\x00",
        "\ufeff",
        "\u2028",
        "\u0085",
        "\x1b",
        "\U0001f642",
        "\\",
        '"',
        "'",
        "é",
        "\u202e",
    ),
    *(
        ".inf",
        "-.inf",
        ".nan",
        "1e400",
        "0x" + "f" * 5000,
        "9" * 5000,
        "1" * 4000,
        "yes",
        "no",
        "on",
        "off",
        "~",
        "null",
    ),
    *(
        "2001-12-14t21:59:43.10-05:00",
        "190:20:30",
        "0b1010",
        "1_000",
        "010",
        "0o7",
        "+1",
        "1.",
        ".5",
        "1e-400",
    ),
    *(
        '"\\ud800"',
        '"\\x00"',
        '"\\e[31m"',
        '"\\u202e"',
        '"\\U00110000"',
        "!!float 1",
        "!!bool 1",
        "!!null x",
        "!!int 0x",
    ),
)


def mutated_text(random: Random) -> bytes:
    """A study from the corpus after a few edits of its text, then perhaps of its bytes."""
    text = random.choice(seeds()).text
    for _ in range(random.choice(EDITS)):
        text = random.choice(TEXT_MUTATORS)(text, random)
    data = text.encode("utf-8", errors="surrogatepass")
    if random.random() < 0.2:
        data = random.choice(BYTE_MUTATORS)(data, random)
    return data


def _spot(text: str | bytes, random: Random) -> int:
    return random.randrange(len(text) + 1)


def insert_token(text: str, random: Random) -> str:
    at = _spot(text, random)
    return text[:at] + random.choice(TOKENS) + text[at:]


def value_token(text: str, random: Random) -> str:
    """Replace a value behind a colon by an odd one."""
    found = list(re.finditer(r": ([^\n{\[,}\]]+)", text))
    if not found:
        return text
    match = random.choice(found)
    new = random.choice((*TOKENS, *map(str, odd_values.TEXTS), *map(_short, odd_values.NUMBERS)))
    return text[: match.start(1)] + new + text[match.end(1) :]


def _short(value: object) -> str:
    return repr(value)[:4000]


def lines(text: str, random: Random) -> str:
    """Delete, double or swap lines."""
    parts = text.splitlines(keepends=True)
    if len(parts) < 2:
        return text
    one, two = random.randrange(len(parts)), random.randrange(len(parts))
    match random.randrange(4):
        case 0:
            del parts[one]
        case 1:
            parts.insert(two, parts[one])
        case 2:
            parts[one], parts[two] = parts[two], parts[one]
        case _:
            parts = parts[:one]
    return "".join(parts)


def indentation(text: str, random: Random) -> str:
    parts = text.splitlines(keepends=True)
    if parts:
        at = random.randrange(len(parts))
        change = random.choice((" ", "  ", "\t", "    "))
        parts[at] = change + parts[at] if random.random() < 0.5 else parts[at].removeprefix("  ")
    return "".join(parts)


def line_ends(text: str, random: Random) -> str:
    return text.replace("\n", random.choice(("\r\n", "\r", "\u2028", "\n\n", " \n", "\u0085")))


def duplicate_key(text: str, random: Random) -> str:
    keys = re.findall(r"^( *[a-z_]+:).*$", text, re.MULTILINE)
    if not keys:
        return text
    return text + f"\n{random.choice(keys).strip()} {random.choice(TOKENS)}\n"


def characters(text: str, random: Random) -> str:
    at = _spot(text, random)
    return text[:at] + chr(random.choice((*range(256), 0x2029, 0xFFFE, 0x1F600, 0xD800))) + text[at + 1 :]


def long_text(text: str, random: Random) -> str:
    at = _spot(text, random)
    return (
        text[:at]
        + random.choice(("x", " ", "[", "{a: ", "- ", "9", "\n", "'")) * random.choice((100, odd_values.LONG))
        + text[at:]
    )


def deep(text: str, random: Random) -> str:
    depth = random.choice((10, 49, 51, 5000))
    opened, closed = random.choice((("[", "]"), ("{a: ", "}")))
    return text + f"\ndeep: {opened * depth}{closed * depth}\n"


def bomb(text: str, random: Random) -> str:
    names = "abcdefghij"
    lines = [
        "a: &a [x, x]",
        *(f"{b}: &{b} [*{a}, *{a}, *{a}]" for a, b in pairwise(names)),
    ]
    return text + "\n" + "\n".join(lines) + "\n"


def splice(text: str, random: Random) -> str:
    """The head of one study and the tail of another."""
    other = random.choice(seeds()).text
    return text[: _spot(text, random)] + other[_spot(other, random) :]


def flip_bits(data: bytes, random: Random) -> bytes:
    out = bytearray(data)
    for _ in range(random.choice((1, 1, 3, 50))):
        if out:
            out[random.randrange(len(out))] ^= 1 << random.randrange(8)
    return bytes(out)


def noise(data: bytes, random: Random) -> bytes:
    at = _spot(data, random)
    return data[:at] + random.randbytes(random.choice((1, 8, 500))) + data[at:]


def encoding(data: bytes, random: Random) -> bytes:
    text = data.decode("utf-8", errors="replace")
    return random.choice(
        (
            b"\xef\xbb\xbf" + data,
            text.encode("utf-16"),
            text.encode("latin-1", errors="replace"),
            b"",
            random.randbytes(300),
        )
    )


def cut(data: bytes, random: Random) -> bytes:
    return data[: _spot(data, random)]


TEXT_MUTATORS: tuple[Callable[[str, Random], str], ...] = (
    *(
        insert_token,
        insert_token,
        value_token,
        value_token,
        value_token,
        lines,
        lines,
        indentation,
        line_ends,
    ),
    *(duplicate_key, characters, long_text, deep, bomb, splice),
)
BYTE_MUTATORS: tuple[Callable[[bytes, Random], bytes], ...] = (flip_bits, noise, encoding, cut)
