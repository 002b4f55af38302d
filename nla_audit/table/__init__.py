"""The table of completions and tables like it: where they lie, how they are read, what is valid."""
