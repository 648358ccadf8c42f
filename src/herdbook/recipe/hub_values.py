"""The licenses and languages that a model card on the Hub may name. Recipes and the card's front matter are checked by them."""

from __future__ import annotations

import locale
import re
from typing import Annotated

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator

from herdbook.humanize import did_you_mean
from herdbook.recipe.section import Section

# A license that is not in the list; `license_name` and `license_link` identify it.
OTHER = "other"
# Source: https://huggingface.co/docs/hub/repositories-licenses
_LICENSES = """
afl-3.0 agpl-3.0 apache-2.0 apple-amlr apple-ascl artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0
bigscience-openrail-m bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5
cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0
cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0
cdla-permissive-2.0 cdla-sharing-1.0 creativeml-openrail-m deepfloyd-if-license ecl-2.0 epl-1.0 epl-2.0
etalab-2.0 eupl-1.1 eupl-1.2 fair-noncommercial-research-license gemma gfdl gpl gpl-2.0 gpl-3.0 grok2-community
h-research intel-research isc lgpl lgpl-2.1 lgpl-3.0 lgpl-lr llama2 llama3 llama3.1 llama3.2 llama3.3 llama4
lppl-1.3c mit mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1 openmdw-1.0 openmdw-1.1 openrail openrail++ osl-3.0 other
pddl postgresql unknown unlicense wtfpl zlib
"""
# ISO 639-1. Codes of three letters (ISO 639-2 and 639-3) are too many for a list.
_LANGUAGES = """
aa ab ae af ak am an ar as av ay az ba be bg bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz ee el en
eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik io is it iu ja
jv ka kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb
nd ne ng nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg sh si sk sl sm sn so
sq sr ss st su sv sw ta te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu
"""
LICENSES = tuple(_LICENSES.split())
LANGUAGES = frozenset(_LANGUAGES.split())
SPECIAL_LANGUAGES = ("code", "multilingual")
_THREE_LETTERS = re.compile(r"[a-z]{3}")


def _license(identifier: str) -> str:
    if identifier not in LICENSES:
        advice = did_you_mean(identifier.lower(), LICENSES)
        advice = advice or f"; for one that it does not list, write {OTHER!r}, license_name and license_link"
        raise ValueError(f"{identifier!r} is not a license identifier of the Hub{advice}")
    return identifier


def _language(code: str) -> str:
    if code in LANGUAGES or code in SPECIAL_LANGUAGES or _THREE_LETTERS.fullmatch(code):
        return code
    # Locales are known by the English names of languages, too, and with a country.
    guess = locale.normalize(code.replace("-", "_")).partition("_")[0].lower()
    advice = f"; did you mean {guess!r}?" if guess in LANGUAGES else did_you_mean(code, SPECIAL_LANGUAGES)
    raise ValueError(f"{code!r} is not a language code of ISO 639{advice}")


def unique(names: list[str]) -> list[str]:
    """Return a list without repetitions. Raises ValueError if it has some."""
    repeated = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if repeated:
        raise ValueError(f"{repeated[0]!r} is listed twice")
    return names


License = Annotated[str, AfterValidator(_license), WithJsonSchema({"enum": list(LICENSES)})]
Language = Annotated[
    str,
    AfterValidator(_language),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": [*sorted(LANGUAGES), *SPECIAL_LANGUAGES]},
                {"pattern": f"^{_THREE_LETTERS.pattern}$"},
            ]
        }
    ),
]
Languages = Annotated[list[Language], Field(min_length=1), AfterValidator(unique)]


class Licensed(Section):
    """What has a license: one that the Hub lists, or another one with its name and address."""

    license: License = Field(
        description=f"license of the release, by the Hub's identifier, such as apache-2.0, or {OTHER}"
    )
    license_name: str | None = Field(
        None, pattern=r"^[a-z0-9][a-z0-9.-]*$", description=f"with {OTHER}: the license's short name"
    )
    license_link: str | None = Field(
        None,
        pattern=r"^(https://\S+|LICEN[SC]E(\.(md|txt))?)$",
        description=f"with {OTHER}: the address of the license's text, or LICENSE, a file in the same repository",
    )

    @model_validator(mode="after")
    def _license_is_named(self) -> Licensed:
        for key in ("license_name", "license_link"):
            if self.license == OTHER and getattr(self, key) is None:
                raise ValueError(f"license {OTHER!r} needs license_name and license_link; {key} is missing")
            if self.license != OTHER and getattr(self, key) is not None:
                raise ValueError(
                    f"{key} belongs to license {OTHER!r}; {self.license!r} has its name on the Hub. Leave it out"
                )
        return self
