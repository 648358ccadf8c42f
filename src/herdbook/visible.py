"""Text of strangers on its way out: the one filter that it passes, whether to a terminal, a document, a report or a log.

Names of tensors and files, licenses, messages of servers and lines of logs come from outside. A carriage return among them
overwrites the line before it, a mark that changes the direction of writing turns a line around, characters without a width
make two names look alike, an escape code acts on the terminal, and a server can send back the token of the request. Here each
of these is replaced by a visible character, and each token by a word. Markdown and XML are escaped in addition
(``herdbook.escape``).
"""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import TextIO

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
HIDDEN = "<token>"

_LINE_ENDS = re.compile(r"\r\n|[\r\v\f\x85\u2028\u2029]")
# Unicode's categories Cc (controls), Cf (format) and Cs (halves of surrogate pairs), characters that Unicode calls ignorable
# (but for those that choose between a text and a picture), and what XML cannot represent.
_UNSEEN = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ud800-\udfff\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff\U000110bd\U000110cd"
    "\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
# The forms of the Hub's tokens, and of signed ones (JWT), which identify a CI job or are exchanged for that.
_TOKEN = re.compile(
    r"\bhf_[A-Za-z0-9]{30,}|\b(?:hf_(?:jwt|oauth)_)?eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{8,}|\bhf_(?:jwt|oauth)_[\w.-]{20,}"
)
_SHOWN = 12  # characters of a token that reveal nothing yet; a message may cut the rest off
_secrets: set[str] = set()


def conceal(secret: str | None) -> None:
    """Never let a secret out from now on, nor a longer piece of its beginning; called before it is sent anywhere."""
    if secret and len(secret) >= _SHOWN:
        _secrets.add(secret)


def without_secrets(text: str) -> str:
    """Return a text with a word in the place of each token."""
    for secret in sorted(_secrets, key=len, reverse=True):
        before, *pieces = text.split(secret[:_SHOWN])
        text = before + "".join(HIDDEN + piece[_common(piece, secret[_SHOWN:]) :] for piece in pieces)
    return _TOKEN.sub(HIDDEN, text)


def _common(text: str, other: str) -> int:
    """Return with how many equal characters two texts begin."""
    pairs = zip(text, other, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(text), len(other)))


def visible(text: str) -> str:
    """Return a text of several lines: line feeds are its only control characters, and it has no token."""
    text = _LINE_ENDS.sub("\n", without_secrets(text)).replace("\t", "    ")
    return _UNSEEN.sub(REPLACEMENT, text)


def line(text: object) -> str:
    """Return a text as one line, with a space for each line's end."""
    return visible(str(text)).replace("\n", " ")


def json_text(text: str) -> str:
    """Return the text of a JSON document with JSON's own escapes for what is not visible: its content, but for tokens, stays."""
    return _UNSEEN.sub(lambda match: json.dumps(match[0])[1:-1], without_secrets(text))


def say(*texts: object, file: TextIO | None = None) -> None:
    """Print texts for people, each as one line.

    Args:
        texts: The lines. A line's end inside one of them is not ours, so it is printed as a space.
        file: Where to (default: standard output).
    """
    stream = file or sys.stdout
    stream.write("".join(f"{line(text)}\n" for text in texts))
    stream.flush()
