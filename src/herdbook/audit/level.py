"""The one level of an audit, and the check that two of its parts share."""

from __future__ import annotations

from herdbook.release.finding import Check, Level

LEVEL = "audit"
ABOUT = Level(
    LEVEL,
    "as far as bytes can show it, the merge is of the models that its configuration names",
    "the same ranges of the merge and of those models, headers, routers",
    "twice the sample",
)
UNPROVEN = Check(LEVEL, "unproven")
