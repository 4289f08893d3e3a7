"""Views: ways to say how much a token of the answer looks at, or depends on, each image token.

Start with `view_images`. `VIEWS` lists the views with their sources.

- `base.py`: the type of a view, and its input.
- `maps.py`: attention, its gradients, relevancy and rollout.
- `lens.py`: the logit lens: what each image token would predict.
- `registry.py`: all views by name, and the function that takes images and questions.
"""

from __future__ import annotations

from rvelens.views.base import View
from rvelens.views.registry import VIEWS, find_view, view_images

__all__ = ["VIEWS", "View", "find_view", "view_images"]
