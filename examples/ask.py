"""Ask one question about one image, without a method and with RVE.

    python examples/ask.py
    python examples/ask.py --image photo.jpg --question "Is the man holding the dog?" \
        --model llava-hf/llava-1.5-7b-hf --device-map auto --profile published

Without --image, an image is drawn. `rvelens/tiny` knows drawn scenes and their questions alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch

from rvelens import ARSProfile, HookedLVLM
from rvelens.benchmarks.action_scenes import make_questions
from rvelens.interventions.methods import make_method
from rvelens.model.yes_no import yes_no_probabilities


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="rvelens/tiny", help="hub name or folder")
    parser.add_argument("--device-map", help="'auto' for a GPU")
    parser.add_argument("--image", help="a file; without it, a scene is drawn")
    parser.add_argument("--question", help="without it, the scene's own")
    parser.add_argument("--profile", default="rvelens/tiny", help="a file, or 'published'")
    args = parser.parse_args(argv)

    model = HookedLVLM.from_pretrained(args.model, dtype="auto", device_map=args.device_map)
    published = args.profile == "published"  # the authors' ranking for LLaVA-1.5-7B
    profile = ARSProfile.published("llava-1.5-7b") if published else ARSProfile.load(args.profile)
    scene = make_questions("test", 1)[0]
    image, question = args.image or scene.image, args.question or scene.text

    print(question)
    for name in ("vanilla", "rve"):
        method = make_method(name, model, profile)
        with torch.no_grad(), model.hooks(method.hooks):
            (said,) = model.ask(image, [question])
            logits = model(**model.prepare(image, question), logits_to_keep=1)[:, -1]
        yes, no = yes_no_probabilities(logits, model.processor)[0].tolist()
        print(f"{name:8} {said!r}  P(yes) {yes:.3f}  P(no) {no:.3f}")


if __name__ == "__main__":
    main()
