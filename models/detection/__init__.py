"""Detectors: their loss and a small data set to train one on."""
