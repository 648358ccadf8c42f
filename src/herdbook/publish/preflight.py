"""What speaks against publishing, all of it at once, before anything is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook import lock as locks
from herdbook.errors import HerdbookError, StepError
from herdbook.files import sha256_file
from herdbook.layout import CARD, LOCK, RECIPE
from herdbook.publish import licenses
from herdbook.publish.hub import name_problem

if TYPE_CHECKING:
    from herdbook.plan import Plan
    from herdbook.publish.hub import Repository
    from herdbook.publish.local import LocalRelease
    from herdbook.publish.proposal import RemoteState


def check_made_by(plan: Plan) -> None:
    """Raise StepError if the release that lies in a plan's place was made by another recipe or lock: it is not meant."""
    folder, recipe = plan.layout.release_folder, plan.recipe_path
    for name, path in ((RECIPE, recipe), (LOCK, locks.path_for(recipe))):
        if (folder / name).is_file() and sha256_file(folder / name) != sha256_file(path):
            raise StepError(
                f"{folder}: was made with another {name} than {path} is now. Run `snakemake` first, then publish."
            )


def of_release(release: LocalRelease, *, public: bool) -> list[str]:
    """Return what is wrong with a release itself: its files, the licences and the terms of what it is made from.

    Args:
        release: The release.
        public: Whether everybody will see it.
    """
    asked = release.recipe.publish
    found = list(release.problems)
    objections = licenses.problems(release.recipe, release.lock)
    if objections and not asked.licenses:
        found += objections
        found.append(
            "licences: change what is released, or, if somebody has looked and may answer for it, say so in the recipe: "
            "publish.licenses {by, because}"
        )
    gated = licenses.gated_sources(release.recipe, release.lock)
    if public and gated and not asked.gated:
        found += [
            f"models.{source} is gated; published, its weights would be open to everybody" for source in gated
        ]
        found.append(
            "gated sources: publish with `publish.private: true`, or, if their terms allow it, say who has read them in "
            "the recipe: publish.gated {by, because}"
        )
    return found


def of_name(repo: str | None) -> list[str]:
    """Return what is wrong with a repository's name."""
    if repo is None:
        return ["release.repo is missing: owner/name on the Hub (in the recipe, or --repo)"]
    problem = name_problem(repo)
    return [problem] if problem else []


def of_repository(release: LocalRelease, repository: Repository, there: RemoteState) -> list[str]:
    """Return what speaks against the repository as it is, and against the card as the Hub reads it."""
    asked = release.recipe.publish
    problem = visibility_problem(release, repository)
    found = [problem] if problem else []
    if there.head and asked.tag:
        problem = tag_problem(release, repository, asked.tag, repository.tags())
        found += [problem] if problem else []
    card = release.files.get(CARD)
    if card is None:
        found.append(f"{release.folder}: has no {CARD}")
    elif not isinstance(card.content, bytes):
        problem = repository.card_problem(card.content.read_text(encoding="utf-8"))
        found += [f"{CARD}: the Hub does not take its front matter: {problem}"] if problem else []
    return found


def of_account(repository: Repository) -> list[str]:
    """Return why this machine's token may not publish."""
    name, owner = repository.name, repository.name.partition("/")[0]
    try:
        account = repository.account()
    except StepError as error:
        return [f"token: {error}"]
    if account is None:
        return [
            "token: there is none. Log in with `hf auth login`, or set HF_TOKEN, with a token that may write."
        ]
    if owner not in account.owners:
        remedy = "Ask to be made a member, or name another repository."
        return [f"{name}: you are {account.name}, who may not write for {owner}. {remedy}"]
    if not account.may_write(name):
        remedy = (
            f"Make one that may on {repository.endpoint}/settings/tokens, and log in with `hf auth login`."
        )
        return [f"token: may not write to {name}. {remedy}"]
    return []


def visibility_problem(release: LocalRelease, repository: Repository) -> str | None:
    """Return why a repository is not for the people that the recipe wants, if it was looked at and is not."""
    asked = release.recipe.publish
    if repository.private in {None, asked.private}:
        return None
    return (
        f"{repository.name}: is {_visible(bool(repository.private))}, and publish.private is "
        f"{str(asked.private).lower()}. Change the recipe, or the repository on {repository.url}/settings."
    )


def tag_problem(release: LocalRelease, repository: Repository, tag: str, tags: dict[str, str]) -> str | None:
    """Return why a tag cannot be this release's: it is another's already."""
    if tag not in tags:
        return None
    try:
        held = repository.files(tag)
    except HerdbookError as error:
        return f"{repository.name}: the tag {tag} cannot be read: {error}"
    if all(file.is_same(held.get(name)) for name, file in release.files.items() if name in release.digests):
        return None
    return (
        f"{repository.name}: the tag {tag} is already at {tags[tag]}, which holds another release. A tag is not moved: give "
        "this version a tag of its own (publish.tag), or delete the old one by hand if nobody has used it."
    )


def _visible(private: bool) -> str:
    return "private" if private else "public"
