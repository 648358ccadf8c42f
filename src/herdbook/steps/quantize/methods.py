"""The supported quantization methods, as data: their names, llama.cpp's numbers, and their uses."""

from __future__ import annotations

from dataclasses import dataclass

from herdbook.errors import StepError


@dataclass(frozen=True)
class Method:
    """One way to quantize a whole file.

    Args:
        name: Its usual name, and the end of the file's name.
        file_type: ``general.file_type`` in the file's header (``LLAMA_FTYPE_*`` in llama.cpp's ``llama.h``).
        base: The type of tensors for which the mixture has no other rule.
        bits: Label for a table; the true number of bits per weight is measured (see ``derive``).
        use: One sentence of advice.
    """

    name: str
    file_type: int
    base: str
    bits: str
    use: str


METHODS = {
    method.name: method
    for method in (
        Method(
            "Q8_0",
            7,
            "Q8_0",
            "8-bit",
            "Nearly the same answers as full width; take it where memory is no concern.",
        ),
        Method(
            "Q6_K",
            18,
            "Q6_K",
            "6-bit",
            "Very close to Q8_0 at three quarters of its size; the careful choice.",
        ),
        Method(
            "Q5_K_M",
            17,
            "Q5_K",
            "5-bit",
            "A little smaller than Q6_K, with a loss that is still hard to notice.",
        ),
        Method(
            "Q5_K_S",
            16,
            "Q5_K",
            "5-bit",
            "Q5_K_M without its wider tensors; for when Q5_K_M just does not fit.",
        ),
        Method(
            "Q4_K_M", 15, "Q4_K", "4-bit", "Small, fast and good enough for most uses; the one to try first."
        ),
        Method(
            "Q4_K_S", 14, "Q4_K", "4-bit", "Slightly smaller than Q4_K_M, slightly worse; for tight memory."
        ),
        Method("Q3_K_M", 12, "Q3_K", "3-bit", "A clear loss of quality; only where nothing wider fits."),
    )
}


def find_method(name: str) -> Method:
    """Return the method with this name.

    Raises:
        StepError: If the name is unknown.
    """
    try:
        return METHODS[name]
    except KeyError:
        raise StepError(f"quantize: unknown method {name!r}; choose from {', '.join(METHODS)}.") from None
