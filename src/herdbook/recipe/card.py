"""The section of a recipe on its card: which sections it has, templates of its own, and the Hub's keys."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from herdbook.recipe.hub_values import unique
from herdbook.recipe.section import Section

# In the order of the card; each is a template, `templates/sections/NAME.md.j2`.
SECTIONS = (
    "opening",
    "files",
    "run",
    "results",
    "rank",
    "suites",
    "trust",
    "lineage",
    "licenses",
    "details",
    "uses",
    "changes",
    "moe",
    "routing",
    "laser",
    "search",
    "measurements",
    "recipe",
    "digests",
    "citations",
)
SECTION_PATTERN = r"^[a-z0-9][a-z0-9_-]*$"
TEMPLATE_SUFFIX = ".md.j2"
SectionName = Annotated[str, Field(pattern=SECTION_PATTERN)]
Text = Annotated[str, Field(min_length=1)]
REPO_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9_.-]*/[A-Za-z0-9_][A-Za-z0-9_.-]*$"
REPO_AT_PATTERN = REPO_PATTERN.removesuffix("$") + r"(@[A-Za-z0-9_./-]+)?$"
Repo = Annotated[str, Field(pattern=REPO_PATTERN)]
DataSet = Annotated[str, Field(pattern=r"^(?:[A-Za-z0-9_][\w.-]*/)?[A-Za-z0-9_][\w.-]*$")]
Tag = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.:_-]*$")]
# Source: https://huggingface.co/tasks, those of models of text
PipelineTag = Literal[
    "any-to-any",
    "feature-extraction",
    "fill-mask",
    "image-text-to-text",
    "question-answering",
    "sentence-similarity",
    "summarization",
    "table-question-answering",
    "text-classification",
    "text-generation",
    "text-ranking",
    "token-classification",
    "translation",
    "zero-shot-classification",
]


class Choice(Section):
    """A field of the form before a gated model, from whose options one is chosen."""

    type: Literal["select"]
    options: list[Text] = Field(min_length=1)


class Example(Section):
    """An example of the widget beside a card."""

    text: Text
    example_title: Text | None = None


class HubKeys(Section):
    """Keys of a card's front matter that the Hub reads, as far as they do not follow from the build."""

    tags: Annotated[list[Tag], AfterValidator(unique)] = Field([], description="tags beyond the build's own")
    datasets: Annotated[list[DataSet], AfterValidator(unique)] = Field(
        [], description="data sets of the Hub that the sources were trained on, as their authors state"
    )
    pipeline_tag: PipelineTag | None = Field(
        None, description="the task that the Hub lists it under; what the model is made for if left out"
    )
    thumbnail: str | None = Field(None, pattern=r"^https://\S+$", description="address of a picture")
    new_version: Repo | None = Field(None, description="the repository of a newer model")
    widget: list[Example] = Field([])
    inference: bool | None = None
    extra_gated_heading: Text | None = None
    extra_gated_prompt: Text | None = None
    extra_gated_description: Text | None = None
    extra_gated_button_content: Text | None = None
    extra_gated_eu_disallowed: bool | None = None
    extra_gated_fields: dict[
        Text, Literal["text", "checkbox", "date_picker", "country", "ip_location"] | Choice
    ] = Field({})


class Card(Section):
    """The card's sections and front matter."""

    sections: Annotated[list[SectionName], AfterValidator(unique)] = Field(
        list(SECTIONS),
        min_length=1,
        description="the card's sections, in order; those not named are left out",
    )
    templates: str | None = Field(
        None,
        min_length=1,
        description=f"folder of templates, NAME{TEMPLATE_SUFFIX}: in place of a section of that name, or for one more",
    )
    hub: HubKeys = Field(HubKeys())


class Image(Section):
    """The picture at the top of the card."""

    file: str = Field(
        pattern=r"\.(?:png|jpe?g|webp|gif)$",
        description="its file, relative to the recipe: PNG, JPEG, WebP or GIF",
    )
    alt: Text = Field(description="what it shows, in words")
    license: Text = Field(description="the license of the picture")
    source: str | None = Field(None, description="who made it, or where it is from")
