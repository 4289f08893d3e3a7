"""Attention heads: profiles, layers, contrastive pairs, and the folders that hold them.

- `hub.py`: shared folders: found on this machine or on the Hugging Face Hub, and pushed there with a
  card.
- `layers.py`: layers in the notation of users: "14-31", "3,5,7-9", "auto" or "preset".
- `pair.py`: contrastive pairs: an image and two texts that differ in exactly one word.
- `profile.py`: head profiles: how sensitive every head of a model is to the verb, and their files.
- `profile_file.py`: the file of a head profile: its tensors, and how they were measured.
- `region.py`: how well a head's attention finds the true region, and whether a ranking agrees.
"""
