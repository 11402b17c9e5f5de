"""The mathematics of flow matching and diffusion: tensors in, tensors out; no file, no clock, no global state."""
