"""The one exception for mistakes that the caller can repair, and the one warning about files."""


class UserError(ValueError):
    """Bad input from the caller.

    The message is one line that says what is wrong and what to do about it; the command line prints it without a
    traceback and exits with code 2.
    """


class ImageWarning(UserWarning):
    """Said of a file that was read or written, but not all of it, or not without doubt; one line that names it."""
