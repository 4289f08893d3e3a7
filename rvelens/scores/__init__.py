"""Head scores: several definitions of which heads matter for the verb, with one interface.

- `maps.py`: scores of the last token's attention to the image, for both texts of a pair.
- `effects.py`: scores of the effect on the answer: gradients, and patching of a head's output.
- `heads.py`: `score_heads`, which computes a profile from pairs with any score.
"""

from __future__ import annotations

from rvelens.scores.heads import COMPARED, SCORES, Score, find_score, score_heads

__all__ = ["COMPARED", "SCORES", "Score", "find_score", "score_heads"]
