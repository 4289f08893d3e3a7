"""Run methods on a benchmark under equal conditions, and compare each with the first.

    python examples/evaluate.py --out run
    python examples/evaluate.py --model llava-hf/llava-1.5-7b-hf --device-map auto \
        --profile profile.safetensors --benchmark pope-random --data data --out run

Answers are kept in --out, and the same command goes on where it stopped. `rvelens eval` does more.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from rvelens import ARSProfile, HookedLVLM
from rvelens.benchmarks import BENCHMARKS, load_benchmark
from rvelens.evaluate import evaluate
from rvelens.interventions.methods import METHODS, make_method


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="rvelens/tiny", help="hub name or folder")
    parser.add_argument("--device-map", help="'auto' for a GPU")
    parser.add_argument("--profile", default="rvelens/tiny", help="of this model")
    parser.add_argument("--benchmark", default="action-scenes", choices=BENCHMARKS)
    parser.add_argument("--data", help="folder of the benchmark's files")
    parser.add_argument(
        "--method", nargs="+", default=["vanilla", "rve"], choices=METHODS, metavar="METHOD"
    )
    parser.add_argument("-n", type=int, default=100, help="questions, a random sample")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--out", required=True, help="folder of the run")
    args = parser.parse_args(argv)

    benchmark = load_benchmark(args.benchmark, args.data, limit=args.n)
    model = HookedLVLM.from_pretrained(args.model, dtype="auto", device_map=args.device_map)
    profile = ARSProfile.load(args.profile)
    methods = [make_method(name, model, profile) for name in args.method]
    report = evaluate(model, [benchmark], methods, args.out, batch_size=args.batch_size)
    if report is None or args.benchmark not in report["benchmarks"]:
        return  # not the first of several processes, or open-ended answers, which a judge scores
    found = report["benchmarks"][args.benchmark]["rules"]["official"]
    print(f"{benchmark.name}, {len(benchmark.items)} questions, official rule")
    for name, figures in found["methods"].items():
        accuracy, said_yes = figures["accuracy"], figures["yes_ratio"]["value"]
        ends = f"[{accuracy['low']:.3f}, {accuracy['high']:.3f}]"
        print(f"{name:8} accuracy {accuracy['value']:.3f} {ends}  yes-ratio {said_yes:.3f}")
    for pair in (pair for pair in found["pairs"] if pair["before"] == args.method[0]):
        print(f"{pair['after']} against {pair['before']}: {pair['verdict']}")


if __name__ == "__main__":
    main()
