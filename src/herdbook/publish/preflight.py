"""Problems that prevent publishing: all are reported together, before anything is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from huggingface_hub import get_token

from herdbook import hub, yamlio
from herdbook.errors import HerdbookError, RecipeError, StepError
from herdbook.humanize import plural
from herdbook.layout import CARD, SIGNATURE, SUMS
from herdbook.lock import paths
from herdbook.plan.licensing import check_licenses, gated_sources, unknown_licenses
from herdbook.plan.release import other_origin
from herdbook.publish.hub import Publisher, name_problem
from herdbook.release.places import is_accepted
from herdbook.sources.card import front_matter

if TYPE_CHECKING:
    from herdbook.plan import Plan
    from herdbook.publish.hub import Repository
    from herdbook.publish.local import LocalRelease
    from herdbook.publish.proposal import Proposal, RemoteState

_NAMED = 5  # of the files of a problem


def check_made_by(plan: Plan) -> None:
    """Raise StepError if the release in a plan's folder was made with another recipe or lock than the plan's."""
    folder = plan.layout.release_folder
    if other := other_origin(folder, plan.recipe_path):
        name, path = other
        raise StepError(
            f"{folder}: was made with another {name} than the current {path}. Run `snakemake` first, then publish. If it finds nothing "
            f"to be done, delete {folder / SUMS} before."
        )


def of_release(release: LocalRelease, *, public: bool) -> list[str]:
    """Return the problems of a release itself: its files, and the licenses and terms of its sources.

    Args:
        release: The release.
        public: Whether everyone will see it.
    """
    settings = release.recipe.publish
    problems = [*release.problems, *_absolute(release)]
    problems += unknown_licenses(release.recipe, release.lock)
    try:
        check_licenses(release.recipe, release.lock)
    except RecipeError as error:  # a release of an earlier version
        problems += error.problems
    named = release.recipe.release.signer
    if named and SIGNATURE not in release.files:
        problems.append(
            f"{release.folder}: is not signed, and its card names who signs it (release.signer: {named}). Sign it with `herdbook attest`"
        )
    gated = gated_sources(release.recipe, release.lock)
    if public and gated and not settings.gated:
        problems += [
            f"models.{source} is gated; publishing would give everyone access to its weights"
            for source in gated
        ]
        problems.append(
            "gated sources: publish with `publish.private: true`, or, if their terms allow it, state in the recipe who has "
            "read them: publish.gated {by, because}"
        )
    return problems


def _absolute(release: LocalRelease) -> list[str]:
    """Return the absolute paths in recipe and lock. Since `herdbook lock` refuses them, only old releases contain any."""
    found = [
        *paths.named(release.recipe),
        *(
            (f"evaluate.tasks: {task.name}", file.name)
            for task in release.lock.tasks.values()
            for file in task.data
        ),
    ]
    return [
        f"{where}: {path} is a path on this machine, and everyone would see it. Name it relative to the recipe (link or move "
        "the file or folder if necessary), run `herdbook lock`, and rebuild"
        for where, path in found
        if paths.is_absolute(path)
    ]


def of_name(repo: str | None) -> list[str]:
    """Return the problems of a repository's name."""
    if repo is None:
        return ["release.repo is missing: owner/name on the Hub (in the recipe, or --repo)"]
    problem = name_problem(repo)
    return [problem] if problem else []


def of_card(release: LocalRelease) -> list[str]:
    """Return the problems of the card that are known without the Hub, which judges its values later."""
    card = release.files.get(CARD)
    if card is None:
        return [f"{release.folder}: has no {CARD}"]
    content = card.read()
    try:
        content.decode()
        front_matter(content)
    except UnicodeDecodeError:
        return [f"{release.folder / CARD}: is not a text in UTF-8"]
    except yamlio.YamlError as error:
        return [f"{release.folder / CARD}: its front matter{error}"]
    return []


def of_repository(release: LocalRelease, repository: Repository, remote: RemoteState) -> list[str]:
    """Return the problems of the repository's current state, and those that the Hub has with the card, which can be read."""
    settings = release.recipe.publish
    problem = visibility_problem(release, repository)
    problems = [problem] if problem else []
    if remote.head and settings.tag:
        problem = tag_problem(release, repository, settings.tag, repository.tags())
        problems += [problem] if problem else []
    problem = repository.card_problem(release.files[CARD].read().decode())
    return [*problems, *([f"{CARD}: the Hub rejects its front matter: {problem}"] if problem else [])]


def of_kept(proposal: Proposal, remote: RemoteState, where: str) -> list[str]:
    """Return the problem with files that publishing would keep: `herdbook verify` accepts few that a release does not list.

    Args:
        proposal: The change that publishing would make.
        remote: The state before it.
        where: The repository or folder, for the message.
    """
    faulty = [file.name for file in proposal.kept if not is_accepted(remote, file.name)]
    if not faulty:
        return []
    more = f" and {plural(len(faulty) - _NAMED, 'other file')}" if len(faulty) > _NAMED else ""
    names = ", ".join(faulty[:_NAMED])
    problem = (
        f"{where}: contains {names}{more}, not of this release. Publishing keeps what is not Herdbook's, and `herdbook verify` "
        "fails if a copy of a release contains what it does not list. Delete it there, or move it elsewhere"
    )
    return [problem]


def of_token(repo: str) -> list[str]:
    """Return why this machine has no token for a repository, as far as that is known without the Hub."""
    resource = hub.resource()
    if resource and resource != repo:
        remedy = f"Set it to {repo}, and add this CI to the trusted publishers on {hub.client().endpoint}/{repo}/settings."
        return [f"token: {hub.RESOURCE} is {resource}, whose token may not write to {repo}. {remedy}"]
    if not resource and not get_token():
        return [
            "token: none is configured. Log in with `hf auth login`, or set HF_TOKEN, with a token that may write."
        ]
    return []


def of_account(repository: Repository) -> list[str]:
    """Return why the token on this machine may not publish."""
    name, owner = repository.name, repository.name.partition("/")[0]
    if problems := of_token(name):
        return problems
    try:
        account = repository.account()
    except StepError as error:
        return [f"token: {error}"]
    if account is None or isinstance(account, Publisher):
        return []
    if owner not in account.owners:
        remedy = "Ask the owner to add you, or choose another repository."
        return [f"{name}: you are logged in as {account.name}, who may not write to {owner}. {remedy}"]
    if not account.may_write(name):
        remedy = (
            f"Create one that may on {repository.endpoint}/settings/tokens, and log in with `hf auth login`."
        )
        return [f"token: may not write to {name}. {remedy}"]
    return []


def visibility_problem(release: LocalRelease, repository: Repository) -> str | None:
    """Return how a repository's visibility differs from the recipe's; None if it does not, or was not read yet."""
    settings = release.recipe.publish
    if repository.private in {None, settings.private}:
        return None
    return (
        f"{repository.name}: is {_visible(bool(repository.private))}, but publish.private is "
        f"{str(settings.private).lower()}. Change the recipe, or the repository on {repository.url}/settings."
    )


def tag_problem(release: LocalRelease, repository: Repository, tag: str, tags: dict[str, str]) -> str | None:
    """Return why a tag cannot mark this release: it marks another one already. None if it can."""
    if tag not in tags:
        return None
    try:
        tagged = repository.files(tag)
    except HerdbookError as error:
        return f"{repository.name}: the tag {tag} cannot be read: {error}"
    if all(file.is_same(tagged.get(name)) for name, file in release.files.items() if name in release.digests):
        return None
    return (
        f"{repository.name}: the tag {tag} is already at {tags[tag]}, which contains another release. A tag is never moved: choose "
        "another tag for this version (publish.tag), or delete the old one manually if it has not been used."
    )


def _visible(private: bool) -> str:
    return "private" if private else "public"
