"""The seam: hook points inside the attention, the blocks and the vision tower of a model.

- `arguments.py`: arguments of a forward, checked before transformers swallows the ones that it does
  not know.
- `attention.py`: the hook points inside the attention of one layer.
- `blocks.py`: which module of a block computes each hook point.
- `call.py`: one call of an attention function, and the arithmetic of its opened rows.
- `device.py`: where a model reads its inputs.
- `firing.py`: running the hooks of a point, and whether they edited what they were given.
- `forward.py`: the forwards in progress: which rows are opened, and where their visual tokens are.
- `generation.py`: ways to generate in which hooks would see the wrong rows, or a cache does not go
  with its prompt.
- `hook_point.py`: a hook point that says in plain attributes which hooks are on.
- `lens_attention.py`: `blocks.{layer}.attn`: all hook points of a layer's attention, and its
  weights.
- `linear.py`: weights of linear modules, in the shape that they multiply in.
- `look_up.py`: the look-up of attention functions in `transformers`, wrapped once a process.
- `marks.py`: which tokens are visual, as the model itself marks them.
- `places.py`: locates all hook points of a decoder or a vision tower, and checks them by edits.
- `points.py`: all hook points in one table.
- `returns.py`: what a forward returns: logits, a loss, both, nothing, or the residual stream
  before some layer.
- `seam.py`: where hooks meet a Hugging Face model: attention modules get hook points, a run
  follows forwards.
- `self_check.py`: the self-check: one short forward that tells which layers can be hooked exactly.
- `stream.py`: hook points that are read at a model's own modules, and the lens modules that hold
  them.
- `taps.py`: hook points that are read at the model's own modules.
- `vision.py`: hook points of the vision tower, `vision.blocks.{layer}`, where its attention can be
  looked up.
- `watching.py`: a record of one forward: inputs and outputs of blocks and of their modules, calls
  of attention.
- `wrapping.py`: functions that run around methods of a model.
"""
