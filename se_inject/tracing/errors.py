"""How a run on stand-ins ends early; neither is an ``Exception``, so that a forward's own handlers let them pass."""


class UntraceableError(BaseException):
    """What the forward does cannot be told before it runs; the message says why and where."""


class InfeasiblePath(BaseException):
    """This way ends in an error of the forward's own, as where an assert on a shape fails.

    Where that is not certain, as a stand-in may have caused it, ``is_certain`` is false.
    """

    def __init__(self, message: str, is_certain: bool = True) -> None:
        super().__init__(message)
        self.is_certain = is_certain
