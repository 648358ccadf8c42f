"""The laser step: one shard of a lasered model, tensor by tensor."""

from __future__ import annotations

import json
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from herdbook.architectures.dense import layer_of, matrix_of
from herdbook.errors import StepError
from herdbook.plan.operation import Reduce, ReduceAsSearched
from herdbook.progress import say, track
from herdbook.recipe.rank import rank_rule
from herdbook.steps.inputs import ParentShards
from herdbook.weights.checkpoint import Produced, write_shard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import torch

    from herdbook.plan import Node, Part, Plan, Search, Tensor
    from herdbook.plan.operation import CalibrationText
    from herdbook.recipe import RankRule
    from herdbook.steps.laser.reduce import Reduction
    from herdbook.weights.record import TensorEntry

Item = TypeVar("Item")
Result = TypeVar("Result")


def laser(plan: Plan, part: Part, threads: int = 1, device: str = "cpu") -> None:
    """Make a shard: chosen matrices are reduced, and everything else is copied.

    Args:
        plan: The plan.
        part: The shard.
        threads: How many matrices are reduced at the same time; it does not affect the result.
        device: Where matrices are decomposed. The CPU's result is the reference.

    Raises:
        CheckpointError: If a parent's tensor is damaged, or contains NaN or infinite values, before or after; it is named.
        StepError: If the search that chooses the matrices is missing or of another plan.
    """
    parents = ParentShards(plan)
    rules = rules_of(plan, part)
    computed = sorted((tensor for tensor in part.tensors if tensor.name in rules), key=lambda t: t.name)
    if not computed:
        write_shard(
            plan.layout.shard(part), plan.layout.record(part), map(parents.copy, part.tensors), part.about
        )
        return
    from herdbook.inference.threads import one_thread_a_matrix
    from herdbook.weights.tensors import finite_bytes

    with (
        one_thread_a_matrix(),
        ThreadPoolExecutor(threads) as pool,
        track(f"laser {part.id}", len(computed)) as advance,
    ):
        reducer = Reducer(plan, part, parents, rules, threads, device)
        reductions = _Prefetch(pool, threads, reducer.reduce, computed)

        def make(tensor: Tensor) -> Produced:
            if tensor.name not in rules:
                return parents.copy(tensor)
            entry: TensorEntry = {"action": "laser", "from": parents.cite(tensor.origins)}

            def chunks() -> Iterator[bytes]:
                reduction = reductions.take()
                entry.update(cast("TensorEntry", reduction.evidence))
                yield finite_bytes(reduction.matrix, f"tensor {tensor.name}, reduced")
                advance()

            return Produced(tensor.name, tensor.dtype, tensor.shape, chunks, entry)

        record = write_shard(
            plan.layout.shard(part), plan.layout.record(part), map(make, part.tensors), part.about
        )
    _warn(record["tensors"])


class Reducer:
    """Reduces the matrices of a part.

    Args:
        plan: The plan.
        part: The shard to be made.
        parents: The shards that it is made from.
        rules: The rank rule of each tensor that is reduced.
        threads: How many windows or matrices are processed at the same time.
        device: Where matrices are decomposed.
    """

    def __init__(
        self,
        plan: Plan,
        part: Part,
        parents: ParentShards,
        rules: Mapping[str, RankRule],
        threads: int,
        device: str,
    ) -> None:
        from herdbook.steps.laser.store import DecompositionStore

        self._parents, self._rules, self._device = parents, rules, device
        self._store = DecompositionStore(plan.layout.decompositions, device)
        self._calibration = ""
        if any(rule.needs_text for rule in rules.values()):
            from herdbook.inference.text import calibration_id

            assert isinstance(part.operation, Reduce | ReduceAsSearched)  # noqa: S101 - other operations have no rules
            whitening = part.operation.whitening
            assert whitening is not None  # noqa: S101 - the plan sets it if a rule needs text
            self._calibration = calibration_id(whitening.text, whitening.model)
            self._whiten(plan, plan.by_key[whitening.model], whitening.text, threads)

    def reduce(self, tensor: Tensor) -> Reduction:
        """Reduce one matrix; its decomposition is taken from the store if it exists."""
        from herdbook.steps.laser.reduce import reduce
        from herdbook.weights.tensors import from_bytes

        (origin,) = tensor.origins
        shard = self._parents.shard(origin.part)
        what = f"tensor {origin.tensor} of {shard.path}"
        matrix = from_bytes(self._parents.read(origin), tensor.dtype, tensor.shape, what)
        rule = self._rules[tensor.name]
        sha256 = shard.sha256(origin.tensor)
        if not rule.needs_text:
            return reduce(matrix, self._store.decomposition(matrix, sha256), rule, self._device)
        whitened = self._store.decomposition(matrix, sha256, self._calibration)
        return reduce(matrix, whitened, rule, self._device, self._store.values(matrix, sha256))

    def _whiten(self, plan: Plan, parent: Node, text: CalibrationText, threads: int) -> None:
        """Run the calibration text through the parent, layer by layer, up to the last layer that is reduced."""
        from herdbook.inference.forward import LayerwiseModel
        from herdbook.inference.text import windows
        from herdbook.steps.laser.whiten import whiten_layer
        from herdbook.weights.tensors import sha256_tensor

        folder = plan.layout.folder(parent)
        model = LayerwiseModel(folder, self._device, threads)
        layers: dict[int, dict[str, tuple[torch.Tensor, str]]] = {}
        for name in (name for name, rule in self._rules.items() if rule.needs_text):
            stored = model.weights.stored(name)
            pair = (stored, sha256_tensor(stored))
            if not self._store.has(*pair, self._calibration):
                layers.setdefault(layer_of(name) or 0, {})[str(matrix_of(name))] = pair
        if not layers:
            return
        streams = model.embed(windows(plan, text.name, folder, model.config, text.windows))
        with track("reading calibration text", max(layers) + 1) as advance:
            for number in range(max(layers) + 1):
                with model.layer(number) as module:
                    if number in layers:
                        whiten_layer(model, module, streams, layers[number], self._store, self._calibration)
                    if number < max(layers):
                        streams = model.run(module, streams)
                advance()


class _Prefetch(Generic[Item, Result]):
    """Applies a function to items in a pool, one item per thread at a time, and returns the results in order."""

    def __init__(
        self,
        pool: ThreadPoolExecutor,
        threads: int,
        function: Callable[[Item], Result],
        items: Sequence[Item],
    ) -> None:
        self._pool, self._threads, self._function = pool, threads, function
        self._items = iter(items)
        self._pending: list[Future[Result]] = []

    def take(self) -> Result:
        """Return the next result. At most one result per thread is in memory."""
        while len(self._pending) < self._threads:
            item = next(self._items, None)
            if item is None:
                break
            self._pending.append(self._pool.submit(self._function, item))
        return self._pending.pop(0).result()


def rules_of(plan: Plan, part: Part) -> dict[str, RankRule]:
    """Return the rank rule of each tensor of a part that is reduced, from the plan or from the result of a search.

    Raises:
        StepError: If the search is missing or of another plan.
    """
    names = [tensor.name for tensor in part.reduced]
    match part.operation:
        case Reduce() as reduce:
            return dict.fromkeys(names, reduce.rank)
        case ReduceAsSearched() as reduce:
            chosen = _chosen(plan, plan.searches[reduce.search])
            return {name: chosen[name] for name in names if name in chosen}
        case _:
            return {}


def _chosen(plan: Plan, search: Search) -> dict[str, RankRule]:
    """Return the rank rule of each matrix that a search has chosen."""
    path = plan.layout.search(search)
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        if result["key"] == search.key:
            return {name: rank_rule(rule) for name, rule in result["chosen"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StepError(f"{path}: is missing or damaged. Delete it and rerun `search`.") from error
    raise StepError(f"{path}: belongs to another plan. Delete it and rerun `search`.")


def _warn(entries: Mapping[str, TensorEntry]) -> None:
    """Warn of the matrices for which a rule's assumption does not hold."""
    wrong = [entry for entry in entries.values() if entry.get("assumption_holds") is False]
    if wrong:
        removed = [1 - entry["rank"] / entry["of"] for entry in wrong]
        say(
            f"warning: the rule assumes a low-rank signal in white noise, which does not hold for {len(wrong)} matrices "
            f"(distance of the bulk from noise {min(e['spectrum']['misfit'] for e in wrong):.2f} to "
            f"{max(e['spectrum']['misfit'] for e in wrong):.2f}); it removed {min(removed):.0%} to {max(removed):.0%} of "
            "their rank"
        )
