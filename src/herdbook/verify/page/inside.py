"""Data for the page's script."""

from __future__ import annotations

import json
from typing import Any


def inside_script(data: Any) -> str:
    """Return data as JSON that cannot end the element that it is in."""
    content = json.dumps(data, separators=(",", ":"), ensure_ascii=True)
    return content.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
