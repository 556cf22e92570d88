"""As much of JSON Schema (2020-12) as our own schemas use; a keyword that is not known here is an error."""

from __future__ import annotations

import re
from typing import Any

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
_NOTES = {"$schema", "$defs", "title", "description", "default", "format"}


def problems(value: Any, schema: Any, root: dict[str, Any], at: str = "$") -> list[str]:
    """Where `value` is not what `schema` allows. `root` holds the `$defs` that references name."""
    if schema is False:
        return [f"{at}: nothing is allowed here"]
    found: list[str] = []
    for keyword, rule in schema.items():
        if keyword not in _NOTES:
            found += [
                f"{at}: {text}" if not text.startswith("$") else text
                for text in _check(keyword, rule, value, schema, root, at)
            ]
    return found


def _check(keyword: str, rule: Any, value: Any, schema: dict[str, Any], root: dict[str, Any], at: str) -> list[str]:
    match keyword:
        case "$ref":
            return problems(value, root["$defs"][rule.rpartition("/")[2]], root, at)
        case "anyOf":
            tried = [problems(value, choice, root, at) for choice in rule]
            return [] if not all(tried) else [text for texts in tried for text in texts]
        case "type":
            fits = isinstance(value, _TYPES[rule]) and (rule == "boolean" or not isinstance(value, bool))
            return [] if fits else [f"{value!r} is not of type {rule}"]
        case "enum":
            return [] if value in rule else [f"{value!r} is none of {rule}"]
        case "pattern":
            return [] if not isinstance(value, str) or re.search(rule, value) else [f"{value!r} is not like {rule}"]
        case "minLength" | "minItems":
            return [] if not hasattr(value, "__len__") or len(value) >= rule else [f"{value!r} is shorter than {rule}"]
        case "maxLength" | "maxItems":
            return [] if not hasattr(value, "__len__") or len(value) <= rule else [f"{value!r} is longer than {rule}"]
        case "minimum":
            return [] if not isinstance(value, int | float) or value >= rule else [f"{value!r} is below {rule}"]
        case "required":
            return [f"{name} is missing" for name in rule if isinstance(value, dict) and name not in value]
        case "properties":
            known = {} if not isinstance(value, dict) else {k: v for k, v in value.items() if k in rule}
            return [text for name, part in known.items() for text in problems(part, rule[name], root, f"{at}.{name}")]
        case "prefixItems":
            pairs = enumerate(zip(value, rule, strict=False)) if isinstance(value, list) else ()
            return [text for n, (part, one) in pairs for text in problems(part, one, root, f"{at}[{n}]")]
        case "items":
            rest = value[len(schema.get("prefixItems", ())) :] if isinstance(value, list) else []
            return [text for n, part in enumerate(rest) for text in problems(part, rule, root, f"{at}[{n}]")]
    raise NotImplementedError(f"{at}: the keyword {keyword!r} is not known here")
