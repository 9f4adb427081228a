"""A resolved config as YAML for people: sections in blocks, short things on one line, bare words where they suffice."""

import re

import yaml

from mlp_cli.config.yaml_loader import FLOAT

WIDTH = 110
LINE_BREAKS = re.compile("[\n\r\x85\u2028\u2029]")
BLOCKS = {"data", "network", "training", "layers"}  # keys whose value is written over several lines
FREE = {"columns", "labels", "class_weights"}  # keys whose value has the user's own words for keys, "name" among them


class Dumper(yaml.SafeDumper):
    """Quotes what either YAML 1.1 or our own loader would read as something other than text."""

    def ignore_aliases(self, data):
        return True

    def increase_indent(self, flow=False, indentless=False):
        return super().increase_indent(flow, indentless=False)


Dumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(f"(?:{FLOAT.pattern})$"), list("+-.0123456789"))

REPRESENTER = Dumper("")  # to make a node of a scalar; it writes nothing


def dump(resolved):
    """YAML text of `Config.resolved()`."""
    dumper_node = _node(resolved, block=True)
    return yaml.serialize(dumper_node, Dumper=Dumper, width=WIDTH, allow_unicode=True)


def _node(value, block=False, free=False):
    """A PyYAML node; `block` says whether it takes several lines, `free` that its keys are the user's."""
    value = value if free else bare_word(value)
    if isinstance(value, dict):
        block = block or ("layers" in value and not free)
        pairs = [
            (_scalar(key), _node(child, block and key in BLOCKS, free=key in FREE and not free))
            for key, child in value.items()
        ]
        return yaml.MappingNode("tag:yaml.org,2002:map", pairs, flow_style=not block)
    if isinstance(value, list):
        return yaml.SequenceNode("tag:yaml.org,2002:seq", [_node(child) for child in value], flow_style=not block)
    return _scalar(value)


def bare_word(value):
    """relu for {name: relu}, uniform for {name: uniform, limit: null}; any other value as it is."""
    if not isinstance(value, dict):
        return value
    written = {key for key, option in value.items() if option is not None}
    return value["name"] if written == {"name"} else value


def _scalar(value):
    node = REPRESENTER.represent_data(value)
    if isinstance(value, str) and LINE_BREAKS.search(value):
        node.style = '"'  # escaped: in any other style they would be folded to spaces
    return node
