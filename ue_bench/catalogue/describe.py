"""Describe parameters and keys in words, from their JSON schema."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..contract.plugin import Plugin


def describe(plugin: type[Plugin]) -> list[str]:
    """Return a line for every parameter: name, type, default and range."""
    properties = plugin.model_json_schema().get("properties", {})
    return [f"{name}={describe_property(spec)}" for name, spec in properties.items()]


def describe_property(spec: dict[str, Any]) -> str:
    """Return the values that one parameter takes, from its JSON schema: ``integer 1..100, default 75``."""
    options = [o for o in spec.get("anyOf", [spec]) if o.get("type") != "null"]
    body = {**spec, **options[0]}
    if "enum" in body:
        text = "|".join(map(str, body["enum"]))
    elif "const" in body:
        text = str(body["const"])
    elif body.get("type") == "array":
        each = body.get("prefixItems", [])
        what, _, rest = describe_property(body.get("items") or next(iter(each), {})).partition(" ")
        text = f"list of {f'{len(each)} ' if each else ''}{what}s {rest}".rstrip()
    elif body.get("format") in (None, "ratio"):
        text = body.get("type", "value")
    else:
        text = body["format"]
    # pydantic writes the second spelling for a bound on an already annotated type
    low = next((body[k] for k in ("minimum", "exclusiveMinimum", "ge", "gt") if k in body), None)
    high = next((body[k] for k in ("maximum", "exclusiveMaximum", "le", "lt") if k in body), None)
    if low is not None or high is not None:
        text += f" {_bound(low)}..{_bound(high)}"
    if "default" in spec:
        from ..contract.values import format_value

        default = spec["default"]
        shown = default if isinstance(default, str) else format_value(default, body.get("format") == "ratio")
        text += f", default {shown}"
    return text


def _bound(value: float | None) -> str:
    """Write a bound as it was given: older versions of pydantic make 0.0 of the 0 of a float."""
    if value is None:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
