"""Every error that se_inject raises on purpose; each is also a ``ValueError``, ``TypeError`` or ``RuntimeError``."""


def first_line(error: BaseException) -> str:
    """An error in one line, as others quote it.

    >>> first_line(KeyError("se"))
    "KeyError: 'se'"
    """
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


class SEInjectError(Exception):
    """Base class of every error below."""


class InvalidArgumentError(SEInjectError, ValueError):
    """An argument has the right type, but not a valid value."""


class ArgumentTypeError(SEInjectError, TypeError):
    """An argument has the wrong type."""


class NotAModuleError(ArgumentTypeError):
    """The model is not a ``torch.nn.Module``."""


class WrappedModelError(SEInjectError, ValueError):
    """The model is wrapped, compiled or scripted: apply first, then wrap."""


class NoSiteError(SEInjectError, ValueError):
    """There is nothing to gate; the subclass says why."""


class NoBlockError(NoSiteError):
    """The model has no residual or Inception block that could take a gate."""


class AllFilteredError(NoSiteError):
    """The model has sites, but ``kinds`` and ``where`` leave none of them."""


class AllGatedError(NoSiteError):
    """Every site that was asked for has a gate already."""


class NoGateError(SEInjectError, ValueError):
    """The model has no gate to remove, train or list."""


class LayoutError(SEInjectError, ValueError):
    """A state dict is not of the network that the model is, or may be read in several ways."""


class RewriteError(SEInjectError, ValueError):
    """A block's forward cannot be rewritten with a gate in it."""


class ConversionError(SEInjectError, ValueError):
    """A gate cannot take the other form with outputs that are equal to the bit."""


class InferenceOnlyError(SEInjectError, RuntimeError):
    """A copy that ``optimize`` made was called in training mode, or with gradients."""


class GateFileError(SEInjectError, ValueError):
    """A file of gates is damaged, of another format, or none."""


class GateFileNotFoundError(GateFileError, FileNotFoundError):
    """There is no such file of gates."""


class GateMismatchError(SEInjectError, ValueError, RuntimeError):
    """Gates, or their weights, are of another model or form; what ``load_state_dict`` raises is a ``RuntimeError``."""
