"""Completions, pairs and reports, to the Hub and back."""
