"""The commands of other programs that run a release."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook.plan.edition import Edition
from herdbook.steps.card.choices import to_run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from herdbook.plan import Plan
    from herdbook.steps.card.choices import Choice

LOCAL = "path/to/this/folder"  # of a release that has no repository
QUESTION, START = "What is the capital of France?", "The capital of France is"


def commands(plan: Plan, choices: Sequence[Choice], *, loadable: bool) -> str:
    """Return the commands that run a release, one a line; those of llama.cpp for one file.

    Args:
        plan: The release's plan.
        choices: Its files.
        loadable: Whether transformers loads its weights.
    """
    file = to_run(choices)
    alone = plan.edition is Edition.GGUF
    return "\n".join(_lines(plan, file, plan.repo, weights=loadable and not alone))


def _lines(plan: Plan, file: Choice, repo: str | None, *, weights: bool) -> Iterator[str]:
    if file.method and repo:
        yield f"llama-server -hf {repo}:{file.method}"
        yield f"ollama run hf.co/{repo}:{file.method}"
    elif file.method and plan.released.chat_template:
        yield f'llama-cli --model {file.name} --prompt "{QUESTION}"'
    elif file.method:
        yield f'llama-completion --model {file.name} --prompt "{START}"'
    if weights:
        yield f"vllm serve {repo or LOCAL}  # not run by a test here"
    if repo:
        pattern = f"*{file.method}*" if plan.edition is Edition.GGUF else file.name
        chosen = f' --include "{pattern}"' if file.method else ""
        yield f"hf download {repo}{chosen} --local-dir ."
