"""Formats of quantized weights as data: GGUF's types, which of them a method mixes for which tensor; and the formats for GPU servers and Macs.

======================  ====================================================================================
``types``               the types of tensors: block, size, and what llama.cpp takes where a row does not fit
``methods``             the quantization methods by their usual names, and their uses
``mixture``             the type of each tensor of a model, by the rules of llama.cpp
``budget``              the type of each tensor within a budget, by measured error
``split``               the parts of a file that is split
``scheme``              what every format of encoded weights has
``compressed_tensors``  the formats for GPU servers: names, shapes and settings of compressed-tensors
``mlx``                 the formats for Macs: those of MLX, as mlx-lm loads them
``schemes``             these formats by their names in recipes
======================  ====================================================================================

Nothing here imports a quantizer: a plan chooses all types, and computes sizes exactly.
"""
