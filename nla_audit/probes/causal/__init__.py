"""What does the AR make of a text of the table that is edited? Asked with ``--pair``.

:mod:`~.ruler` opens the AR, :mod:`~.worth` deletes claims, :mod:`~.counterfactual` splits a change
of FVE, and :mod:`~.tables` is what ``drop-analysis`` and ``rewording`` say of it.
"""
