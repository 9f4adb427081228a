"""The config: YAML with line marks in, one checked `Config` out, or every mistake at once.

Nothing heavy is imported before it is needed: `mlp --help` must not wait for pydantic.
"""

__all__ = ["Config", "dump", "from_resolved", "json_schema", "load"]


def load(paths, overrides=(), tell=lambda paths, whole: None):
    """Reads config files, merges them left to right, applies `a.b=value` overrides, and checks everything.

    `tell` hears of the files once all are read: their paths, and which of them have data and a network of their own.
    Returns a Config. Raises ConfigError with all mistakes, one a line, in the order in which they were written.
    """
    from mlp_cli.config import loading

    return loading.load(paths, overrides, tell)


def from_resolved(values):
    """The Config of a dict that `Config.resolved()` made, from a checkpoint for example. Raises ConfigError."""
    from mlp_cli.config import loading

    return loading.from_resolved(values)


def dump(config):
    """A Config as YAML that `load` reads back to an equal one: every default written out, paths absolute."""
    from mlp_cli.config import writer

    return writer.dump(config.resolved())


def json_schema():
    """The JSON Schema of a config file, for editors."""
    from mlp_cli.config import editors

    return editors.json_schema()


def __getattr__(name):
    if name == "Config":
        from mlp_cli.config.schema import Config

        return Config
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
