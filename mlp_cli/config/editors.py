"""The JSON Schema of a config file, so that editors complete, explain and underline while one writes."""

from mlp_cli.config.schema import Config


def json_schema():
    """JSON Schema (draft 2020-12) of what may be written, bare words and shorthands included."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Config.model_json_schema(),
        "title": "mlp config",
    }
