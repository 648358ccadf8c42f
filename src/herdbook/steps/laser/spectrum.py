"""Spectra of any checkpoint's matrices, one matrix at a time: the effect of every rank rule, before anything is built."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from herdbook.errors import SourceError
from herdbook.escape import one_line, xml
from herdbook.figures import Cut, draw_heatmap, draw_spectrum
from herdbook.hub.tensors import open_tensors
from herdbook.inference.threads import one_thread_a_matrix
from herdbook.progress import track
from herdbook.recipe import rank_rule
from herdbook.sources.purl import PUBLIC_HUB
from herdbook.steps.laser.decompose import singular_values
from herdbook.steps.laser.evidence import SpectrumSummary, describe_spectrum, is_noise
from herdbook.steps.laser.law import noise_law
from herdbook.steps.laser.rank import keep
from herdbook.weights.tensors import DTYPES, from_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from herdbook.weights.checkpoint import Span

RULES = tuple(map(rank_rule, ("mp-edge", "gavish-donoho", "laser-rmt", {"energy": 0.99})))
IN_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.(.+?)(?:\.weight)?$")
POINTS = 200  # points of a curve


@dataclass(frozen=True)
class Matrix:
    """A matrix of a checkpoint's layer.

    Args:
        name: Its name.
        layer: The layer's number.
        kind: Its name inside the layer.
        span: Its dtype, shape and position in the file.
        read: A function that reads its bytes.
    """

    name: str
    layer: int
    kind: str
    span: Span
    read: Callable[[], bytes]


@dataclass(frozen=True)
class Spectrum:
    """A matrix's singular values, descending, and their summary; see ``describe_spectrum``."""

    matrix: Matrix
    values: np.ndarray
    summary: SpectrumSummary

    @property
    def cuts(self) -> tuple[Cut, ...]:
        """The rank and threshold of each rule."""
        pairs = [(rule, keep(rule, self.values, *self.matrix.span.shape)) for rule in RULES]
        return tuple(Cut(rule.label, kept.rank, kept.threshold) for rule, kept in pairs)

    def share(self, cut: Cut) -> float:
        """Return the share of the rank that a rule would keep."""
        return cut.rank / len(self.values)


def matrices(model: str, patterns: Sequence[str], layers: Callable[[int], bool]) -> list[Matrix]:
    """Find a checkpoint's matrices.

    Args:
        model: A folder, a safetensors file, or ``owner/name``, optionally ``@revision``, on the Hub. Nothing is downloaded
            as a whole from the Hub; each matrix is read by a range request when it is needed.
        patterns: Patterns of names inside a layer, such as ``mlp.*``; empty for all matrices.
        layers: A function that returns whether a layer is included.

    Returns:
        The two-dimensional tensors inside layers that match, layer by layer.

    Raises:
        SourceError: If the checkpoint does not exist, or no matrix matches.
    """
    found = []
    for span, read in open_tensors(model):
        match = IN_LAYER.search(span.name)
        if match is None or len(span.shape) != 2 or 0 in span.shape or span.dtype not in DTYPES:
            continue
        layer, kind = int(match[1]), match[2]
        if layers(layer) and (not patterns or any(fnmatchcase(kind, pattern) for pattern in patterns)):
            found.append(Matrix(span.name, layer, kind, span, read))
    if not found:
        raise SourceError(f"{model}: no matrix in its layers matches the given names and layers")
    return sorted(found, key=lambda matrix: (matrix.layer, matrix.kind))


def spectra(found: Sequence[Matrix], threads: int = 1, device: str = "cpu") -> Iterator[Spectrum]:
    """Yield the spectrum of each matrix, in order; at most one matrix per thread is in memory.

    Raises:
        CheckpointError: If a matrix contains NaN or infinite values; it is named.
    """

    def compute(matrix: Matrix) -> Spectrum:
        tensor = from_bytes(matrix.read(), matrix.span.dtype, matrix.span.shape, matrix.name)
        values = singular_values(tensor, device)
        return Spectrum(matrix, values, describe_spectrum(values, *matrix.span.shape))

    with (
        one_thread_a_matrix(),
        ThreadPoolExecutor(threads) as pool,
        track("spectra", len(found)) as advance,
    ):
        for start in range(0, len(found), threads):
            for spectrum in pool.map(compute, found[start : start + threads]):
                advance()
                yield spectrum


def as_json(items: Sequence[Spectrum]) -> dict[str, Any]:
    """Return spectra in JSON form, by tensor."""
    return {
        spectrum.matrix.name: {
            "shape": list(spectrum.matrix.span.shape),
            "dtype": spectrum.matrix.span.dtype,
            "spectrum": spectrum.summary,
            "kept": {cut.name: cut.rank for cut in spectrum.cuts},
            "of": len(spectrum.values),
        }
        for spectrum in items
    }


def as_table(items: Sequence[Spectrum]) -> str:
    """Return a table with a line for each kind of matrix (medians over the layers), and notes with any warning."""
    kinds: dict[str, list[Spectrum]] = {}
    for spectrum in items:
        kinds.setdefault(spectrum.matrix.kind, []).append(spectrum)
    heads = ["matrix", "layers", "shape", "noise", "misfit", "snr", *(rule.label for rule in RULES)]
    rows = [heads]
    for kind, group in kinds.items():
        rows.append(
            [
                one_line(kind),
                str(len(group)),
                "x".join(map(str, group[0].matrix.span.shape)),
                f"{median(s.summary['noise'] for s in group):.3g}",
                f"{median(s.summary['misfit'] for s in group):.2f}",
                f"{median(s.summary['snr'] or 0.0 for s in group):.2f}",
                *(
                    f"{100 * median(s.share(s.cuts[index]) for s in group):.0f} %"
                    for index in range(len(RULES))
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
    return "\n".join([*lines, "", *notes(items)])


def notes(items: Sequence[Spectrum]) -> list[str]:
    """Return the notes below the table: its columns explained, and a warning if the noise rules do not apply."""
    not_noise = [s for s in items if not is_noise(s.summary["misfit"], len(s.values))]
    lines = [
        (
            "Medians over layers. noise: standard deviation of an entry, if the median singular value is noise; misfit: "
            "distance of the bulk from the law of noise (0 to 1); snr: energy above the noise's edge divided by that below; "
            "other columns: share of the rank that each rule keeps."
        )
    ]
    if not_noise:
        shares = [1 - s.share(cut) for s in not_noise for cut in s.cuts[:2]]
        lines.append(
            "warning: mp-edge and gavish-donoho assume a low-rank signal in white noise. The bulk of "
            f"{len(not_noise)} of {len(items)} matrices is not white noise; these rules would remove "
            f"{min(shares):.0%} to {max(shares):.0%} of their rank. Use them only with a guard."
        )
    return lines


def as_page(model: str, items: Sequence[Spectrum]) -> str:
    """Return an HTML page: a heat map for each rule, and every spectrum."""
    kinds = list(dict.fromkeys(spectrum.matrix.kind for spectrum in items))
    layers = sorted({spectrum.matrix.layer for spectrum in items})
    # a folder is shown by its name alone: where it is on this machine is nobody's business
    local = Path(model).exists()
    shown = xml(Path(model).resolve().name if local else model)
    title = shown if local else f'<a href="{PUBLIC_HUB}/{xml(model.partition("@")[0])}">{shown}</a>'
    links = " ".join(f'<a href="#{xml(kind)}">{xml(kind)}</a>' for kind in kinds)
    parts = [f"<h1>Spectra of {title}</h1>", f'<nav aria-label="Matrices">{links}</nav>']
    parts += [f"<p>{xml(note)}</p>" for note in notes(items)]
    for index, rule in enumerate(RULES):
        shares = {(s.matrix.kind, s.matrix.layer): s.share(s.cuts[index]) for s in items}
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
        parts.append(f'<h2 id="{xml(kind)}">{xml(kind)}</h2>')
        for spectrum in items:
            if spectrum.matrix.kind == kind:
                drawing = draw(spectrum)
                parts.append(
                    f"<details><summary>layer {spectrum.matrix.layer}: {xml(_in_short(spectrum.summary))}</summary>"
                    f"{drawing}</details>"
                )
    style = (
        ":root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;max-width:900px;margin:2em auto;padding:0 1em}"
        "h1,summary{overflow-wrap:anywhere}nav a{display:inline-block;padding:6px 10px 6px 0}summary{cursor:pointer}"
        "svg{max-width:100%;height:auto}:focus-visible{outline:3px solid;outline-offset:2px}"
        "@media(prefers-color-scheme:dark){body{background:#121418;color:#e9e7e2}a{color:#7fbfff}}"
        "@media print{nav{display:none}}"
    )
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>{shown}: spectra</title>'
        f"<style>{style}</style></head><body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def draw(spectrum: Spectrum) -> str:
    """Return the figure of a spectrum: its values, those of pure noise, and the cut of every rule."""
    rows, columns = spectrum.matrix.span.shape
    count = len(spectrum.values)
    indices = np.unique(np.linspace(0, count - 1, min(POINTS, count)).round().astype(int))
    values = [(int(index) + 1, float(spectrum.values[index])) for index in indices]
    title = f"{spectrum.matrix.name} ({rows} x {columns})"
    noise = noise_law(rows, columns).expected(spectrum.summary["noise"], (int(i) + 1 for i in indices))
    return draw_spectrum(values, noise, count, spectrum.cuts, title)


def _in_short(summary: SpectrumSummary) -> str:
    snr = "infinite" if summary["snr"] is None else f"{summary['snr']:.2f}"
    return f"noise {summary['noise']:.3g}, misfit {summary['misfit']:.2f}, signal to noise {snr}, stable rank {summary['stable_rank']:.0f}"
