"""`mlp schema`: the JSON Schema of the config, for editors."""

import click


@click.command("schema", short_help="Print the JSON Schema of the config.")
def command():
    """Print the JSON Schema of the config.

    \b
    mlp schema > mlp.schema.json
    and begin a config with: # yaml-language-server: $schema=mlp.schema.json
    """
    import json

    from mlp_cli.config import json_schema

    click.echo(json.dumps(json_schema(), indent=2))
