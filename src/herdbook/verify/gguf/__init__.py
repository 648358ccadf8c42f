"""The header of a GGUF, derived a second time from what is proven without it, and compared key by key.

=============  =======================================================================================
``table``      each key, and what it follows from: the only place that defines this
``tokens``     the keys that are tokens, their scores and kinds, and merges
``special``    the keys for special tokens, chat templates and normalizers
``compare``    a header beside what the table derives
``check``      the part of the level `claims` about the GGUF files of a release
=============  =======================================================================================

None of it needs llama.cpp's converter, or a package for quantized weights.
"""
