"""What the Hub would not accept on the card of the release, and templates that a tokenizer does not have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from support import tiny
from support.inputs import Case

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def release(**keys: Any) -> Callable[[Path], Path]:
    """Return a maker of a recipe with other keys in ``release``."""

    def make(folder: Path) -> Path:
        tiny.write_model(folder / "base", seed=1)
        return tiny.write_recipe(folder / "recipe.yaml", {"base": {"folder": "base"}}, release=keys)

    return make


CASES = [
    Case(
        "`license: Apache 2.0`",
        release(license="Apache 2.0"),
        "release.license: 'Apache 2.0' is not a license identifier of the Hub; did you mean 'apache-2.0'?",
    ),
    Case(
        "`license: ours`",
        release(license="ours"),
        "release.license: 'ours' is not a license identifier of the Hub; for one that it does not list, write 'other'",
    ),
    Case(
        "`license: other` without a name",
        release(license="other"),
        "release: license 'other' needs license_name and license_link; license_name is missing",
    ),
    Case(
        "`license: other` without a link",
        release(license="other", license_name="ours"),
        "release: license 'other' needs license_name and license_link; license_link is missing",
    ),
    Case(
        "`license: mit` with a name of its own",
        release(license="mit", license_name="ours"),
        "release: license_name belongs to license 'other'",
    ),
    Case(
        "`language: [English]`",
        release(language=["English"]),
        "release.language.0: 'English' is not a language code of ISO 639; did you mean 'en'?",
    ),
    Case(
        "a language that is listed twice",
        release(language=["en", "de", "en"]),
        "release.language: 'en' is listed twice",
    ),
]
