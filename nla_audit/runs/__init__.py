"""Long runs of a model over a table, which go on where they stopped: extract, explain, score."""
