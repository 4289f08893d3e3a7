"""What the name of a hook point says: its layer, and whether its tensor has an axis of keys."""

from __future__ import annotations

import re

# Points whose tensor is [batch head query key].
KEYED = ("attn.hook_attn_scores", "attn.hook_pattern")


def layer_of(name: str) -> int:
    """The layer in a hook name such as "blocks.3.attn.hook_z"; -1 if there is none."""
    match = re.match(r"blocks\.(\d+)\.", name)
    return int(match[1]) if match else -1
