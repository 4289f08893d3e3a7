"""Attention heads: profiles, layers, contrastive pairs, and the folders that hold them.

- `hub.py`: folders that are shared: found here or on the Hugging Face Hub, pushed there, with a
  card.
- `layers.py`: layers as a user writes them: "14-31", "3,5,7-9", "auto" or "preset".
- `pair.py`: contrastive pairs: an image and two texts, which differ in one word alone.
- `profile.py`: head profiles: how sensitive every head of a model is to the verb, and files that
  hold it.
- `profile_file.py`: what the file of a head profile holds: its tensors, and what it says of how
  they were measured.
- `region.py`: how well a head's attention finds the ground-truth region, and whether a ranking
  knows.
"""
