"""Endings of the files of which a checkpoint consists: one list for all that goes by them."""

#: Weights, configs, sidecars with their parameters, and tokenizers.
DATA = (
    ".safetensors",
    ".npz",
    ".json",
    ".yaml",
    ".yml",
    ".jinja",
    ".model",
    ".tiktoken",
    ".txt",
)
#: What is fetched, and hashed, since it can change what a checkpoint computes: the code, too, that
#: only ``trust_remote_code`` runs.
ALL = (*DATA, ".py")
