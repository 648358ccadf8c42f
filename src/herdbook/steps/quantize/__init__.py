"""GGUF files: made from a model's safetensors, quantized, verified tensor by tensor, and loaded back.

=============  ==========================================================================================
``methods``    the quantization methods and their uses (plain data)
``convert``    a Hugging Face folder to a GGUF of full width, by llama.cpp's own converter
``quantize``   a full-width GGUF to a quantized one, with the bytes that llama.cpp would write
``derive``     each tensor of a GGUF recomputed directly from the safetensors, and compared
``dequantize`` a GGUF back into a transformers model, to measure the loss by quantization
=============  ==========================================================================================

They use ``herdbook.weights.gguf_file`` (the container), ``mixture`` (llama.cpp's choice of types), ``encode`` (rows to bytes),
``model_folder`` (named shards as one model) and ``layout`` (the safetensors tensors of each GGUF tensor). ``derive`` uses
neither ``mixture`` nor the converter, which made the files that it checks.

Importing this package loads neither torch nor the quantizers.
"""
