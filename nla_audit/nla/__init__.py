"""The model itself: a verbalizer (activations into texts) and a reconstructor (texts back)."""
