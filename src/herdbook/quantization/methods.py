"""The quantization methods, as data: their usual names, llama.cpp's numbers, the types they start from, and their uses."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Method:
    """One way to quantize a whole file.

    Args:
        name: Its usual name, and the end of the file's name.
        file_type: ``general.file_type`` in the file's header (``LLAMA_FTYPE_*`` in llama.cpp's ``llama.h``).
        base: The type of tensors for which the mixture has no other rule.
        use: One sentence of advice.
        mixture: The method whose rules of llama.cpp choose the types, if it is another one.
        ends: The type of the embeddings and the output matrix, if the mixture does not choose it.
    """

    name: str
    file_type: int
    base: str
    use: str
    mixture: str = ""
    ends: str | None = None

    @property
    def rules(self) -> str:
        """The method of llama.cpp whose rules choose the types."""
        return self.mixture or self.name


_WIDE_ENDS = "with embeddings and output in Q8_0"
METHODS = {
    method.name: method
    for method in (
        Method("F32", 0, "F32", "Every weight in 32 bits; for further conversion only."),
        Method("BF16", 32, "BF16", "The weights as they were trained; for further conversion."),
        Method(
            "F16", 1, "F16", "Full width for hardware without bfloat16; very large weights lose precision."
        ),
        Method("Q8_0", 7, "Q8_0", "Nearly the same answers as full width."),
        Method("Q6_K", 18, "Q6_K", "Very close to Q8_0 at three quarters of its size; the careful choice."),
        Method("Q6_K_L", 18, "Q6_K", f"Q6_K {_WIDE_ENDS}; slightly larger.", "Q6_K", "Q8_0"),
        Method("Q5_K_M", 17, "Q5_K", "A little smaller than Q6_K, with a loss that is still hard to notice."),
        Method("Q5_K_L", 17, "Q5_K", f"Q5_K_M {_WIDE_ENDS}.", "Q5_K_M", "Q8_0"),
        Method("Q5_K_S", 16, "Q5_K", "Q5_K_M without its wider tensors; for when Q5_K_M just does not fit."),
        Method("Q5_1", 9, "Q5_1", "Legacy, for old programs; Q5_K_M is the usual choice now."),
        Method("Q5_0", 8, "Q5_0", "Legacy, for old programs; Q5_K_S is the usual choice now."),
        Method("Q4_K_M", 15, "Q4_K", "Small and fast, with a small loss."),
        Method("Q4_K_L", 15, "Q4_K", f"Q4_K_M {_WIDE_ENDS}.", "Q4_K_M", "Q8_0"),
        Method("Q4_K_S", 14, "Q4_K", "Slightly smaller than Q4_K_M, slightly worse; for tight memory."),
        Method("Q4_1", 3, "Q4_1", "Legacy, for old programs; Q4_K_S is the usual choice now."),
        Method("Q4_0", 2, "Q4_0", "Legacy, for old programs; Q4_K_S is the usual choice now."),
        Method("IQ4_NL", 25, "IQ4_NL", "Slightly larger than IQ4_XS; for rows that IQ4_XS cannot hold."),
        Method("IQ4_XS", 30, "IQ4_XS", "Smaller than Q4_K_S; slower on some processors."),
        Method("MXFP4_MOE", 38, "MXFP4", "Experts in MXFP4, all else in Q8_0; for mixtures of experts."),
        Method("Q3_K_XL", 13, "Q3_K", f"Q3_K_L {_WIDE_ENDS}.", "Q3_K_L", "Q8_0"),
        Method("Q3_K_L", 13, "Q3_K", "The widest of the 3-bit mixtures; a clear loss of quality."),
        Method("Q3_K_M", 12, "Q3_K", "A clear loss of quality; only where nothing wider fits."),
        Method("Q3_K_S", 11, "Q3_K", "A large loss of quality; only where nothing wider fits."),
        Method("IQ3_M", 27, "IQ3_S", "Between Q3_K_S and Q3_K_M in size; a clear loss of quality."),
        Method("IQ3_S", 26, "IQ3_S", "About the size of Q3_K_S; a clear loss of quality."),
        Method("IQ3_XS", 22, "IQ3_S", "Slightly smaller than IQ3_S; a large loss of quality."),
        Method("IQ3_XXS", 23, "IQ3_XXS", "A large loss of quality; only where nothing wider fits."),
        Method("Q2_K_L", 10, "Q2_K", f"Q2_K {_WIDE_ENDS}.", "Q2_K", "Q8_0"),
        Method("Q2_K", 10, "Q2_K", "A very large loss of quality."),
        Method("Q2_K_S", 21, "Q2_K", "A very large loss of quality; smaller than Q2_K."),
        Method("IQ2_M", 29, "IQ2_S", "A very large loss of quality; only where nothing wider fits."),
        Method("IQ2_S", 28, "IQ2_XS", "A very large loss of quality."),
        Method("IQ2_XS", 20, "IQ2_XS", "A very large loss of quality."),
        Method("IQ2_XXS", 19, "IQ2_XXS", "A very large loss of quality; hardly usable."),
        Method("IQ1_M", 31, "IQ1_M", "Hardly usable; for experiments."),
        Method("IQ1_S", 24, "IQ1_S", "Hardly usable; for experiments."),
        Method("TQ2_0", 37, "TQ2_0", "For models that were trained with ternary weights only; fast."),
        Method("TQ1_0", 36, "TQ1_0", "For models that were trained with ternary weights only; smallest."),
    )
}
