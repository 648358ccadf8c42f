"""The extraction: matrix by matrix into files of their own, which a killed run leaves for the next one; then the adapter.

In memory are as many matrices as threads. The record is written last: a folder without it is not finished.
"""

from __future__ import annotations

import json
import math
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from herdbook import __version__, jsonio, limits
from herdbook.errors import CheckpointError, RecipeError, SourceError
from herdbook.extract.adapter import factor_names, settings, stored_name
from herdbook.extract.record import RECORD, Matrix, Record, Request
from herdbook.extract.whole import compare_whole
from herdbook.faults import first_in_words
from herdbook.files import remove_abandoned, write_json
from herdbook.humanize import percent, plural
from herdbook.inference.threads import one_thread_a_matrix
from herdbook.key import SHORT, digest
from herdbook.lock import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from herdbook.progress import track
from herdbook.weights.checkpoint import Produced, read_header, stream_span, write_shard

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from pathlib import Path

    from herdbook.extract.model import Model
    from herdbook.extract.pair import Pair
    from herdbook.extract.record import Whole

PIECES = ".pieces-"
STREAMED = 1 << 22  # elements of a tensor that are copied at a time


@dataclass(frozen=True)
class Extraction:
    """What is extracted, and where to.

    Args:
        pair: The base, its fine-tune, and what is kept.
        folder: The adapter's folder.
    """

    pair: Pair
    folder: Path

    @property
    def request(self) -> Request:
        """Everything that decides the adapter."""
        choice = self.pair.choice
        return Request(
            base=self.pair.base.about,
            tuned=self.pair.tuned.about,
            rank=choice.rule.canonical,
            modules_to_save=list(choice.saved),
            leave_out=list(choice.left_out),
            herdbook=__version__,
        )

    @property
    def pieces(self) -> Path:
        """The folder of the matrices that are done; another request has another one."""
        return self.folder / f"{PIECES}{digest(self.request.model_dump(mode='json'))[:SHORT]}"

    def is_done(self) -> bool:
        """Return whether the folder already has this adapter.

        Raises:
            RecipeError: If it contains anything else.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise RecipeError(f"{self.folder}: is not a folder")
        found = sorted(path.name for path in self.folder.iterdir()) if self.folder.is_dir() else []
        if RECORD in found:
            if read_record(self.folder).request != self.request:
                raise RecipeError(
                    f"{self.folder}: contains an adapter of other models, of another rank, or by another version; choose another "
                    "folder, or delete that one"
                )
            return True
        ours = {ADAPTER_CONFIG, ADAPTER_WEIGHTS} if self.pieces.name in found else set()
        if others := [name for name in found if name not in ours and not name.startswith((PIECES, "."))]:
            raise RecipeError(f"{self.folder}: contains {others[0]}; choose an empty or a new folder")
        return False

    def run(self, threads: int = 1, device: str = "cpu") -> Record:
        """Write the adapter, and return its record.

        Args:
            threads: How many matrices are decomposed at a time; no bit depends on it.
            device: Where they are decomposed.

        Raises:
            RecipeError: If something differs that an adapter cannot contain, or nothing does.
            SourceError: If a model cannot be read, or was changed meanwhile.
            CheckpointError: If a tensor contains NaN or infinite values.
        """
        whole = compare_whole(self.pair)
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_abandoned(self.folder)
        for path in self.folder.glob(f"{PIECES}*"):
            if path != self.pieces:
                shutil.rmtree(path)
        self.pieces.mkdir(exist_ok=True)
        matrices = {name: entry for name, entry in self._matrices(threads, device) if entry}
        if not matrices:
            raise RecipeError(
                f"{self.pair.tuned.place}: no matrix of its layers differs from {self.pair.base.place}'s, so nothing can be "
                "extracted"
            )
        about = {
            "request": self.request.model_dump(mode="json"),
            **whole.model_dump(mode="json"),
            "matrices": {name: matrix.model_dump(mode="json") for name, matrix in matrices.items()},
            "equal": equal_count(self.pair, matrices, whole),
        }
        write_json(self.folder / ADAPTER_CONFIG, settings(self.request.base, matrices, whole))
        tensors = self._tensors(matrices, whole)
        contents = write_shard(self.folder / ADAPTER_WEIGHTS, self.folder / RECORD, tensors, about)
        shutil.rmtree(self.pieces)
        return Record.model_validate(contents)

    def _matrices(self, threads: int, device: str) -> Iterator[tuple[str, Matrix | None]]:
        """Make the factors of each matrix, or take those of an earlier run; yield the entries of the record."""
        names = self.pair.named("matrix")
        with (
            one_thread_a_matrix(),
            ThreadPoolExecutor(threads) as pool,
            track("extract", len(names)) as advance,
        ):
            for start in range(0, len(names), threads):
                batch = names[start : start + threads]
                for name, entry in zip(
                    batch, pool.map(partial(self._matrix, device=device), batch), strict=True
                ):
                    advance()
                    yield name, entry

    def _matrix(self, name: str, device: str) -> Matrix | None:
        """Return the entry of a matrix, None if it is equal in both models."""
        import torch

        from herdbook.extract.factors import factorize

        weights, about = self._piece(name)
        if about.is_file():  # written last
            try:
                entry = json.loads(about.read_text(encoding="utf-8"))["entry"]
                return Matrix(**entry) if entry else None
            except (ValueError, KeyError, TypeError) as error:
                raise CheckpointError(f"{about}: is damaged; delete {self.pieces}") from error
        before = self.pair.base.matrix(name)
        difference = self.pair.tuned.matrix(name).sub_(before)
        self.pair.check_unchanged()  # of what was read, the record has the digests
        change = float(torch.linalg.vector_norm(difference))
        if change == 0:
            write_json(about, {"entry": None})
            return None
        norm = float(torch.linalg.vector_norm(before))
        del before
        factors = factorize(difference, self.pair.choice.rule, f"{self.pair.tuned.place}: {name}", device)
        matrix = Matrix(
            rank=factors.rank,
            of=min(difference.shape),
            energy=factors.energy,
            change=change / norm if norm else None,
        )
        tensors = [
            Produced(key, "F32", array.shape, partial(_once, array.tobytes()))
            for key, array in zip(factor_names(name), (factors.a, factors.b), strict=True)
        ]
        write_shard(weights, about, tensors, {"entry": matrix.model_dump(mode="json")})
        return matrix

    def _piece(self, name: str) -> tuple[Path, Path]:
        start = digest(name)[:SHORT]
        return self.pieces / f"{start}.safetensors", self.pieces / f"{start}.json"

    def _tensors(self, matrices: Iterable[str], whole: Whole) -> Iterator[Produced]:
        trained = set(matrices)
        for name in trained:
            path = self._piece(name)[0]
            for span in read_header(path).values():
                yield Produced(span.name, span.dtype, span.shape, partial(stream_span, path, span))
        for name in (*whole.saved, *whole.biases):
            origin = self.pair.origin(name)
            key = stored_name(name, trained)
            yield Produced(key, origin.dtype(name), origin.shape(name), partial(self._streamed, origin, name))

    def _streamed(self, model: Model, name: str) -> Iterator[bytes]:
        count = math.prod(model.shape(name))
        for start in range(0, count, STREAMED):
            yield bytes(model.read(name, start, min(count, start + STREAMED)))
        self.pair.check_unchanged()

    def outlook(self) -> dict[str, Any]:
        """Return what an extraction would read and compute, at most: nothing of the weights is read for that."""
        from herdbook.needs.time import decomposition_operations

        names = self.pair.named("matrix")
        remote = sum(
            file.size_bytes
            for model in (self.pair.base, self.pair.tuned)
            for file in model.locked.files
            if model.repo and file.name in {name for name, _ in model.spans.values()} - model.paths.keys()
        )
        return {
            "matrices": len(names),
            "operations": sum(decomposition_operations(self.pair.base.shape(name)) for name in names),
            "download_bytes": remote,
        }


def _once(data: bytes) -> Iterable[bytes]:
    return [data]


def equal_count(pair: Pair, matrices: Collection[str], whole: Whole) -> int:
    """Return how many tensors are equal in both models."""
    copies = [copy for part in (whole.saved, whole.biases, whole.left_out) for copy in part.items()]
    differing = {name for name, copy in copies if copy.change != 0}
    return len(pair.names) - len(differing | set(matrices))


def read_record(folder: Path) -> Record:
    """Read the record of an adapter.

    Raises:
        SourceError: If it is missing or damaged.
    """
    try:
        return Record.model_validate(jsonio.load_object((folder / RECORD).read_bytes(), limits.DOCUMENT))
    except FileNotFoundError as error:
        raise SourceError(
            f"{folder}: contains no {RECORD}, so it is not an adapter of `herdbook extract`"
        ) from error
    except ValidationError as error:
        raise SourceError(f"{folder}: {RECORD} is damaged: {first_in_words(error)}") from error
    except ValueError as error:
        raise SourceError(f"{folder}: {RECORD} is damaged: {error}") from error


def summary(record: Record) -> list[str]:
    """Return what an adapter has, in lines for people."""
    matrices = record.matrices.values()
    ranks = sorted(matrix.rank for matrix in matrices)
    energies = sorted(matrix.energy for matrix in matrices)
    span = f"rank {ranks[0]}" if ranks[0] == ranks[-1] else f"ranks {ranks[0]} to {ranks[-1]}"
    kept = (
        f"{percent(energies[0])} to {percent(energies[-1])}, median {percent(energies[len(energies) // 2])}"
    )
    lines = [
        f"{plural(len(matrices), 'matrix', 'matrices')} of {span}; of the energy of each change is kept: {kept}"
    ]
    if record.saved:
        lines.append(f"saved whole: {', '.join(record.saved)}")
    if record.biases:
        lines.append(f"biases: {len(record.biases)}, all of the model's")
    if record.left_out:
        lines.append(f"left out, although they differ: {', '.join(record.left_out)}")
    lines.append(f"equal, and therefore not in it: {plural(record.equal, 'tensor')}")
    return lines
