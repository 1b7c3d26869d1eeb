"""What can end a federation; each is one sentence for the user."""


class FederationError(RuntimeError):
    """The federation cannot go on."""


class CheckpointError(RuntimeError):
    """A checkpoint, or a site's memory in it, is not what it should be: nothing can be gone on from."""


class StorageError(RuntimeError):
    """The machine has no room for what has to be kept or computed; what is there is intact."""


class EngineError(RuntimeError):
    """The engine ended before the federation did; what is there is intact."""
