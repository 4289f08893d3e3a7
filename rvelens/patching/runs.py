"""Two runs of one model with different answers: the source and the target of patches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rvelens.files.arguments import refuse_wrong_types
from rvelens.files.wording import counted
from rvelens.model.hook_root import Hooks
from rvelens.model.hooked_lvlm import HookedLVLM
from rvelens.model.prompts import ImageLike
from rvelens.model.token_ids import token_ids
from rvelens.tokens.token_map import TokenMap


@refuse_wrong_types
@dataclass(frozen=True, eq=False)
class Condition:
    """The image, the question and the hooks of a run.

    Attributes:
        image: as `model.prepare` takes it.
        question: one question.
        hooks: the hooks of the run; [] for the plain model.
    """

    image: ImageLike
    question: str
    hooks: Hooks = ()


@dataclass(frozen=True, eq=False)
class RunPair:
    """A clean and a corrupted run, and the two answers that measure the effect of patches.

    Attributes:
        model: the hooked model.
        clean: the run that activations are taken from.
        corrupted: the run that activations are put into.
        prompt: the preset or template around both questions.
        answers: two token ids; the measure is the logit of the first minus the logit of the second.
        clean_difference, corrupted_difference: the measure of both runs, in logits.
        tokens: the token map, the same for both prompts.
    """

    model: HookedLVLM = field(repr=False)
    clean: Condition
    corrupted: Condition
    prompt: str
    answers: tuple[int, int]
    clean_difference: float
    corrupted_difference: float
    tokens: TokenMap = field(repr=False)

    @refuse_wrong_types
    def inputs(self, side: Literal["clean", "corrupted"], copies: int = 1) -> Any:
        """Prepared inputs of one run, as a batch of `copies` equal samples."""
        run: Condition = getattr(self, side)
        return self.model.prepare([run.image] * copies, [run.question] * copies, self.prompt)

    @refuse_wrong_types
    @torch.no_grad()
    def cache(self, side: Literal["clean", "corrupted"], points: Sequence[str]) -> Any:
        """The tensors at hook points in one of the runs, under the hooks of that run."""
        with self.model.hooks(getattr(self, side).hooks):
            inputs = self.inputs(side)
            return self.model.run_with_cache(**inputs, names_filter=list(points), logits_to_keep=1)[
                1
            ]

    def effect(self, logits: Float[Tensor, "setting vocab"]) -> Float[Tensor, " setting"]:
        """The effect that logits of the next token show: 0 is the corrupted run, 1 the clean run."""
        difference = _difference(logits, self.answers).double().cpu()
        whole = self.clean_difference - self.corrupted_difference
        return ((difference - self.corrupted_difference) / whole).float()

    @refuse_wrong_types
    def image_positions(
        self, region: Bool[Tensor, " image"] | None = None
    ) -> Bool[Tensor, " position"]:
        """A mask of the positions of all image tokens, or of those in a region of the image.

        Args:
            region: a mask of image tokens, as `model.image_grid(image).tokens_in` returns it; None for
                all.

        Raises:
            ValueError: a region of another length.
        """
        positions = self.tokens.image[0].cpu().clone()
        n_image = int(positions.sum())
        if region is None:
            return positions
        if len(region) != n_image:
            raise ValueError(
                f"a region of {len(region)} tokens for an image of {n_image}: expected one entry for "
                "each image token; make it with model.image_grid(image).tokens_in."
            )
        positions[positions.clone()] = region.cpu()
        return positions


@refuse_wrong_types
def pair_runs(
    model: HookedLVLM,
    clean: Condition | tuple[ImageLike, str],
    corrupted: Condition | tuple[ImageLike, str],
    answers: Sequence[str | int] | None = None,
    *,
    prompt: str = "chat",
) -> RunPair:
    """Run a clean and a corrupted prompt, to patch activations of the first into the second.

    The runs differ in their images, in their questions, or in their hooks. Either the clean or the
    corrupted run may be the steered run.

    Args:
        model: the hooked model, without active hooks.
        clean, corrupted: (image, question), or a `Condition` with hooks.
        answers: two tokens, as texts or ids, such as `("Yes", "No")`. The difference of their logits
            measures a patch. None for the most likely next token of each run.
        prompt: as in `model.prepare`.

    Raises:
        ValueError: active hooks; prompts of unequal length; image tokens at other positions or in
            another grid; answers that are not two different tokens; or an equal difference of the
            answers' logits in both runs, which allows no measurement.
    """
    if model.list_hooks():
        raise ValueError(
            "hooks are on, and each run has its own: expected none; put them into a Condition."
        )
    clean, corrupted = _condition(clean), _condition(corrupted)
    sides = (clean, corrupted)
    inputs = [model.prepare(side.image, side.question, prompt) for side in sides]
    tokens = _check_layout(model, sides, inputs)
    logits = torch.cat(
        [_logits(model, side.hooks, x) for side, x in zip(sides, inputs, strict=True)]
    )
    ids = _answer_ids(model, answers, logits)
    first, second = _difference(logits, ids).tolist()
    _check_difference(first, second, logits)
    return RunPair(model, clean, corrupted, prompt, ids, first, second, tokens)


def _condition(condition: Condition | tuple[ImageLike, str]) -> Condition:
    return condition if isinstance(condition, Condition) else Condition(*condition)


@torch.no_grad()
def _logits(model: HookedLVLM, hooks: Hooks, inputs: Mapping[str, Any]) -> Float[Tensor, "1 vocab"]:
    with model.hooks(hooks):
        return model(**inputs, logits_to_keep=1)[:, -1]


def _difference(
    logits: Float[Tensor, "setting vocab"], answers: tuple[int, int]
) -> Float[Tensor, " setting"]:
    first, second = answers
    return logits[:, first].float() - logits[:, second].float()


def _check_layout(
    model: HookedLVLM, sides: Sequence[Condition], inputs: Sequence[Mapping[str, Any]]
) -> TokenMap:
    """The token map of both prompts; raises ValueError where a position means another thing in each."""
    clean, corrupted = map(model.token_map, inputs)
    if clean.n_keys != corrupted.n_keys:
        raise ValueError(
            f"a clean prompt of {clean.n_keys} tokens and a corrupted one of {corrupted.n_keys}: "
            "expected prompts of one length, so that each position has its counterpart; take "
            "questions with as many tokens, and images of one size."
        )
    if not torch.equal(clean.image, corrupted.image):
        first = int((clean.image != corrupted.image)[0].int().argmax())
        raise ValueError(
            f"position {first} is an image token in one prompt alone: expected image tokens at the "
            "same positions in both; take a prompt with the image before the question, and images "
            "of one size."
        )
    if sides[0].image is not sides[1].image:
        layouts = [_layout(model, side.image) for side in sides]
        if layouts[0] != layouts[1]:
            raise ValueError(
                "the tokens of the clean and the corrupted image lie in other rows and columns: "
                "expected images of one grid; scale them to one size."
            )
    return clean


def _layout(model: HookedLVLM, image: ImageLike) -> list[tuple[int, ...]]:
    grid = model.image_grid(image)
    tiles = () if grid is None else grid.tiles
    return [(tile.start, tile.rows, tile.columns, tile.stride) for tile in tiles]


def _answer_ids(
    model: HookedLVLM,
    answers: Sequence[str | int] | None,
    logits: Float[Tensor, "run vocab"],
) -> tuple[int, int]:
    if answers is None:
        ids = logits.argmax(dim=-1).tolist()
    elif len(answers) == 2 and not isinstance(answers, str):
        ids = token_ids(model, answers, "answer")
    else:
        raise ValueError(
            f"{counted(len(answers), 'answer')}: expected two tokens, that of the clean "
            "run first; pass a pair."
        )
    first, second = ids
    if first == second:
        subject = "both runs" if answers is None else "both answers"
        raise ValueError(
            f"{subject} give the token {model.to_single_str_token(first)!r}: expected two different "
            "answers; pass answers=, such as ('Yes', 'No')."
        )
    return first, second


def _check_difference(clean: float, corrupted: float, logits: Float[Tensor, "run vocab"]) -> None:
    """Raise ValueError where the runs differ by no more than rounding does."""
    rounding = 4 * torch.finfo(logits.dtype).eps * float(logits.abs().max())
    if not abs(clean - corrupted) > max(1e-3, rounding):  # NaN is refused too
        raise ValueError(
            f"the answers' logits differ by {clean:.4f} in the clean run and by {corrupted:.4f} in the "
            "corrupted one: expected another difference in each, by which effects are divided; take "
            "runs or answers that differ."
        )
