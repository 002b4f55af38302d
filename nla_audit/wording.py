"""Numbers of things in sentences: one is told as one."""


def count(number: int, noun: str) -> str:
    """``"1 row"``, ``"4,200 rows"``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def verb(number: int, one: str, several: str) -> str:
    """The verb that goes with ``number`` of something: ``one`` with 1, ``several`` with others."""
    return one if number == 1 else several
