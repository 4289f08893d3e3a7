"""Mask the most sensitive heads, and as many random ones: what does each cost in accuracy?

    python examples/ablate_heads.py -k 6
    python examples/ablate_heads.py --model llava-hf/llava-1.5-7b-hf --device-map auto \
        --profile profile.safetensors -k 5 --layers 14-31

Asked about drawn scenes. `rvelens study masking` does this on a benchmark, with more heads and draws.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence

import numpy as np

from rvelens import ARSProfile, HookedLVLM
from rvelens.benchmarks.action_scenes import make_questions
from rvelens.benchmarks.rules import strict
from rvelens.heads.layers import parse_layers
from rvelens.hooks import head_mask_hooks
from rvelens.stats import bootstrap


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="rvelens/tiny", help="hub name or folder")
    parser.add_argument("--device-map", help="'auto' for a GPU")
    parser.add_argument("--profile", default="rvelens/tiny", help="of this model")
    parser.add_argument("--layers", default="auto", help="'14-31', 'auto' (high ARS) or 'preset'")
    parser.add_argument("-k", type=int, default=4, help="heads to mask in each layer")
    parser.add_argument("-n", type=int, default=100, help="questions")
    args = parser.parse_args(argv)

    model = HookedLVLM.from_pretrained(args.model, dtype="auto", device_map=args.device_map)
    profile = ARSProfile.load(args.profile)
    layers = parse_layers(args.layers, profile, model.n_layers)
    draw, heads = random.Random(55), range(model.n_heads)
    masks = {
        "none": {},
        "sensitive": {layer: profile.top(layer, args.k) for layer in layers},
        "insensitive": {layer: profile.bottom(layer, args.k) for layer in layers},
        "random": {layer: draw.sample(heads, args.k) for layer in layers},
    }
    asked = make_questions("test", args.n)
    print(f"{args.k} heads in each of layers {layers}, {args.n} questions, one a scene")
    for name, mask in masks.items():
        with model.hooks(head_mask_hooks(mask)):
            said = model.ask([q.image for q in asked], [q.text for q in asked])
        right = np.array([strict(s) == q.answer for s, q in zip(said, asked, strict=True)])
        print(f"{name:12} accuracy {bootstrap(lambda i, r=right: r[i].mean(), np.arange(args.n))}")


if __name__ == "__main__":
    main()
