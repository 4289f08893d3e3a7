"""HookedLVLM: loading, prompts, generation, and prompts that are computed once.

- `bridge.py`: rvelens' hooks on TransformerLens' bridge: finds the token map of every forward.
- `chat.py`: conversations: messages with several turns and images, as one prompt.
- `chat_template.py`: prompts from a model's chat template, which is third-party code with a time limit.
- `filling.py`: fills a cache with only the keys and values of a prompt.
- `greedy.py`: greedy decoding of several settings together, as `generate` of transformers does for one.
- `hook_root.py`: TransformerLens' hooks, with arguments checked before anything is hooked.
- `hooked_lvlm.py`: HookedLVLM: a Hugging Face vision-language model with TransformerLens hook
  points.
- `images.py`: the accepted types of images: files, pictures, arrays and tensors.
- `lens_config.py`: `model.cfg`: the configuration that TransformerLens' helpers read.
- `lens_model.py`: the attributes that TransformerLens' own helpers read: shape, weights and tokens.
- `lens_texts.py`: texts and token ids, with TransformerLens' names.
- `limits.py`: limits on pictures and on the length of prompts, checked before the model runs.
- `loading.py`: loading a model by its name, with one sentence if this fails.
- `prefix.py`: the prompt up to the end of its image, run once for all questions about it.
- `prompts.py`: from images and questions to one left-padded batch of model inputs.
- `query_rows.py`: changes which rows of scores and pattern hooks see, until a block ends.
- `replay.py`: the prompt up to its last token, run once for any number of settings.
- `side_by_side.py`: many settings in one forward: the rows that they need, and one hook per hook point.
- `trace.py`: answers token by token: the probability of each token, and where every head looked.
- `trace_file.py`: the file of a trace: tensors and the picture, and the texts in its header.
- `tracing.py`: generation that records the probability of every token, and where every head looked.
- `weights.py`: identifies the weights of a model, and checks that a profile was measured on them.
- `yes_no.py`: yes or no, read from the model's next token.
"""
