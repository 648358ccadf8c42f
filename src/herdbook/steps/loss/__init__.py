"""The loss by quantization, measured token by token.

``step``         the steps: what the model at full width predicts, kept once; and the loss of a file
``divergence``   how far one prediction is from another, and the summary over all tokens
``control``      a mixture with shuffled experts, which loses what a file loses whose experts are not its own
"""
