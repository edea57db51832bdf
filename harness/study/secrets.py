"""Addresses as they may be shown and logged: the one place that takes passwords and tokens out of a text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import unquote, unquote_plus

HIDDEN = "***"
SHORTEST = 3  # characters of a password that is looked for in a text; shorter ones are parts of words
LONGEST = 10_000  # characters of a text that are looked through; no message is longer

# Whoever stands before an @ may be a password, a token, or a name; none is needed to find the server.
_USER = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*:/{2})(?P<user>[^\s/'\"<>][^\s'\"<>]*)@")
# Of a query, of libpq's keyword form, of ODBC, of JSON; quoted values may have spaces.
_KEY_VALUE = re.compile(
    r"""(?P<key>[\w%.+-]{1,200}["']?[ ]?(?:=|:(?!//))[ ]?)"""
    r"""(?P<value>'(?:[^'\\]|\\.){0,2000}'|"(?:[^"\\]|\\.){0,2000}"|\{[^}]{0,2000}\}|[^\s&;,'"]{1,4000})"""
)
_SECRET_KEY = re.compile(
    r"pass(word|wd|phrase)|pwd|token|secret|api[-_.]?key|a(ccess|ccount|uth)[-_.]?key|private[-_.]?key|"
    r"credential|signature|(^|[-_.])(pass|sig|sas|auth|authorization)$",
    re.IGNORECASE,
)
# Tokens that say themselves what they are: of Databricks, GitHub, AWS; of HTTP headers.
_BARE = re.compile(
    r"\bdapi[0-9a-f]{8,}(?:-\d+)?\b|\bgh[opsur]_\w{8,}|\bAKIA[0-9A-Z]{12,}\b"
    r"|(?<=\bBearer )\S+|(?<=\bBasic )\S+"
)


def masked(text: str, uri: str = "") -> str:
    """The text with *** in place of every secret that an address in it holds, and of those of `uri`.

    >>> masked("postgresql://me:secret@db/x and http://127.0.0.1:5000")
    'postgresql://***@db/x and http://127.0.0.1:5000'
    >>> masked("host=db password='s p' user=me"), masked("http://h/?a=1&Token=x")
    ("host=db password='***' user=me", 'http://h/?a=1&Token=***')
    """
    if len(text) > LONGEST:
        text = f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"
    for secret in sorted(set(_secrets(uri)), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    text = _USER.sub(rf"\g<scheme>{HIDDEN}@", _BARE.sub(HIDDEN, text))
    return _KEY_VALUE.sub(_without_value, text)


def has_secret(uri: str) -> bool:
    """Whether the address must not be shown as it is."""
    return masked(uri) != uri


def _without_value(found: re.Match[str]) -> str:
    """The pair without its value where the key is one of a secret, or the value holds such a pair itself."""
    key, value = found["key"], found["value"]
    word = unquote_plus(key.rstrip(" =:\"'"))
    inner = unquote_plus(value)
    if _SECRET_KEY.search(word) or (inner != value and masked(inner) != inner):
        quote = value[0] if value[0] in "'\"" else ""
        return f"{key}{quote}{HIDDEN}{quote}"
    holds_pairs = re.search("[=:]", value) is not None  # as in `MLFLOW_TRACKING_URI=http://h?token=x`
    return f"{key}{masked(value)}" if holds_pairs else found[0]


def _secrets(uri: str) -> Iterator[str]:
    """The secrets of an address as written and with its %-signs resolved, as drivers say them."""
    found = _USER.match(uri)
    parts = found["user"].partition(":")[2] or found["user"] if found else ""
    values = [parts, *(pair["value"].strip("'\"") for pair in _KEY_VALUE.finditer(uri) if _is_secret(pair))]
    for value in values:
        for each in {value, unquote(value), unquote_plus(value)}:
            if len(each) >= SHORTEST:
                yield each


def _is_secret(pair: re.Match[str]) -> bool:
    return _SECRET_KEY.search(unquote_plus(pair["key"].rstrip(" =:\"'"))) is not None
