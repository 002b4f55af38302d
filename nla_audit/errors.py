"""The one kind of error that a user can cause."""


class UserError(Exception):
    """Something the user can mend: one line that says what is wrong, where, and what to do.

    The command line prints it without a traceback and exits with code 2. Any other
    exception that reaches the command line is a bug.
    """


def first_line(error: BaseException) -> str:
    """The first line of an error's message, with the kind of error where that is all it says.

    A first line that ends in a colon introduces the second, and is joined with it.
    """
    lines = [line.strip() for line in str(error).strip().split("\n")]
    line = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    return line if " " in line else f"{type(error).__name__} {line}".strip()
