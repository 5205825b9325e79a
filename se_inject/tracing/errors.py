"""How a run on stand-ins ends early; neither is an ``Exception``, so that a forward's own handlers let them pass."""


class UntraceableError(BaseException):
    """What the forward does cannot be told before it runs; the message says why and where."""


class InfeasiblePath(BaseException):
    """This way ends in an error of the forward's own, as where an assert on a shape fails."""
