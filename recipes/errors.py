"""Every error that the recipes raise on purpose; each is also a ``ValueError``."""

from se_inject.errors import SEInjectError


class RecipeError(SEInjectError, ValueError):
    """Base class of every error below."""


class UnknownNameError(RecipeError):
    """No network, preset or data set has this name."""


class DataError(RecipeError):
    """The images cannot be used as they are."""


class CheckpointError(RecipeError):
    """A file of weights or a checkpoint cannot be used here."""


class SettingsError(RecipeError):
    """Settings that contradict each other, the data or the run that they continue."""


class NotCachedError(SettingsError):
    """The features of a network cannot be kept; it trains without."""
