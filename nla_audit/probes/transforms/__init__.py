"""One small file a transform; whatever is put here is found (:func:`..registry.transforms`)."""
