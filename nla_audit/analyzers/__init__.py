"""One file a question. Each registers a function from completions to a Finding."""
