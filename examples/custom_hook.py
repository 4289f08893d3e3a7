"""Start from here for a method of your own: a hook that edits attention scores before the softmax.

    python examples/custom_hook.py --sharpen 0.5 1 2
    python examples/custom_hook.py --model llava-hf/llava-1.5-7b-hf --device-map auto

The hook multiplies the scores of the last row's image tokens: above 1 it sharpens attention within the
image, below 1 it flattens it. Printed: the last token's attention to the image, and accuracy.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch

from rvelens import HookedLVLM
from rvelens.benchmarks.action_scenes import make_questions
from rvelens.benchmarks.rules import strict
from rvelens.heads.layers import parse_layers
from rvelens.hooks import ars_caching_hooks, tokens_of


def sharpen(factor: float):
    def hook_of_scores(scores, hook):  # [batch head query key]: scaled q.k, after the mask
        image = tokens_of(hook).image_keys(scores.shape[-1], scores.device)
        return torch.where(image[:, None, None], scores * factor, scores)

    return hook_of_scores


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="rvelens/tiny", help="hub name or folder")
    parser.add_argument("--device-map", help="'auto' for a GPU")
    parser.add_argument("--layers", default="preset", help="'14-31', '3,5' or 'preset'")
    parser.add_argument("--sharpen", type=float, nargs="+", default=[0.5, 1.0, 2.0])
    parser.add_argument("-n", type=int, default=64, help="questions")
    args = parser.parse_args(argv)

    model = HookedLVLM.from_pretrained(args.model, dtype="auto", device_map=args.device_map)
    layers = parse_layers(args.layers, None, model.n_layers)
    asked = make_questions("test", args.n)
    images, texts = [q.image for q in asked], [q.text for q in asked]
    for factor in args.sharpen:
        edit = [(f"blocks.{layer}.attn.hook_attn_scores", sharpen(factor)) for layer in layers]
        seen: dict[int, torch.Tensor] = {}
        with torch.no_grad(), model.hooks(edit + ars_caching_hooks(layers, seen)):
            model(**model.prepare(images[:8], texts[:8]), logits_to_keep=1)
            image = torch.stack([a.sum(dim=-1).mean() for a in seen.values()]).mean()
            said = model.ask(images, texts)
        right = sum(strict(s) == q.answer for s, q in zip(said, asked, strict=True)) / args.n
        print(f"factor {factor:g}: image attention {image:.3f}, accuracy {right:.3f}")


if __name__ == "__main__":
    main()
