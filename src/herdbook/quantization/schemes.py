"""All formats of encoded weights that become releases of their own, by their names in recipes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from herdbook.quantization import compressed_tensors, mlx

if TYPE_CHECKING:
    from collections.abc import Mapping

    from herdbook.quantization.scheme import Scheme, SchemeName

SCHEMES: dict[SchemeName, Scheme] = {
    scheme.name: scheme for scheme in (*compressed_tensors.FORMATS, *mlx.FORMATS)
}


def scheme_of(config: Mapping[str, Any]) -> Scheme | None:
    """Return the scheme that a ``config.json`` describes; None if there is none, or another one."""
    return next((scheme for scheme in SCHEMES.values() if scheme.describes(config)), None)
