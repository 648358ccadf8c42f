"""The only level of an audit, and the check that several of its modules share."""

from __future__ import annotations

from herdbook.release.finding import Check, Level

LEVEL = "audit"
ABOUT = Level(
    LEVEL,
    "the merge is made from the models that its configuration names, as far as bytes can show",
    "the same ranges of the merge and of those models, headers, routers",
    "twice the sample",
)
UNPROVEN = Check(LEVEL, "unproven")
