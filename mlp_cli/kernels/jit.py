"""How a kernel is declared: with an explicit signature, compiled for one scalar type at a time (see `build`)."""

from collections.abc import Callable

from mlp_cli.kernels.signatures import parse


class Kernel:
    """A function in the part of Python that numba compiles, and the letters of its signature."""

    def __init__(self, function: Callable, signature: str, entry: bool):
        self.function, self.signature, self.entry = function, signature, entry
        self.result, self.letters = parse(signature)
        self.__name__, self.__doc__ = function.__name__, function.__doc__

    @property
    def _numba_type_(self):
        """What numba makes of the name where another kernel mentions it: the callee is compiled first."""
        from mlp_cli.kernels.build import Build

        return Build.in_progress.type_of(self)


# The kernels that Python calls.
ENTRIES: list[Kernel] = []


def kernel(signature: str, entry: bool = False):
    """Declare a kernel, `@kernel("n(p,i)")`: result and arguments in the letters of `signatures`.

    Entry kernels are the ones that Python calls.
    """

    def decorate(function: Callable) -> Kernel:
        declared = Kernel(function, signature, entry)
        if entry:
            ENTRIES.append(declared)
        return declared

    return decorate
