"""From a language model to a sweep of NLAs: activations, warm start, GRPO, completions."""
