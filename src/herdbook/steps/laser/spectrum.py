"""Spectra of any checkpoint's matrices, one matrix at a time: what every rank rule would do, before anything is made."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from herdbook.errors import SourceError
from herdbook.escape import xml
from herdbook.figures import Cut, draw_heatmap, draw_spectrum
from herdbook.hub.tensors import open_tensors
from herdbook.inference.threads import one_thread_a_matrix
from herdbook.progress import track
from herdbook.recipe import rank_rule
from herdbook.steps.laser.decompose import singular_values
from herdbook.steps.laser.evidence import describe_spectrum, is_noise
from herdbook.steps.laser.law import noise_law
from herdbook.steps.laser.rank import keep
from herdbook.weights.tensors import DTYPES, from_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from herdbook.weights.checkpoint import Span

RULES = tuple(map(rank_rule, ("mp-edge", "gavish-donoho", "laser-rmt", {"energy": 0.99})))
IN_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.(.+?)(?:\.weight)?$")
POINTS = 200  # of a curve


@dataclass(frozen=True)
class Matrix:
    """A matrix of a checkpoint's layer.

    Args:
        name: Its name.
        layer: The layer's number.
        kind: Its name inside the layer.
        span: Its dtype, shape and place.
        read: Reads its bytes.
    """

    name: str
    layer: int
    kind: str
    span: Span
    read: Callable[[], bytes]


@dataclass(frozen=True)
class Spectrum:
    """A matrix's singular values, descending, and what they say; see ``describe_spectrum``."""

    matrix: Matrix
    values: np.ndarray
    summary: dict[str, Any]

    @property
    def cuts(self) -> tuple[Cut, ...]:
        """Where each rule would cut."""
        kept = [(rule, keep(rule, self.values, *self.matrix.span.shape)) for rule in RULES]
        return tuple(Cut(rule.label, found.rank, found.threshold) for rule, found in kept)

    def share(self, cut: Cut) -> float:
        """Return the share of the rank that a rule would keep."""
        return cut.rank / len(self.values)


def matrices(model: str, wanted: Sequence[str], layers: Callable[[int], bool]) -> list[Matrix]:
    """Find a checkpoint's matrices.

    Args:
        model: A folder, a safetensors file, or ``owner/name``, optionally ``@revision``, on the Hub: nothing is
            downloaded as a whole then, each matrix is read by a range request when its turn comes.
        wanted: Patterns of names inside a layer, such as ``mlp.*``; none for all.
        layers: Says whether a layer is wanted.

    Returns:
        All matrices of two dimensions inside layers, layer by layer.

    Raises:
        SourceError: If there is no such checkpoint, or nothing in it is wanted.
    """
    found = []
    for span, read in open_tensors(model):
        place = IN_LAYER.search(span.name)
        if place is None or len(span.shape) != 2 or 0 in span.shape or span.dtype not in DTYPES:
            continue
        kind = place[2]
        if layers(int(place[1])) and (not wanted or any(fnmatchcase(kind, pattern) for pattern in wanted)):
            found.append(Matrix(span.name, int(place[1]), kind, span, read))
    if not found:
        raise SourceError(f"{model}: has no matrix in its layers that is asked for")
    return sorted(found, key=lambda matrix: (matrix.layer, matrix.kind))


def spectra(found: Sequence[Matrix], threads: int = 1, device: str = "cpu") -> Iterator[Spectrum]:
    """Yield the spectrum of each matrix, in order; no more matrices are held than there are threads.

    Raises:
        CheckpointError: If a matrix holds NaN or infinite values; it is named.
    """

    def one(matrix: Matrix) -> Spectrum:
        tensor = from_bytes(matrix.read(), matrix.span.dtype, matrix.span.shape, matrix.name)
        values = singular_values(tensor, device)
        return Spectrum(matrix, values, describe_spectrum(values, *matrix.span.shape))

    with (
        one_thread_a_matrix(),
        ThreadPoolExecutor(threads) as pool,
        track("spectra", len(found)) as advance,
    ):
        for start in range(0, len(found), threads):
            for spectrum in pool.map(one, found[start : start + threads]):
                advance()
                yield spectrum


def as_json(all_of_them: Sequence[Spectrum]) -> dict[str, Any]:
    """Return spectra as JSON for machines: by tensor."""
    return {
        spectrum.matrix.name: {
            "shape": list(spectrum.matrix.span.shape),
            "dtype": spectrum.matrix.span.dtype,
            "spectrum": spectrum.summary,
            "kept": {cut.name: cut.rank for cut in spectrum.cuts},
            "of": len(spectrum.values),
        }
        for spectrum in all_of_them
    }


def as_table(all_of_them: Sequence[Spectrum]) -> str:
    """Return, for people, a line for each kind of matrix: medians over the layers, and a warning where one is due."""
    kinds: dict[str, list[Spectrum]] = {}
    for spectrum in all_of_them:
        kinds.setdefault(spectrum.matrix.kind, []).append(spectrum)
    heads = ["matrix", "layers", "shape", "noise", "misfit", "snr", *(rule.label for rule in RULES)]
    rows = [heads]
    for kind, group in kinds.items():
        rows.append(
            [
                kind,
                str(len(group)),
                "x".join(map(str, group[0].matrix.span.shape)),
                f"{median(s.summary['noise'] for s in group):.3g}",
                f"{median(s.summary['misfit'] for s in group):.2f}",
                f"{median(s.summary['snr'] or 0.0 for s in group):.2f}",
                *(
                    f"{100 * median(s.share(s.cuts[place]) for s in group):.0f} %"
                    for place in range(len(RULES))
                ),
            ]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
    lines = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join([*lines, "", *notes(all_of_them)])


def notes(all_of_them: Sequence[Spectrum]) -> list[str]:
    """Return what a reader of the table should know."""
    odd = [s for s in all_of_them if not is_noise(s.summary["misfit"], len(s.values))]
    found = [
        (
            "Medians over layers. noise: standard deviation of an entry, if the median singular value is noise's; misfit: "
            "distance of the bulk from noise's law (0 to 1); snr: energy above the noise's edge over that below; the rest: "
            "share of the rank that each rule keeps."
        )
    ]
    if odd:
        shares = [1 - s.share(cut) for s in odd for cut in s.cuts[:2]]
        found.append(
            f"warning: mp-edge and gavish-donoho assume a signal of low rank in white noise. The bulk of {len(odd)} of "
            f"{len(all_of_them)} matrices is not white noise; there they would cut {min(shares):.0%} to "
            f"{max(shares):.0%} of the rank. Use them under a guard only."
        )
    return found


def as_page(model: str, all_of_them: Sequence[Spectrum]) -> str:
    """Return a page for a browser: a heat map for each rule, and every spectrum."""
    kinds = list(dict.fromkeys(spectrum.matrix.kind for spectrum in all_of_them))
    layers = sorted({spectrum.matrix.layer for spectrum in all_of_them})
    parts = [f"<h1>Spectra of {xml(model)}</h1>", *(f"<p>{xml(note)}</p>" for note in notes(all_of_them))]
    for place, rule in enumerate(RULES):
        shares = {(s.matrix.kind, s.matrix.layer): s.share(s.cuts[place]) for s in all_of_them}
        parts.append(
            draw_heatmap(
                shares,
                kinds,
                layers,
                f"Share of the rank that {rule.label} would keep",
                "of the rank kept",
                "no such matrix",
            )
        )
    for kind in kinds:
        parts.append(f"<h2>{xml(kind)}</h2>")
        for spectrum in all_of_them:
            if spectrum.matrix.kind == kind:
                drawing = draw(spectrum)
                parts.append(
                    f"<details><summary>layer {spectrum.matrix.layer}: {xml(_in_short(spectrum.summary))}</summary>"
                    f"{drawing}</details>"
                )
    style = "body{font:15px/1.5 system-ui,sans-serif;max-width:900px;margin:2em auto;padding:0 1em}svg{max-width:100%}"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{xml(model)}: spectra</title>'
        f"<style>{style}</style></head><body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def draw(spectrum: Spectrum) -> str:
    """Return the figure of a spectrum: its values, pure noise's, and every rule's cut."""
    rows, columns = spectrum.matrix.span.shape
    count = len(spectrum.values)
    places = np.unique(np.linspace(0, count - 1, min(POINTS, count)).round().astype(int))
    values = [(int(place) + 1, float(spectrum.values[place])) for place in places]
    title = f"{spectrum.matrix.name} ({rows} x {columns})"
    noise = noise_law(rows, columns).expected(spectrum.summary["noise"], (int(p) + 1 for p in places))
    return draw_spectrum(values, noise, count, spectrum.cuts, title)


def _in_short(summary: Mapping[str, Any]) -> str:
    snr = "infinite" if summary["snr"] is None else f"{summary['snr']:.2f}"
    return f"noise {summary['noise']:.3g}, misfit {summary['misfit']:.2f}, signal to noise {snr}, stable rank {summary['stable_rank']:.0f}"
