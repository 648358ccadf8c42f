"""What a release cites, as BibTeX: the papers of the methods that made it, and its sources."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from herdbook.escape import one_line
from herdbook.recipe import Adapter, Laser, Merge, Modular, Moe

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from herdbook.plan import Node
    from herdbook.steps.card.origins import Source


@dataclass(frozen=True)
class Paper:
    """A paper, by its first author's name, the year, and its number on arXiv or the journal that printed it."""

    key: str
    title: str
    author: str
    year: int
    arxiv: str = ""
    journal: str = ""

    def entry(self) -> str:
        """Return its entry."""
        place = (
            {"eprint": self.arxiv, "archivePrefix": "arXiv"} if self.arxiv else {"howpublished": self.journal}
        )
        return _entry(self.key, {"title": self.title, "author": self.author, "year": str(self.year), **place})


LASER = Paper(
    "sharma2023laser",
    "The Truth is in There: Improving Reasoning in Language Models with Layer-Selective Rank Reduction",
    "Pratyusha Sharma and Jordan T. Ash and Dipendra Misra",
    2023,
    "2312.13558",
)
MIXTURE = Paper(
    "shazeer2017outrageously",
    "Outrageously Large Neural Networks: The Sparsely-Gated Mixture-of-Experts Layer",
    "Noam Shazeer and Azalia Mirhoseini and Krzysztof Maziarz and Andy Davis and Quoc Le and Geoffrey Hinton and Jeff Dean",
    2017,
    "1701.06538",
)
LORA = Paper(
    "hu2021lora",
    "LoRA: Low-Rank Adaptation of Large Language Models",
    "Edward J. Hu and others",
    2021,
    "2106.09685",
)
TIES = Paper(
    "yadav2023ties",
    "TIES-Merging: Resolving Interference When Merging Models",
    "Prateek Yadav and others",
    2023,
    "2306.01708",
)
DARE = Paper(
    "yu2023dare",
    "Language Models are Super Mario: Absorbing Abilities from Homologous Models as a Free Lunch",
    "Le Yu and others",
    2023,
    "2311.03099",
)
SLERP = Paper(
    "shoemake1985slerp",
    "Animating Rotation with Quaternion Curves",
    "Ken Shoemake",
    1985,
    journal="Computer Graphics (SIGGRAPH) 19(3)",
)
BREADCRUMBS = Paper(
    "davari2023breadcrumbs",
    "Model Breadcrumbs: Scaling Multi-Task Model Merging with Sparse Masks",
    "MohammadReza Davari and Eugene Belilovsky",
    2023,
    "2312.06795",
)
DELLA = Paper(
    "deep2024della",
    "DELLA-Merging: Reducing Interference in Model Merging through Magnitude-Based Sampling",
    "Pala Tej Deep and others",
    2024,
    "2406.11617",
)
MERGEKIT = Paper(
    "goddard2024mergekit",
    "Arcee's MergeKit: A Toolkit for Merging Large Language Models",
    "Charles Goddard and others",
    2024,
    "2403.13257",
)
# The papers of merge methods; the others are mergekit's own.
METHODS = {
    "linear": (
        Paper(
            "wortsman2022soups",
            "Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing inference time",
            "Mitchell Wortsman and others",
            2022,
            "2203.05482",
        ),
    ),
    "slerp": (SLERP,),
    "task_arithmetic": (
        Paper(
            "ilharco2022task",
            "Editing Models with Task Arithmetic",
            "Gabriel Ilharco and others",
            2022,
            "2212.04089",
        ),
    ),
    "ties": (TIES,),
    "dare_linear": (DARE,),
    "dare_ties": (DARE, TIES),
    "model_stock": (
        Paper(
            "jang2024stock",
            "Model Stock: All we need is just a few fine-tuned models",
            "Dong-Hwan Jang and others",
            2024,
            "2403.19522",
        ),
    ),
    "breadcrumbs": (BREADCRUMBS,),
    "breadcrumbs_ties": (BREADCRUMBS, TIES),
    "della": (DELLA,),
    "della_linear": (DELLA,),
    "sce": (
        Paper(
            "wan2024fusechat",
            "FuseChat: Knowledge Fusion of Chat Models",
            "Fanqi Wan and others",
            2024,
            "2408.07990",
        ),
    ),
}


def citations(nodes: Iterable[Node], sources: Iterable[Source]) -> str:
    """Return the entries of a release, in BibTeX, each once.

    Args:
        nodes: The released model and its ancestors.
        sources: Its sources.
    """
    papers = dict.fromkeys(paper for node in nodes for paper in _papers(node))
    found = [paper.entry() for paper in papers]
    for number, source in enumerate({source.uri: source for source in sources}.values(), start=1):
        name = re.sub(r"[^A-Za-z0-9]", "", source.place) or str(number)
        place = {"howpublished": rf"\url{{{source.page}}}"} if source.page else {}
        owner = {"author": f"{{{_tex(source.place.partition('/')[0])}}}"} if source.page else {}
        fields = {
            "title": f"{{{_tex(source.place)}}}",
            **owner,
            **place,
            "note": f"pinned to {source.pin[:12]}",
        }
        found.append(_entry(f"source{number}{name}", fields))
    return "\n".join(found)


def _papers(node: Node) -> Iterator[Paper]:
    match node.recipe:
        case Laser():
            yield LASER
        case Moe():
            yield MIXTURE
        case Adapter():
            yield LORA
        case Merge(merge=Modular() as merge):
            for one in merge.modules.values():
                yield from METHODS.get(one.method, (MERGEKIT,))
        case Merge() as model:
            yield from METHODS.get(model.merge.method, (MERGEKIT,))


def _entry(key: str, fields: dict[str, str]) -> str:
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items()]
    return "\n".join([f"@misc{{{key},", *lines[:-1], lines[-1].rstrip(","), "}"])


def _tex(text: str) -> str:
    """Return text on one line, in which no character has a meaning for TeX."""
    return re.sub(r"[\\{}$&#^_%~]", lambda match: rf"\char{ord(match[0])} ", one_line(text))
