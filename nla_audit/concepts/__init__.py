"""Contrast sets: texts with a concept beside matched texts without it, one YAML file each."""
