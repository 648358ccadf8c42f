"""Rendering a card: its sections in the recipe's order, from Herdbook's templates and the recipe's own."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from jinja2 import TemplateError, TemplateNotFound

from herdbook import humanize
from herdbook.architectures.mixtures import BY_MODEL_TYPE
from herdbook.comparison.verdict import too_few
from herdbook.errors import StepError
from herdbook.escape import (
    FILTERS,
    Markdown,
    code,
    codes,
    fenced,
    file_link,
    link,
    md,
    only_escaped,
    quoted,
    titled,
)
from herdbook.layout import LINEAGE_FIGURE, MEASUREMENTS_FIGURE, ROUTING_FIGURE, SPECTRUM_FIGURE
from herdbook.lock import check_pinned
from herdbook.plan.quantize import note_of
from herdbook.provenance.slsa import HUB_PAGES
from herdbook.quantization.schemes import SCHEMES
from herdbook.recipe import Compress
from herdbook.sources.card_template import problem
from herdbook.steps.card import results
from herdbook.steps.card.anchors import anchor, resolved
from herdbook.steps.card.choices import TOLERATED
from herdbook.steps.card.commands import LOCAL, QUESTION, START
from herdbook.tools.installed import (
    CARD_TEMPLATE,
    GGUF_CARD_TEMPLATE,
    SCHEME_CARD_TEMPLATE,
    card_templates,
    homepage,
)
from herdbook.weights.compressed import LAYOUTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    import jinja2

    from herdbook.plan import Plan
    from herdbook.quantization.scheme import Scheme
    from herdbook.steps.card.context import Facts


@functools.cache  # it keeps the compiled templates, and compiles those again whose files have changed
def environment(folder: Path) -> jinja2.Environment:
    """Return Jinja's environment for cards: undefined variables and unescaped text are errors, and a sandbox holds all."""
    import jinja2
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(  # the output is Markdown; `finalize` enforces its escaping
        loader=jinja2.FileSystemLoader(folder),
        undefined=jinja2.StrictUndefined,
        finalize=only_escaped,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,  # so that a section ends with its empty line
    )
    environment.filters.update(
        md=md,
        code=code,
        fenced=fenced,
        quoted=quoted,
        link=link,
        titled=titled,
        file_link=file_link,
        codes=codes,
        titles=lambda names: Markdown(humanize.joined(md(name) for name in names)),
        commas=_markdown(humanize.integer),
        amount=_markdown(humanize.amount),
        size=_markdown(humanize.size),
        fixed=_markdown(humanize.fixed),
        signed=_markdown(humanize.signed),
        percent=_markdown(humanize.percent),
        anchor=anchor,
        score=lambda measured, column: measured.score(column),
        places=_markdown(lambda numbers: humanize.joined(str(number) for number in numbers)),
    )
    return environment


def _markdown(formatted: Callable[..., str]) -> Callable[..., Markdown]:
    """Return a template filter that formats numbers; digits, signs and units need no escaping."""
    return lambda *values: Markdown(formatted(*values))


def render_text(facts: Facts, folder: Path | None = None, own: Mapping[str, str] | None = None) -> str:
    """Return the card's text.

    Args:
        facts: The facts that it states.
        folder: The templates' folder; None for the usual one.
        own: Templates of the recipe's own, by section.

    Raises:
        StepError: If a section needs a fact that does not exist, or prints text that no filter has escaped; or if a template of
            the recipe's own does what none may.
    """
    templates = environment((folder or card_templates()).resolve())
    known = _known(facts)
    sections = []
    for name in facts.recipe.card.sections:
        if own and name in own and (wrong := problem(own[name], FILTERS)):
            raise StepError(f"card: section {name!r}: its template is refused: {wrong}")
        try:
            template = (
                templates.from_string(own[name])
                if own and name in own
                else templates.get_template(f"sections/{name}.md.j2")
            )
            sections.append(template.render(known))
        except TemplateNotFound as error:
            raise StepError(f"card: no section is named {name!r}") from error
        except (StepError, TemplateError, TypeError, ValueError) as error:
            raise StepError(f"card: section {name!r}: {str(error).removeprefix('card: ')}") from error
    whole = templates.get_template(CARD_TEMPLATE).render(known | {"sections": Markdown("".join(sections))})
    text = resolved(whole)
    for words in facts.built_with:
        if md(words) not in text:
            raise StepError(
                f"card: section 'opening': does not display {words!r}, as a source's license demands"
            )
    return text.rstrip("\n") + "\n"


def render_quantized(facts: Facts, plan: Plan) -> str:
    """Return the text of the card of a repository with the quantized files alone. Raises as ``render_text``."""
    known = _known(facts) | {
        "title": plan.title,
        "repo": Markdown(plan.repo or ""),
        "weights_page": f"{HUB_PAGES}/{facts.recipe.release.repo}",
        "imatrix": plan.imatrix.file if plan.imatrix else None,
    }
    return _rendered(GGUF_CARD_TEMPLATE, known)


def render_encoded(facts: Facts, plan: Plan, scheme: Scheme) -> str:
    """Return the text of the card of a repository with the model in a format for GPU servers or Macs. Raises as ``render_text``."""
    assert isinstance(plan.released.recipe, Compress)  # noqa: S101 - as of every release in such a format
    encoded = plan.nodes[plan.released.recipe.compress]
    known = _known(facts) | {
        "title": plan.title,
        "repo": Markdown(plan.repo or LOCAL),
        "weights_page": f"{HUB_PAGES}/{facts.recipe.release.repo}",
        "scheme": scheme,
        "share": plan.released.size_bytes / encoded.size_bytes,
        "prompt": QUESTION if plan.released.chat_template else START,
        "is_mixture": plan.released.config.get("model_type") in BY_MODEL_TYPE,
        "limits": LAYOUTS[scheme.library].warnings(plan.released.config),
    }
    return _rendered(SCHEME_CARD_TEMPLATE, known)


def _rendered(template: str, known: Mapping[str, object]) -> str:
    try:
        text = environment(card_templates().resolve()).get_template(template).render(known)
    except (TemplateError, TypeError, ValueError) as error:
        raise StepError(f"card: {template}: {error}") from error
    return text.rstrip("\n") + "\n"


def _known(facts: Facts) -> dict[str, object]:
    """Return the variables of the templates."""
    return {
        "facts": facts,
        "release": facts.recipe.release,
        "best": [results.best(facts.measurements, column) for column in facts.columns],
        "metrics": list(_metrics(facts)),
        "gaps": results.gaps(facts.measurements, facts.columns),
        "too_few": too_few([row.comparison for row in facts.comparisons]),
        "tolerated": TOLERATED,
        "gguf_note": note_of(facts.released.config) if any(choice.method for choice in facts.choices) else "",
        "herdbook_page": homepage(),
        # the recipe allows nothing to be escaped
        "where": Markdown(facts.recipe.release.repo or LOCAL),
        "scheme_repos": [
            (scheme, repo, f"{HUB_PAGES}/{repo}")
            for scheme, repo in facts.recipe.publish.scheme_repos.items()
        ],
        "for_macs": [name for name, scheme in SCHEMES.items() if scheme.library == "mlx"],
        "gguf_repo": facts.recipe.publish.gguf_repo,
        "gguf_page": f"{HUB_PAGES}/{facts.recipe.publish.gguf_repo}",
        "lineage": LINEAGE_FIGURE,
        "measurements_figure": MEASUREMENTS_FIGURE,
        "spectrum_figure": SPECTRUM_FIGURE,
        "routing_figure": ROUTING_FIGURE,
    }


def own_templates(plan: Plan) -> dict[str, str]:
    """Return the templates of a recipe's own, by section. Raises LockError if one changed since it was locked."""
    texts = {}
    for name, pinned in plan.lock.templates.items():
        path = plan.beside_recipe(pinned.name)
        check_pinned(path, pinned, f"card.sections {name}")
        texts[name] = path.read_text(encoding="utf-8")
    return texts


def _metrics(facts: Facts) -> Iterator[tuple[str, str]]:
    """Yield each main metric of the table with its explanation, if it has one."""
    for kind in dict.fromkeys(column.score.kind for column in facts.columns):
        if kind in results.METRIC_WORDS:
            yield results.METRIC_NAMES.get(kind, kind.replace("_", " ")), results.METRIC_WORDS[kind]
