"""HookedLVLM: loading, prompts, generation, and prompts that are computed once.

- `bridge.py`: rvelens' hooks on TransformerLens' bridge: the token map of every forward, found as
  it begins.
- `chat.py`: conversations: messages with several turns and images, as one prompt.
- `chat_template.py`: prompts by a model's chat template, which is code of somebody else and gets a
  bounded time.
- `filling.py`: keys and values of a prompt, and nothing else of it.
- `greedy.py`: greedy decoding of several settings side by side, as `generate` of transformers does
  it for one.
- `hook_root.py`: TransformerLens' hooks, with mistakes answered before anything is hooked.
- `hooked_lvlm.py`: HookedLVLM: a Hugging Face vision-language model with TransformerLens hook
  points.
- `images.py`: what can be given as an image: files, pictures, arrays and tensors.
- `lens_config.py`: `model.cfg`: what TransformerLens' helpers read of a model.
- `lens_model.py`: what TransformerLens' own helpers read of a model: its shape, its weights and
  its tokens.
- `lens_texts.py`: texts and token ids, by TransformerLens' names for what a tokenizer does.
- `limits.py`: what can be asked: bounds on pictures and on the length of prompts, checked before
  the work.
- `loading.py`: loading a model by its name, with one sentence where that fails.
- `prefix.py`: the prompt up to the end of its image, run once for all questions about it.
- `prompts.py`: from images and questions to one left-padded batch of model inputs.
- `query_rows.py`: which rows of scores and pattern hooks see, for a while.
- `replay.py`: the prompt up to its last token, run once for any number of settings.
- `side_by_side.py`: many settings in one forward: which rows they need, and their hooks as one
  hook a point.
- `trace.py`: answers token by token: what each token was sure of, and where every head looked for
  it.
- `trace_file.py`: what the file of a trace holds: tensors and the picture, and in its header the
  words.
- `tracing.py`: generation with a record of every token: its probability, and where every head
  looked for it.
- `weights.py`: what the weights of a model are, and whether a head profile was measured on them.
- `yes_no.py`: yes or no as the model's next token says it.
"""
