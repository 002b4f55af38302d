"""Which words, claims and order of claims carry the reconstruction?

Texts are taken apart (:mod:`~.pieces`), an AR reads the pieces (:mod:`~.reading`), what each is
worth becomes a table of scores (:mod:`~.scores`), and :mod:`~.finding` judges it.
"""
