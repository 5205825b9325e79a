"""Every error that the recipes raise on purpose; each is also a ``ValueError``."""

from se_inject.errors import SEInjectError


class RecipeError(SEInjectError, ValueError):
    """Base class of every error below."""


class UnknownNameError(RecipeError):
    """No network, preset or data set has this name."""


class DataError(RecipeError):
    """The images cannot be used as they are."""

    def __init__(self, message: str) -> None:
        # torch hands over the error of a process that loads images as the text of its traceback, which ends with it
        super().__init__(message.rpartition(f"{type(self).__module__}.{type(self).__name__}: ")[2].rstrip("\n"))


class CheckpointError(RecipeError):
    """A file of weights or a checkpoint cannot be used here."""


class SettingsError(RecipeError):
    """Settings that contradict each other, the data or the run that they continue."""


class NotCachedError(SettingsError):
    """The features of a network cannot be kept; it trains without."""
