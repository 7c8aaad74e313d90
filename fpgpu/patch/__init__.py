"""From a region of sky to a patch: planned, packed, and judged by its likelihood."""
