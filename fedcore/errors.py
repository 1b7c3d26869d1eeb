"""What can end a federation; each is one sentence for the user."""


class FederationError(RuntimeError):
    """The federation cannot go on."""


class CheckpointError(RuntimeError):
    """A checkpoint, or a site's memory in it, is not what it should be: nothing can be gone on from."""


class StorageError(RuntimeError):
    """What has to be kept cannot be written; what is there is intact."""
