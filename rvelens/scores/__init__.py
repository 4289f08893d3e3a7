"""Head scores: which heads matter for the verb, each by its own definition, all called alike.

- `maps.py`: from attention of the last token to the image, under both texts of a pair.
- `effects.py`: from what the model answers: gradients, and patching a head's output.
- `heads.py`: `score_heads`, which takes pairs to a profile by any of them.
"""

from __future__ import annotations

from rvelens.scores.heads import COMPARED, SCORES, Score, find_score, score_heads

__all__ = ["COMPARED", "SCORES", "Score", "find_score", "score_heads"]
