"""Licenses and languages that the Hub would not accept on the card, and chat templates that do not exist."""

from __future__ import annotations

import json
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


def templates(tokenizer_config: dict[str, Any], **mixture: Any) -> Callable[[Path], Path]:
    """Return a maker of a mixture with ``chat_template: true``, whose base has these settings in its tokenizer's."""

    def make(folder: Path) -> Path:
        for seed, name in enumerate(("base", "other"), start=1):
            tiny.write_model(folder / name, seed=seed)
        (folder / "other/chat_template.jinja").write_text("{{ messages[0].content }}", encoding="utf-8")
        path = folder / "base/tokenizer_config.json"
        settings = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps({**settings, **tokenizer_config}), encoding="utf-8")
        experts = [{"model": "base", "prompts": ["w1"]}, {"model": "other", "prompts": ["w2"]}]
        moe = {"base": "cut", "experts": experts, "chat_template": True, **mixture}
        models = {
            **{name: {"folder": name} for name in ("base", "other")},
            "cut": {"laser": "base", "rank": {"fraction": 0.5}, "matrices": ["mlp.down_proj"]},
            "mix": {"moe": moe},
        }
        return tiny.write_recipe(folder / "recipe.yaml", models)

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
    Case(
        "`chat_template: true` on a base without one",
        templates({}),
        "models.mix.moe.chat_template: the tokenizer of 'cut' has no chat template",
    ),
    Case(
        "`chat_template: true` on a base that has several and no default",
        templates({"chat_template": [{"name": "rag", "template": "{{ messages }}"}]}),
        "models.mix.moe.chat_template: the tokenizer of 'cut' has no chat template",
    ),
    Case(
        "`chat_template: true` with a `tokenizer` without one",
        templates({}, base="other", tokenizer="base"),
        "models.mix.moe.chat_template: the tokenizer of 'base' has no chat template",
    ),
]
