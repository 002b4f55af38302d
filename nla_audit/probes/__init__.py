"""Questions that an AR answers about changed texts: a folder each, and what they share."""
