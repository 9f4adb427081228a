"""Which columns of a table are inputs, targets and weights, and how the columns of another file fit them."""

from collections import Counter
from dataclasses import dataclass

from mlp_cli.data.reading import Known
from mlp_cli.errors import DataError, OptionError
from mlp_cli.wording import listed, nearest, plain, plural, quoted


@dataclass(frozen=True)
class Roles:
    """Names of the columns that go in, are to be learned, and weigh the rows (or None)."""

    features: tuple[str, ...]
    targets: tuple[str, ...]
    weight: str | None


def choose(table, options):
    """Read features, exclude, target and sample_weight of `cfg.data` against the columns of the training table."""
    excluded = _resolved(table, options.exclude or [], "data.exclude")
    wanted = _resolved(table, options.features or [], "data.features")
    weight = None
    if options.sample_weight is not None:
        (weight,) = _resolved(table, [options.sample_weight], "data.sample_weight", of_list=False)
    targets = _targets(table, options, {*excluded, *wanted, weight})
    learned = set(targets)
    for key, names in (("data.exclude", excluded), ("data.features", wanted)):
        for name in names:
            if name in learned or name == weight:
                role = "the target" if name in learned else "the sample weight"
                raise OptionError(key, f"names {quoted(name)}, which is {role}; take it out of one of them")
    if weight in learned:
        raise OptionError("data.sample_weight", f"{quoted(weight)} is the target too; name another column")
    _resolved(table, map(str, options.columns or {}), "data.columns", of_list=False)
    both = set(excluded) & set(wanted)
    if both:
        raise OptionError("data.exclude", f"names {listed(sorted(both))}, which data.features names too")
    left_out, wanted = {*excluded, *targets, weight}, set(wanted)
    features = [name for name in table.names if name not in left_out and (not wanted or name in wanted)]
    if not features:
        raise DataError(
            f"{table.source}: no column is left to learn from (columns: {listed(table.names)}; target: "
            f"{listed(targets)}); if the cells are not separated by what they seem, set data.delimiter"
        )
    return Roles(tuple(features), tuple(targets), weight)


def _targets(table, options, taken):
    labels = getattr(table, "labels", [])
    if labels:
        if options.target is not None and list(_target_keys(options)) != list(labels):
            raise OptionError("data.target", f"{table.source} comes with y, which is the target; leave data.target out")
        return labels
    if getattr(table, "flattened", False):
        raise DataError(f"{table.source}: holds images without labels; give both as {{x: ..., y: ...}}")
    if options.target is not None:
        targets = _resolved(table, _target_keys(options), "data.target", isinstance(options.target, list))
        if not targets:
            raise OptionError("data.target", "is an empty list; expected a column")
        return targets
    free = [name for name in table.names if name not in taken]
    if not free:
        raise DataError(f"{table.source}: no column is left to be the target; name it in data.target")
    return free[-1:]


def _target_keys(options):
    return options.target if isinstance(options.target, list | tuple) else [options.target]


def _resolved(table, keys, option, of_list=True):
    """The columns that `keys` name. Messages point at the item of a list."""
    known = set(table.names)
    names = [_resolve(table, key, f"{option}.{i}" if of_list else option, known) for i, key in enumerate(keys)]
    for name, count in Counter(names).items():
        if count > 1:
            raise OptionError(option, f"names {quoted(name)} twice")
    return names


def _resolve(table, key, option, known):
    """The column of that name, among the set of `known` ones, or with that number, from 0."""
    if isinstance(key, int) and not isinstance(key, bool):
        if 0 <= key < len(table.names):
            return table.names[key]
        last = len(table.names) - 1
        raise OptionError(
            option, f"expected a column of {table.source} by name or by number from 0 to {last}; got {key}"
        )
    if key in known:
        return key
    near = nearest(str(key), table.names)
    hint = f". Did you mean {plain(near)}?" if near else ""
    raise OptionError(option, f"expected a column of {table.source} ({listed(table.names)}); got {quoted(key)}{hint}")


def known(table, roles):
    """What another file is matched against."""
    return Known(tuple(table.names), roles.features, roles.targets, table.named)


def match(table, known, need_target):
    """Give the columns of another table the names of the training table, by name or, without names, by position.

    DataError when columns are missing, or when the number of unnamed ones fits neither the training table, nor it
    without its targets, nor its features alone.
    """
    if not table.named or not known.named:
        _match_by_position(table, known, need_target)
    present = set(table.names)
    missing = [name for name in known.features if name not in present]
    if missing:
        raise DataError(
            f"{table.source}: has no column {listed(map(quoted, missing))}, which the model needs "
            f"(it has {listed(table.names)})"
        )
    if need_target:
        for name in known.targets:
            if name not in table.names:
                raise DataError(f"{table.source}: has no column {quoted(name)}, the target")


def _match_by_position(table, known, need_target):
    inputs = [name for name in known.columns if name not in known.targets]
    count, labels = len(table.names), len(getattr(table, "labels", []))
    if labels:
        inputs_given = count - labels
        fits = labels == len(known.targets)
        for names in (inputs, list(known.features)):
            if fits and inputs_given == len(names):
                return table.rename([*names, *known.targets])
        raise DataError(
            f"{table.source}: has {plural(inputs_given, 'column')} of inputs and {labels} of targets; expected "
            f"{len(inputs)} and {len(known.targets)}"
        )
    for names in (list(known.columns), inputs, list(known.features)):
        if count == len(names) and not (need_target and not set(known.targets) <= set(names)):
            return table.rename(names)
    expected = str(len(known.columns)) if need_target else f"{len(known.columns)}, or {len(inputs)} without target"
    raise DataError(
        f"{table.source}: has {plural(count, 'column')}; expected {expected}, in the order of the training data"
    )
