"""The inputs of a layer's linear modules, seen as it processes a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


class LinearInputs(torch.overrides.TorchFunctionMode):  # type: ignore[misc]
    """Inside its block, and in its thread only, hands the inputs of linear modules to a function; a hook would see all threads'.

    Args:
        module: The module that contains them.
        names: Their names inside it.
        see: Called with a module's name and its input, without the first extent, which is 1.
    """

    def __init__(
        self, module: torch.nn.Module, names: Sequence[str], see: Callable[[str, torch.Tensor], None]
    ) -> None:
        super().__init__()
        self._names = {id(module.get_submodule(name).weight): name for name in names}
        self._see = see

    def __torch_function__(
        self,
        function: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call the function that torch is about to call."""
        del types
        if function is torch.nn.functional.linear and (name := self._names.get(id(args[1]))) is not None:
            self._see(name, args[0][0])
        return function(*args, **(kwargs or {}))
