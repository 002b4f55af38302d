"""The pair: activations into explanations and back, whatever format it was published in."""
