"""The one error of this room."""


class InputError(ValueError):
    """Input a person can mend: one sentence with file, row, column, found, expected, what to do."""
