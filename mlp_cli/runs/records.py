"""Numbers for other programs to read: a record as JSON, key order kept, every float with all its digits."""

import json
import math


def to_json(record: dict, indent: int | None = None) -> str:
    """One record as JSON text. What JSON has no word for, NaN and the infinities, becomes null; NumPy's scalars and
    arrays become numbers and lists."""
    return json.dumps(_plain(record), indent=indent, ensure_ascii=False, allow_nan=False)


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
