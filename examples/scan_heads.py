"""Score every attention head by how far it looks elsewhere when the verb changes (ARS).

    python examples/scan_heads.py --out profile.safetensors --heatmap ars.png
    python examples/scan_heads.py --model llava-hf/llava-1.5-7b-hf --device-map auto \
        --pairs pairs.jsonl --images images --out profile.safetensors

Without --pairs, contrastive pairs about drawn scenes; `rvelens pairs make` writes them for photographs.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from rvelens import HookedLVLM, score_heads
from rvelens.benchmarks.action_scenes import contrastive_pairs
from rvelens.pairs import load_pairs
from rvelens.plots import ars_heatmap, save_figure


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="rvelens/tiny", help="hub name or folder")
    parser.add_argument("--device-map", help="'auto' for a GPU")
    parser.add_argument("--pairs", help="JSON lines; without it, pairs are drawn")
    parser.add_argument("--images", default=".", help="folder of the pairs' images")
    parser.add_argument("-n", type=int, default=32, help="pairs to use at most")
    parser.add_argument("--out", required=True, help="profile to write, .safetensors")
    parser.add_argument("--heatmap", help="picture to write, .png, .pdf or .svg")
    args = parser.parse_args(argv)

    given = load_pairs(args.pairs, args.images) if args.pairs else None
    pairs = contrastive_pairs("validation", args.n) if given is None else given[: args.n]
    model = HookedLVLM.from_pretrained(args.model, dtype="auto", device_map=args.device_map)
    profile = score_heads(model, pairs)
    profile.save(args.out)
    if args.heatmap:
        save_figure(ars_heatmap(profile, title=f"{model.name}, {len(pairs)} pairs"), args.heatmap)

    print(f"{model.name}, {len(pairs)} pairs: mean ARS of each layer, and its most sensitive heads")
    for layer, scores in enumerate(profile.scores):
        heads = profile.top(layer, min(3, model.n_heads))
        named = "  ".join(f"head {head} {scores[head]:.3f}" for head in heads)
        print(f"layer {layer:2}  {scores.mean():.3f}   {named}")
    print("layers at or above the mean of all:", profile.auto_layers())


if __name__ == "__main__":
    main()
