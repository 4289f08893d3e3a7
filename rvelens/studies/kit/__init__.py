"""What studies are made of.

- `base.py`: what a study is; its setup, tables, figures and sentences.
- `run.py`, `parts.py`, `write.py`: running one, keeping what is computed, writing its files.
- `paper.py`, `comparison.py`: the paper's numbers, alone and beside measured ones.
- `asking.py`, `rows.py`, `margins.py`, `regions.py`: answers, attention, margins and ground truth of
  questions; `pairs.py`: head scores of contrastive pairs.
- `settings.py`: rows of tables.
"""
