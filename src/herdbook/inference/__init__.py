"""Running a model layer by layer: the forward pass, texts, devices."""
