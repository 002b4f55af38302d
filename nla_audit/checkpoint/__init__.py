"""Pairs on disk and on the Hub: recognised, fetched, checked, loaded and saved, in any format."""
