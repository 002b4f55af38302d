"""Steganography probes: explanations changed in ways that keep or destroy named aspects."""
