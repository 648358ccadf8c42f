"""All attacks, as docs/verify.md lists them."""

from support import gguf_lies
from support.attacks import content, loading, on_the_hub, places, signatures, statements

ON_FOLDERS = [row for kind in (content, loading, statements, signatures, places) for row in kind.CASES]


def tables():
    """Return the tables of docs/verify.md."""
    lines = ["| change to a folder | caught by |", "| --- | --- |"]
    lines += [
        f"| {what}{' (with `--key`)' if options else ''} | {by[0]}{f': {by[1]}' if by[1] else ''} |"
        for what, _, by, options in ON_FOLDERS
    ]
    # of a release with GGUF files: test_gguf_headers.py
    lines += [
        f"| {what}, everything derived and re-signed | {level}: {check} |"
        for what, _, (level, check) in gguf_lies.LIES
    ]
    lines += [
        "",
        "| change on the Hub | level | exit status | reported by |",
        "| --- | --- | ---: | --- |",
    ]
    lines += [
        f"| {what} | {level} | {expected} | {f'{by[0]}: {by[1]}' if by else ''} |"
        for what, _, level, expected, by in on_the_hub.CASES
    ]
    return "\n".join(lines)
