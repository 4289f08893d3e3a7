"""`rvelens capture`: what hook points show of many questions, to disk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rvelens.benchmarks import BENCHMARKS, load_benchmark
from rvelens.cli.common import (
    BatchSize,
    DataFolder,
    DeviceMap,
    Dtype,
    DtypeOption,
    FamilyName,
    Limit,
    Model,
    Prompt,
    Suffix,
    bar,
    check_images,
    check_model_options,
    open_model,
    out,
    status,
    warn,
)
from rvelens.cli.methods import parse_names
from rvelens.cli.questions import (
    Columns,
    ImagesFolder,
    Questions,
    RuleName,
    own_questions,
    print_sources,
    refuse_without_benchmark,
)
from rvelens.files.paths import check_new_folder
from rvelens.heads.layers import parse_layers


def capture_command(
    model: Model,
    points: Annotated[
        str,
        typer.Option(
            help="Hook points, with * and ?, separated by commas: hook_resid_post,attn.hook_pattern."
        ),
    ],
    output: Annotated[Path, typer.Option("--out", "-o", help="Folder of the tensors.")],
    benchmark: Annotated[str | None, typer.Option(help=f"One of {', '.join(BENCHMARKS)}.")] = None,
    data: DataFolder = None,
    questions: Questions = None,
    images: ImagesFolder = None,
    column: Columns = None,
    rule: RuleName = None,
    layers: Annotated[
        str | None, typer.Option(help="Of points in layers, as in 10-20.", show_default="all")
    ] = None,
    rows: Annotated[str, typer.Option(help="last, which predicts the answer, or all.")] = "last",
    store_dtype: Annotated[
        str, typer.Option(help="Of the tensors: auto, float32, bfloat16 or float16.")
    ] = "auto",
    limit: Limit = None,
    prompt: Prompt = "chat",
    suffix: Suffix = "",
    batch_size: BatchSize = 8,
    family: FamilyName = None,
    dtype: DtypeOption = Dtype.auto,
    device_map: DeviceMap = None,
) -> None:
    """Store what hook points show of many questions, as safetensors with an index.

    The size is printed before it starts. Run the same command again to resume.
    Under `accelerate launch -m rvelens capture ...` several processes share the work.
    """
    from rvelens.evaluate.capture.run import CaptureRequest, check_disk_space, estimate_size
    from rvelens.evaluate.capture.run import capture as store

    own = own_questions(questions, images, column, rule, limit)
    if own:
        refuse_without_benchmark(None if benchmark is None else [benchmark], data=data)
    named = parse_names([] if benchmark is None else [benchmark], BENCHMARKS, "benchmark")
    loaded = [*own, *(load_benchmark(name, data, limit=limit) for name in named)]
    if len(loaded) != 1:
        raise ValueError(
            f"capture with {len(loaded)} sets of questions: expected one; name either --benchmark NAME "
            "or --questions FILE."
        )
    patterns = tuple(part.strip() for part in points.split(",") if part.strip())
    request = CaptureRequest(patterns, None, rows, store_dtype, prompt, suffix)
    if layers is not None:
        parse_layers(layers, None, 10_000)  # its form, before the model is loaded
    check_model_options(model, family, device_map, prompt)
    check_images(loaded)
    check_new_folder(output)
    print_sources(own)
    hooked = open_model(model, family=family, dtype=dtype, device_map=device_map)
    if layers is not None:
        chosen = tuple(parse_layers(layers, None, hooked.n_layers))
        request = CaptureRequest(patterns, chosen, rows, store_dtype, prompt, suffix)
    with status("measuring the first batch"):
        size = estimate_size(hooked, loaded[0], request, batch_size)
    warn(str(size))
    check_disk_space(output, size)
    index = store(
        hooked, loaded[0], request, output, batch_size=batch_size, progress=bar("capture")
    )
    if index is not None:
        out().print(f"tensors in {output}, index in {index}", soft_wrap=True)
