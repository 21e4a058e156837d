"""The one exception for mistakes that the caller can repair."""


class UserError(ValueError):
    """Bad input from the caller.

    The message is one line that says what is wrong and what to do about it; the command line prints it without a
    traceback and exits with code 2.
    """
