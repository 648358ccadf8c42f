"""What licenses demand of a model that is made from others. Rules of thumb with the clause that each rests on, not legal advice."""

from herdbook.licensing.duties import Duty, Release, duties
from herdbook.licensing.terms import (
    NO_STATEMENT,
    PATH,
    TERMS,
    UNKNOWN,
    Obligation,
    Rule,
    Terms,
    identifiers,
    terms_of,
)

__all__ = [
    "NO_STATEMENT",
    "PATH",
    "TERMS",
    "UNKNOWN",
    "Duty",
    "Obligation",
    "Release",
    "Rule",
    "Terms",
    "duties",
    "identifiers",
    "terms_of",
]
