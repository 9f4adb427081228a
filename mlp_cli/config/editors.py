"""The JSON Schema of a config file, so that editors complete, explain and underline while one writes."""

from pydantic.json_schema import GenerateJsonSchema

from mlp_cli.config import places
from mlp_cli.config.schema import Config


def json_schema():
    """JSON Schema (draft 2020-12) of what may be written, bare words and shorthands included."""
    schema = Config.model_json_schema(schema_generator=_Generator)
    for definition, model in zip([schema, *schema["$defs"].values()], [Config, *_models(schema)], strict=True):
        for name, field in model.model_fields.items():
            if field.default_factory is not None:
                definition["properties"][name]["default"] = places.default_of(field)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "mlp config"}


class _Generator(GenerateJsonSchema):
    """Without a title for every key: the key says it already."""

    def field_title_should_be_set(self, schema):
        return False


def _models(schema):
    """The models behind the definitions of a schema."""
    by_name = {model.__name__: model for model in places.all_models()}
    return [by_name[name] for name in schema["$defs"]]
