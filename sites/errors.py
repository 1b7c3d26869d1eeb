"""The one error of this room."""


class InputError(ValueError):
    """Input a person can mend: one sentence with file, row, column, found, expected, what to do.

    What other libraries say, and names of files and columns, may hold line breaks; the sentence does not.

    >>> str(InputError("x.parquet: damaged (no page header.\\n  )"))
    'x.parquet: damaged (no page header. )'
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(" ".join(line.strip() for line in sentence.splitlines()))
