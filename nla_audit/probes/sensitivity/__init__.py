"""Said against carried: plant a concept, see whether the explanation names it.

The command is ``nla-audit sensitivity``; the question, its options and its numbers: ``card.py``.
"""
