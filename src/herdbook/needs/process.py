"""What a process needs before it has a tensor in memory."""

# A process that imports no torch, with its buffers; and one that does.
INTERPRETER_BYTES = 150_000_000
TORCH_BYTES = 700_000_000
