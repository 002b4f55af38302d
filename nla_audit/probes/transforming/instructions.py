"""Sentences that several instructions to a language model share."""

SAME = "Keep every claim and every fact; add nothing."
PARAPHRASE = f"Paraphrase the text. Change the wording as much as you can. {SAME}"
PLACEHOLDERS = "Copy each placeholder like ⟦1⟧ exactly once."
