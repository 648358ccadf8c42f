"""GGUF files: made from a model's safetensors in one pass, verified tensor by tensor, and loaded back.

=============  ==========================================================================================
``convert``    the header of a model's files, without tensors, by llama.cpp's own converter
``quantize``   a file with the bytes that llama.cpp would write, and the record of what it was made from
``derive``     each tensor of a file recomputed from the safetensors, and compared: what a verifier does
``dequantize`` a file back into a transformers model, to measure the loss by quantization
=============  ==========================================================================================

They use ``herdbook.weights.gguf_file`` (the container), ``herdbook.architectures.gguf_tensors`` (the safetensors tensors of
each GGUF tensor), ``model_folder`` (named shards as one model), ``source`` (rows in llama.cpp's order) and ``encode`` (rows to
bytes), ``held`` (bytes that another file has already). The plan chooses the types (``herdbook.quantization``).

Importing this package loads neither torch nor the quantizers.
"""
