"""What can go wrong, by exit code. Every message is one sentence for the user: where, what, and the remedy.

Only `cli` turns these into text on stderr and an exit status; everywhere else they are ordinary exceptions.
"""

import errno


class MlpError(Exception):
    """A mistake or a condition that the user can act on; never shown as a traceback."""

    exit_code = 1


class CheckFailed(MlpError):
    """A self-test of ours failed, a gradient check for example."""

    exit_code = 1


class ConfigError(MlpError):
    """Wrong usage or a wrong config; the text holds every problem found, one a line."""

    exit_code = 2


class DataError(MlpError):
    """A data file that cannot be read or does not fit."""

    exit_code = 3


class OptionError(DataError):
    """An option of the config that the data do not bear out: a column that is not there, a split too small.

    `key` is the option's dotted key, for whoever knows where it was written; `message` says what is wrong with it.
    """

    exit_code = ConfigError.exit_code

    def __init__(self, key: str, message: str):
        super().__init__(f"{key}: {message}")
        self.key, self.message = key, message


class Diverged(MlpError):
    """The loss or the weights are no longer finite; `reason` says in a few words what was not, and where."""

    exit_code = 4

    def __init__(self, message: str, reason: str = ""):
        super().__init__(message)
        self.reason = reason


class SystemFault(MlpError):
    """The disk is full, a folder is read-only, memory has run out."""

    exit_code = 5


class CheckpointError(MlpError):
    """A checkpoint that cannot be read, is damaged, or belongs to something else."""

    exit_code = 6


class RunInUse(MlpError):
    """Another process writes to this run directory."""

    exit_code = 7


class RequirementNotMet(MlpError):
    """`mlp eval --require` was not met."""

    exit_code = 8


class Stopped(MlpError):
    """SIGTERM, SIGHUP, SIGUSR1 or SIGXCPU arrived, and what was trained is saved: run again with --resume."""

    exit_code = 75


class Interrupted(MlpError):
    """Ctrl-C; a checkpoint is saved."""

    exit_code = 130


# What a process may run out of, by the error number of the system: what is wrong, and the remedy.
MORE_PROCESSES = "raise the limit of processes (ulimit -u, or pids.max of the control group)"
_SHORTAGES = {
    errno.EMFILE: ("this process may open no more files", "raise its limit (ulimit -n)"),
    errno.ENFILE: ("the system can open no more files", "close other programs"),
    errno.ENOMEM: ("there is no memory left", "free memory, or raise the limit of the process (ulimit -v)"),
    errno.EAGAIN: ("no further process or thread can be started", MORE_PROCESSES),
}
# What Python, the dynamic linker and libraries say instead of an error number.
_WORDS = {
    "can't start new thread": errno.EAGAIN,
    "Failed to launch worker thread": errno.EAGAIN,
    "Too many open files": errno.EMFILE,
    "failed to map segment": errno.ENOMEM,
    "cannot map zero-fill pages": errno.ENOMEM,
    "annot allocate": errno.ENOMEM,
    "cannot create shared object": errno.ENOMEM,
}


def shortage(error: BaseException, where: str = "") -> SystemFault | None:
    """The SystemFault for an error that says that files, threads or memory have run out; None for any other error.

    Whoever makes an error of the data, the config or a checkpoint out of an OSError asks here first: a limit of the
    process is no mistake in a file. `where` is the file or folder.
    """
    number = getattr(error, "errno", None)
    if number is None and isinstance(error, OSError | ImportError | RuntimeError):
        number = next((number for words, number in _WORDS.items() if words in str(error)), None)
    if number not in _SHORTAGES:
        return None
    what, remedy = _SHORTAGES[number]
    if where and isinstance(error, BlockingIOError):  # the same number, but about a file
        what, remedy = "another process does not give it free", "end that one, or copy the file"
    if isinstance(error, ImportError):
        what += ", so a library cannot be loaded"
    return SystemFault(f"{where}: {what}; {remedy}" if where else f"{what[:1].upper()}{what[1:]}; {remedy}")
