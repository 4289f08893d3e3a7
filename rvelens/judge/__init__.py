"""Open-ended answers, scored by a model behind an OpenAI-compatible endpoint.

- `endpoint.py`: a chat model behind an OpenAI-compatible endpoint: one prompt in, its reply or a
  reason out.
- `open_ended.py`: open-ended answers scored from 0 to 10 by a model behind an OpenAI-compatible
  endpoint.
"""
