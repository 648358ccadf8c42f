"""The importance matrix of the released model: how strongly a text excites each column of each matrix.

===========  ==============================================================================
``measure``  the inputs of all matrices, by the layer-by-layer forward pass
``fit``      whether a matrix is that of a model, and experts that too few tokens reached
``step``     the step
===========  ==============================================================================
"""
