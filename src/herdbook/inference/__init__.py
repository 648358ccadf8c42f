"""Running a model layer by layer: forward pass, texts, devices."""
