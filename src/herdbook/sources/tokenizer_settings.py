"""The types of a tokenizer's ``tokenizer_config.json``, and the chat templates of a model.

Types are checked where the file is read, so that nothing else has to. Only keys that Herdbook reads have a type here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from herdbook import jsonio, limits
from herdbook.faults import told
from herdbook.sources.select import CHAT_TEMPLATE, TOKENIZER_CONFIG

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

DEFAULT = "default"  # the name of the template that is used


class _Strict(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class _Token(_Strict):
    """A token with the settings of the library tokenizers."""

    content: str
    lstrip: bool | None = None
    normalized: bool | None = None
    rstrip: bool | None = None
    single_word: bool | None = None
    special: bool | None = None


class _Template(_Strict):
    """One of several chat templates."""

    name: str
    template: str


Named = str | _Token
Id = Annotated[str, Field(pattern=r"^\d{1,10}$")]


class _Settings(_Strict):
    """The content of ``tokenizer_config.json``, or of ``special_tokens_map.json``; null stands for a key that is missing."""

    add_bos_token: bool | None = None
    add_eos_token: bool | None = None
    add_prefix_space: bool | None = None
    added_tokens_decoder: dict[Id, Named] | None = None
    additional_special_tokens: list[Named] | dict[str, Named] | None = None
    bos_token: Named | None = None
    chat_template: str | list[_Template] | None = None
    cls_token: Named | None = None
    eos_token: Named | None = None
    extra_special_tokens: list[Named] | dict[str, Named] | None = None
    mask_token: Named | None = None
    pad_token: Named | None = None
    sep_token: Named | None = None
    tokenizer_class: str | None = None
    unk_token: Named | None = None


def read_settings(content: bytes) -> dict[str, Any]:
    """Return the content of ``tokenizer_config.json``, or of ``special_tokens_map.json``.

    Raises:
        OverLimitError: If it is larger than any.
        JsonError: If it is not a JSON object, or values have another type than they must have; a line for each.
    """
    settings = jsonio.load_object(content, limits.DOCUMENT)
    try:
        _Settings.model_validate(settings)
    except ValidationError as error:
        raise jsonio.JsonError("\n".join(told(error, settings))) from error
    return settings


def read_templates(names: Collection[str], read: Callable[[str], bytes]) -> dict[str, str]:
    """Return the chat templates that transformers finds in a model's files, by name.

    Args:
        names: The names of the files.
        read: Returns the content of one of them.

    Raises:
        OverLimitError, JsonError: As ``read_settings``.
        UnicodeDecodeError: If a template is not UTF-8.
    """
    if CHAT_TEMPLATE in names:  # it replaces those in the settings
        found: Any = read(CHAT_TEMPLATE).decode("utf-8")
    else:
        found = (
            read_settings(read(TOKENIZER_CONFIG)).get("chat_template") if TOKENIZER_CONFIG in names else None
        )
    templates = (
        {one["name"]: one["template"] for one in found} if isinstance(found, list) else {DEFAULT: found}
    )
    return {name: template for name, template in templates.items() if template}
