"""A local Hub for tests: real HTTP on 127.0.0.1, everything in memory, spoken to by the real client.

``store`` holds repositories, ``server`` speaks HTTP about them and misbehaves on demand, ``client`` points
`huggingface_hub` at it. It knows what reading needs; routes that write belong beside the others in ``server``.
"""
