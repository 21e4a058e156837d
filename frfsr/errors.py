"""The one exception for mistakes that the caller can repair, the one warning about files, and how both are shown."""


class UserError(ValueError):
    """Bad input from the caller.

    The message is one line that says what is wrong and what to do about it; the command line prints it without a
    traceback and exits with code 2.
    """


class ImageWarning(UserWarning):
    """Said of a file that was read or written, but not all of it, or not without doubt; one line that names it."""


def one_line(text: object) -> str:
    """A message, or a name of a file in it, as a terminal can show it: blanks for line ends, no control characters."""
    shown = "".join(letter if letter.isprintable() or letter.isspace() else "\ufffd" for letter in str(text))
    return " ".join(shown.split())
