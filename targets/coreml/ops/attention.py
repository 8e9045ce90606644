"""The node that ``fusions/attention.py`` makes."""

from __future__ import annotations

import math
from typing import Any

from edgewise.targets.coreml.building import Building
from edgewise.targets.coreml.fusions.attention import DOMAIN, OP
from edgewise.targets.coreml.row import FLOATS, Row


def _attention(b: Building) -> Any:
    """MIL divides by the root of the query's last dim; any other scale goes into the query first."""
    query = b.x(0)
    factor = b.real("scale") * math.sqrt(int(b.dims(0)[-1] or 1))
    if abs(factor - 1) > 1e-6:
        query = b.mb.mul(x=query, y=b.like(factor))
    mask = b.x(3) if b.given(3) else None
    return b.mb.scaled_dot_product_attention(query=query, key=b.x(1), value=b.x(2), attn_mask=mask)


ROWS = (Row(OP, _attention, dtypes=FLOATS, ios=18, domain=DOMAIN, note="found in graphs, from iOS 18 on"),)
