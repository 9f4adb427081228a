"""What can go wrong, by exit code. Every message is one sentence for the user: where, what, and the remedy.

Only `cli` turns these into text on stderr and an exit status; everywhere else they are ordinary exceptions.
"""


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
    """SIGTERM, SIGHUP or SIGUSR1 arrived and a checkpoint is saved: run again with --resume."""

    exit_code = 75


class Interrupted(MlpError):
    """Ctrl-C; a checkpoint is saved."""

    exit_code = 130
