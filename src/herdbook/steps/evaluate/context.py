"""Whether a model's context holds the prompts of a task: lm-eval cuts longer ones at their start, with a warning at most."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from herdbook.errors import StepError
from herdbook.lock import SEED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

GENERATED = "generate_until"


def check_context(tasks: Iterable[Any], lm: Any, limit: int | None, options: Mapping[str, Any]) -> None:
    """Refuse solved examples of which a part would be cut off, before the model reads anything.

    Args:
        tasks: lm-eval's tasks and groups; configurations of tasks are not looked at.
        lm: lm-eval's model.
        limit: How many documents of each task are read; None for all.
        options: Further arguments of ``simple_evaluate``.

    Raises:
        StepError: If the context is too short for a prompt with solved examples.
    """
    for task in tasks:
        if isinstance(task, dict):
            continue
        for leaf in task.get_all_tasks() if hasattr(task, "get_all_tasks") else [task]:
            _check(leaf, lm, limit, options)


def _check(task: Any, lm: Any, limit: int | None, options: Mapping[str, Any]) -> None:
    given = options.get("num_fewshot")
    shots = task.config.num_fewshot if given is None else given
    if not shots:
        return
    templated = bool(options.get("apply_chat_template"))
    task.set_config("num_fewshot", shots)
    task.set_fewshot_seed(SEED)  # lm-eval draws again, with the same seed
    task.build_all_requests(
        limit=limit,
        system_instruction=options.get("system_instruction"),
        apply_chat_template=templated,
        fewshot_as_multiturn=bool(options.get("fewshot_as_multiturn")),
        chat_template=lm.apply_chat_template if templated else None,
    )
    for request in task.instances:
        room, text = _room(request, lm, options)
        if len(text.encode(errors="replace")) <= room:  # a token has a byte at least
            continue
        tokens = len(lm.tok_encode(text))
        if tokens > room:
            raise StepError(
                f"evaluate.tasks: {task.config.task}: num_fewshot: with {shots} solved examples, the prompt of document "
                f"{request.doc_id} has {tokens:,} tokens, and the model's context holds {max(0, room):,}. Ask with fewer "
                "examples, or leave the model out of evaluate.models."
            )


def _room(request: Any, lm: Any, options: Mapping[str, Any]) -> tuple[int, str]:
    """Return how many tokens of a request fit, and its text."""
    context, rest = request.args
    if request.request_type != GENERATED:
        return int(lm.max_length) + 1, context + rest  # the last token is only predicted
    given = {**rest, **(options.get("gen_kwargs") or {})}
    return int(lm.max_length) - int(given.get("max_gen_toks", lm.max_gen_toks)), context
