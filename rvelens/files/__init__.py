"""Files: replaced whole, read back by declared forms, and named inside their folders.

- `atomic.py`: files that survive interruptions: JSON, JSON lines, locks, and atomic replacement.
- `paths.py`: where files may be read and written: names that others wrote, and folders that are
  the user's own.
- `stored.py`: files that are read back: one reader, and the declared form of what a run leaves.
"""
