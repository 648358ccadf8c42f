"""GGUF files: made from a model's safetensors, quantized, proven tensor by tensor, and loaded back.

=============  ==========================================================================================
``methods``    which quantizations there are, and when to use which (plain data)
``convert``    a Hugging Face folder to a GGUF of full width, by llama.cpp's own converter
``quantize``   a full-width GGUF to a quantized one, with the bytes that llama.cpp would write
``derive``     each tensor of a GGUF made again straight from the safetensors, and compared
``dequantize`` a GGUF back into a transformers model, to measure what quantization cost
=============  ==========================================================================================

Underneath: ``gguf_file`` (the container), ``mixture`` (llama.cpp's choice of types), ``encode`` (rows to bytes),
``model_folder`` (named shards as one model), ``layout`` (which safetensors tensors a GGUF tensor is made of). ``derive``
shares neither ``mixture`` nor the converter with what it checks.

Importing this package loads neither torch nor the quantizers.
"""
