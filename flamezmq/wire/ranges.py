"""Ranges of columns: what the codec checks by itself, beside the type."""

from __future__ import annotations

from typing import Annotated

import msgspec

#: Small enough that sums of two are still numbers of the wire.
Index = Annotated[int, msgspec.Meta(ge=0, le=1 << 62)]
Count = Annotated[int, msgspec.Meta(ge=1, le=1 << 62)]
#: Of something; 0 means that there is none.
Limit = Annotated[int, msgspec.Meta(ge=0, le=1 << 62)]
#: A run time; not a NaN, not infinite.
Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e12)]
Priority = Annotated[int, msgspec.Meta(ge=-(1 << 31), le=1 << 31)]
#: Of a session, in its share.
Weight = Annotated[float, msgspec.Meta(gt=0, le=1e18)]
#: Of a resource.
Amount = Annotated[float, msgspec.Meta(ge=0, le=1e18)]
