"""Soft quantizers become step functions, quantized weights become integer levels; the network stays an nn.Module.

`probe` and `weights` hold the two halves, `model` puts them together; import from those modules, so that the ones
that need no torch stay importable without it.
"""
