"""Visual contrastive decoding (Leng et al. 2024): the second branch sees a diffused image."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from rvelens.files.arguments import refuse_wrong_types
from rvelens.interventions.contrast import ContrastProcessor
from rvelens.model.hooked_lvlm import HookedLVLM

STEPS = 1000


def signal_left(step: int) -> float:
    """abar_t, the product of 1 - beta up to a step, of the authors' schedule of 1000 steps.

    Raises:
        ValueError: a step outside 1 to 999.
    """
    if not 1 <= step < STEPS:
        raise ValueError(
            f"step={step}: expected a step of the diffusion from 1 to {STEPS - 1}; the published "
            "one is 500."
        )
    # https://github.com/DAMO-NLP-SG/VCD/blob/d6568ff81b8fd306a49e630df44f2db5c2300191/vcd_utils/vcd_add_noise.py#L7-L8
    betas = torch.linspace(-6, 6, STEPS).sigmoid() * (0.5e-2 - 1e-5) + 1e-5
    return float(torch.cumprod(1 - betas, dim=0)[step])


def noise_seed(seed: int, name: str) -> int:
    """The seed of an image's noise, of nothing but the run's seed and the image's name."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@refuse_wrong_types
def diffused(
    pixel_values: Float[Tensor, "batch *tiles channel height width"],
    seeds: Sequence[int],
    step: int = 500,
) -> Float[Tensor, "batch *tiles channel height width"]:
    """x_t = sqrt(abar_t) x + sqrt(1 - abar_t) eps on normalised pixels.

    Args:
        pixel_values: normalised images, whole or in tiles; tiles of zeros are padding and stay.
        seeds: of each image's noise. It is drawn tile by tile on the CPU, so that it depends neither
            on the device nor on how many tiles the batch was padded to.
        step: t, from 1 to 999.

    Raises:
        ValueError: a step outside its range.
    """
    left = signal_left(step)
    noisy = pixel_values.float().clone()
    for image, seed in zip(noisy, seeds, strict=True):
        generator = torch.Generator().manual_seed(seed)
        for tile in image.view(-1, *image.shape[-3:]):
            noise = torch.randn(tile.shape, generator=generator).to(tile.device)
            if bool(tile.any()):  # Idefics3 knows the tiles that pad a batch by their zeros.
                tile.copy_(left**0.5 * tile + (1 - left) ** 0.5 * noise)
    return noisy.to(pixel_values.dtype)


@refuse_wrong_types
def vcd_negative(
    inputs: Mapping[str, Any],
    names: Sequence[str],
    step: int = 500,
    seed: int = 55,
    n_image: Sequence[int] | None = None,
) -> dict[str, Any]:
    """The same inputs with diffused images.

    Args:
        inputs: what `model.prepare` returned.
        names: name of each sample's image; equal names get equal noise, in any batch and order.
        step: step of the diffusion, from 1 to 999.
        seed: seed of the run.
        n_image: image tokens of each sample, `model.token_map(inputs).n_image`; needed where a
            processor lines up the tiles or patches of all samples (InternVL, Qwen-VL).

    Raises:
        ValueError: a step outside its range, another number of names, or pixels that do not say
            which sample they belong to.
    """
    n_samples = inputs["input_ids"].shape[0]
    if len(names) != n_samples:
        raise ValueError(
            f"{len(names)} image names for {n_samples} samples: expected one for each sample, "
            "since its noise follows from its name; pass as many."
        )
    pixels: Tensor = inputs["pixel_values"]
    images = _one_frame(pixels) if pixels.dim() == 2 else pixels
    parts = images.split(_sizes(images.shape[0], n_samples, n_image))
    seeds = [noise_seed(seed, name) for name in names]
    noisy = torch.cat(
        [diffused(part[None], [its], step)[0] for part, its in zip(parts, seeds, strict=True)]
    )
    if pixels.dim() == 2:
        noisy = noisy.expand(-1, -1, 2, -1).reshape(pixels.shape)
    return {**inputs, "pixel_values": noisy}


def _sizes(n_entries: int, n_samples: int, n_image: Sequence[int] | None) -> list[int]:
    """Entries of the first axis of pixels by sample: one each, or in step with image tokens."""
    if n_entries == n_samples:
        return [1] * n_samples
    n_image = [1] if n_image is None and n_samples == 1 else n_image
    if n_image is None or any(n_entries * n % max(sum(n_image), 1) for n in n_image):
        raise ValueError(
            f"{n_entries} entries of pixel_values for {n_samples} samples: expected one for each "
            "sample, or n_image to assign them; pass model.token_map(inputs).n_image."
        )
    return [n_entries * n // sum(n_image) for n in n_image]


def _one_frame(
    patches: Float[Tensor, "patch pixel"],
) -> Float[Tensor, "patch channel 1 pixel_of_frame"]:
    """Qwen-VL takes an image for a video of two equal frames; its noise must be the same in both."""
    if patches.shape[1] % 6 == 0:
        frames = patches.view(patches.shape[0], 3, 2, -1)
        if torch.equal(frames[:, :, 0], frames[:, :, 1]):
            return frames[:, :, :1]
    raise ValueError(
        f"pixel_values of shape {tuple(patches.shape)}: expected images, or flat patches of 3 "
        "channels and 2 equal frames; use another method for this family."
    )


@refuse_wrong_types
def vcd(
    model: HookedLVLM,
    inputs: Mapping[str, Any],
    names: Sequence[str],
    alpha: float = 1.0,
    beta: float = 0.1,
    step: int = 500,
    seed: int = 55,
) -> ContrastProcessor:
    """The processor of one generation: contrast with the diffused images.

    Args:
        model: the model that generates.
        inputs: what goes into its generate.
        names: name of each sample's image, see `vcd_negative`.
        alpha: strength (published: 1).
        beta: cutoff (published: 0.1; the authors' script for POPE says 0.2).
        step: step of the diffusion (published: 500).
        seed: seed of the run.

    Raises:
        ValueError: an argument outside its range, or see `vcd_negative`.
    """
    n_image = model.token_map(dict(inputs)).n_image
    negative = vcd_negative(inputs, names, step, seed, n_image)
    return ContrastProcessor(model, negative, alpha, beta)
