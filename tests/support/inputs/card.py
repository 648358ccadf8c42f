"""Licenses, keys and languages that the Hub would not accept on the card, sections and templates that it cannot have."""

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


def card(
    templates: dict[str, str], files: dict[str, bytes] | None = None, **sections: Any
) -> Callable[[Path], Path]:
    """Return a maker of a recipe with templates of its own, files beside it, and other sections."""

    def make(folder: Path) -> Path:
        tiny.write_model(folder / "base", seed=1)
        for name, content in (files or {}).items():
            (folder / name).write_bytes(content)
        for name, text in templates.items():
            (folder / "own").mkdir(exist_ok=True)
            (folder / "own" / name).write_text(text, encoding="utf-8")
        return tiny.write_recipe(
            folder / "recipe.yaml", {"base": {"folder": "base", "license": "llama3.1"}}, **sections
        )

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
        "a name without the word that a source's license demands at its start",
        card({}, release={"license": "llama3.1"}),
        "models.base: its license, llama3.1, demands a name that begins with 'Llama'; the release is called 'Tiny' (section 1.b.i)",
    ),
    Case(
        "another license than derived works of a source must have",
        card({}, release={"name": "Llama-herd"}),
        "models.base: its license, llama3.1, must also be that of derived works; release.license is apache-2.0 (section 1.b.i",
    ),
    Case(
        "`card: {sections: [opening, run-it]}`",
        card({}, card={"sections": ["opening", "run-it"]}),
        "card.sections.1: no section is named 'run-it'",
    ),
    Case(
        "a template of the card that calls something",
        card({"more.md.j2": "{{ f() }}"}, card={"sections": ["opening", "more"], "templates": "own"}),
        "card.templates: more.md.j2: line 1: calls something",
    ),
    Case(
        "a template of a section that the card does not have",
        card({"more.md.j2": "x"}, card={"sections": ["opening"], "templates": "own"}),
        "card.templates: more.md.j2: card.sections does not name 'more'",
    ),
    Case(
        "a picture of the card that is SVG by another name",
        card(
            {},
            {"herd.png": b"<svg onload='alert(1)'/>"},
            release={"image": {"file": "herd.png", "alt": "A herd", "license": "mit"}},
        ),
        "release.image.file: herd.png is not a picture in the format PNG",
    ),
    Case(
        "a signer with a fingerprint that is none",
        release(signer={"key": "4C9F"}),
        "release.signer.key: ",
    ),
    Case(
        "a signer with a key and an identity",
        release(signer={"key": "0" * 64, "identity": "me@example.org", "issuer": "https://example.org"}),
        "release.signer: needs either key, or identity and issuer",
    ),
    Case(
        "a signer with an identity that nobody confirms",
        release(signer={"identity": "me@example.org"}),
        "release.signer: needs either key, or identity and issuer",
    ),
    Case(
        "an intended use without words",
        release(uses={"intended": [""]}),
        "release.uses.intended.0: ",
    ),
    Case(
        "`publish: {replaces: old}`, without an owner",
        card({}, publish={"replaces": "old"}),
        "publish.replaces: ",
    ),
    Case(
        "`card: {hub: {pipeline_tag: chat}}`",
        card({}, card={"hub": {"pipeline_tag": "chat"}}),
        "card.hub.pipeline_tag: ",
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
