"""All views by name, and `view_images`, which applies one to images and questions."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rvelens.files.arguments import refuse_wrong_types
from rvelens.files.wording import counted
from rvelens.model.hooked_lvlm import HookedLVLM
from rvelens.model.prompts import Images
from rvelens.model.token_ids import token_ids
from rvelens.views import lens, maps
from rvelens.views.base import View, ViewInput

VIEWS = {
    view.name: view
    for view in (
        View(
            "attention",
            "mean over layers and heads of the last row's attention",
            "equation 3 of the paper compares such maps",
            maps.attention,
        ),
        View(
            "gradient-attention",
            "mean over layers and heads of attention times its positive gradients, in the last row",
            "Barkan et al. 2021, https://arxiv.org/abs/2204.11073",
            maps.gradient_attention,
        ),
        View(
            "relevancy",
            "attention times its gradients, passed on from layer to layer",
            "Chefer, Gur and Wolf 2021, https://arxiv.org/abs/2103.15679",
            maps.relevancy,
        ),
        View(
            "rollout",
            "attention and the residual connection in equal parts, multiplied over layers",
            "Abnar and Zuidema 2020, https://arxiv.org/abs/2005.00928",
            maps.rollout,
        ),
        View(
            "logit-lens",
            "largest probability over layers of the token behind each image token",
            "Jiang et al. 2024, https://arxiv.org/abs/2410.02762",
            lens.lens,
        ),
    )
}


@refuse_wrong_types
def find_view(name: str) -> View:
    """A view by its name.

    Raises:
        ValueError: an unknown name.
    """
    if name not in VIEWS:
        near = difflib.get_close_matches(name, VIEWS, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"view {name!r}: expected one of {', '.join(VIEWS)}; did you mean {near!r}?"
        )
    return VIEWS[name]


@refuse_wrong_types
def view_images(
    model: HookedLVLM,
    images: Images,
    questions: str | Sequence[str],
    view: str = "attention",
    *,
    targets: Sequence[str | int] | None = None,
    prompt: str = "chat",
) -> Float[Tensor, "question image"]:
    """How much the next token looks at, or depends on, each image token, with the active hooks.

    Views of all rows (relevancy, rollout) keep the attention [head query key] of all layers in memory.

    Args:
        model: the hooked model.
        images, questions, prompt: as in `model.prepare`; one batch.
        view: one of `VIEWS`.
        targets: the token to explain for each question, as text or id; None for the most likely next
            token. Attention and rollout do not depend on it.

    Returns:
        a number for each image token, float32 on the CPU; larger is more. Views have different scales.
        Samples with fewer image tokens are padded with zeros. `model.image_grid(image)` has the places
        of the tokens.

    Raises:
        ValueError: an unknown view, another number of targets, a target that is not one token, or an
            error of `prepare` or of the view.
    """
    chosen = find_view(view)
    inputs = model.prepare(images, questions, prompt)
    ids = None if targets is None else _ids_of(model, targets, len(inputs["input_ids"]))
    return chosen.compute(ViewInput(model, inputs, ids))


def _ids_of(
    model: HookedLVLM, targets: Sequence[str | int], n_questions: int
) -> Int[Tensor, " question"]:
    if isinstance(targets, str) or len(targets) != n_questions:
        description = (
            f"targets={targets!r}" if isinstance(targets, str) else f"{len(targets)} targets"
        )
        raise ValueError(
            f"{description} for {counted(n_questions, 'question')}: expected a list with "
            "one token for each "
            "question; pass one."
        )
    return torch.tensor(token_ids(model, targets, "target"))
