"""Planted sweeps: completions tables of which every omission, rewording and copy is known.

No model is run: explanations are put together from a phrasebook, each model of a sweep at its own
rates, and the truth is counted beside them.
"""
