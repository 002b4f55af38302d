"""Does the AR read what explanations say, or something hidden in how it is said?

Texts are changed and read (:mod:`~.reading`), the readings become a table of scores
(:mod:`~.scores`) and :mod:`~.finding` judges it.
"""
