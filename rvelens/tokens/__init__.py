"""Visual tokens: which keys of a sequence they are, and where they lie in the picture.

- `carried.py`: token maps ride on the caches that they describe, so that copies of a cache take
  them along.
- `grid.py`: patch grids: from a vector over image tokens back to a picture.
- `heat.py`: numbers of image tokens as heat on the picture, and pictures as text for a page.
- `masks.py`: attention masks of transformers: what they hide, and which tokens they call padding.
- `new_tokens.py`: the tokens that a forward adds, as far as they are known before the decoder
  starts.
- `token_map.py`: where the image is: which keys of a sequence are image tokens, text, padding, and
  the last one.
"""
