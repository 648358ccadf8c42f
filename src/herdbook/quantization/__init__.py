"""GGUF's types as data: how each encodes a row, which of them a quantization method mixes, and for which tensor it takes which.

===========  ========================================================================================
``types``    the types of tensors: block, size, and what llama.cpp takes where a row does not fit
``methods``  the quantization methods by their usual names, and their uses
``mixture``  the type of each tensor of a model, by the rules of llama.cpp
``budget``   the type of each tensor within a budget, by measured error
``split``    the parts of a file that is split
===========  ========================================================================================

Nothing here imports a quantizer: a plan chooses all types, and computes sizes exactly.
"""
