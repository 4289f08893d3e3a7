"""rvelens in lmms-eval: every method as a model, and the relation benchmarks as tasks.

Install the extra `lmms`, then lmms-eval itself without its dependencies, of which it would bring
torchvision and a hundred others that nothing here needs:

    pip install 'rvelens[lmms]'
    pip install --no-deps lmms-eval==0.7.3

lmms-eval finds the model by itself (entry point `lmms_eval.models`); the tasks it is pointed at:

    export RVELENS_DATA=/data     # not needed for rvelens_action_scenes
    python -m lmms_eval --model rvelens \\
        --model_args pretrained=llava-hf/llava-1.5-7b-hf,method=rve,profile=published,method.k=5 \\
        --include_path "$(python -c 'import rvelens.lmms; print(rvelens.lmms.TASKS)')" \\
        --tasks rvelens_amber_relation,rvelens_mmrel --batch_size 8

- `arguments.py`: what `--model_args` may say.
- `model.py`: lmms-eval's requests as batches of questions under a method.
- `task.py`: a benchmark of `rvelens.benchmarks` as a task, scored as `rvelens eval` scores it.
- `tasks/`: one YAML file a task: rvelens_action_scenes, rvelens_amber_relation,
  rvelens_rbench_image, rvelens_rbench_instance_box, rvelens_rbench_instance_mask, and
  rvelens_mmrel_{real,dalle}_{action,spatial}, which are together rvelens_mmrel. MMRel's open-ended
  part needs a judge and is left to `rvelens eval`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

TASKS = Path(__file__).parent / "tasks"
"""The folder for lmms-eval's `--include_path`."""


def manifest() -> Any:
    """What lmms-eval's registry asks of the entry point: where the model class is."""
    from lmms_eval.models.registry_v2 import ModelManifest  # an extra

    return ModelManifest("rvelens", simple_class_path="rvelens.lmms.model.RvelensModel")
