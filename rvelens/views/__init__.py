"""Views: ways to say how much a token of the answer looks at, or depends on, each image token.

`view_images` is the way in; `VIEWS` lists them with their sources.

- `base.py`: what a view is, and what is asked of one.
- `maps.py`: attention, gradients of it, and what it passes on from layer to layer.
- `lens.py`: the logit lens: what each image token would predict.
- `registry.py`: all views by name, and the function that takes images and questions.
"""

from __future__ import annotations

from rvelens.views.base import View
from rvelens.views.registry import VIEWS, find_view, view_images

__all__ = ["VIEWS", "View", "find_view", "view_images"]
