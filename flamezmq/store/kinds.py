"""What references say about the types of their values."""

from __future__ import annotations

#: Of what a reference says about its value's type, in its text.
KIND_CHARS = 80


def kind_of(value: object) -> str:
    """The type of a value in words; of an array with its dtype and shape."""
    kind = type(value)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    try:
        shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
        if isinstance(shape, tuple) and dtype is not None:
            name = f"{name} {dtype} {shape}"
        elif kind in (list, tuple, dict, set, frozenset):
            name = f"{name} of {len(value)}"  # type: ignore[arg-type]
    except Exception:  # properties of the user's
        pass
    return name if len(name) <= KIND_CHARS else f"{name[: KIND_CHARS - 3]}..."
