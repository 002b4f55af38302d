"""The one kind of error that a user can cause."""


class UserError(Exception):
    """Something the user can mend: one line that says what is wrong, where, and what to do.

    The command line prints it without a traceback and exits with code 2. Any other
    exception that reaches the command line is a bug.
    """
