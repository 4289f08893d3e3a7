"""Contrastive pairs (Section 3.1, Appendix B): made from questions, verified, reviewed, and read.

- `lexicon.py`: the table of verbs and body parts (data/verbs.csv), and forms of verbs.
- `words.py`, `nouns.py`: closed lists of words; the nouns around a verb (data/nouns.csv).
- `find.py`: finds the verb of a question.
- `generate.py`: stages 1 and 2 for one question, using only the table.
- `ask_model.py`: the same with a vision model at an OpenAI-compatible endpoint.
- `make.py`: questions from a file or a benchmark, to a file of pairs.
- `review.py`: stage 3, the decisions of a person.
- `file.py`: the file of pairs, read for `score_heads`.
"""

from rvelens.pairs.file import load_pairs, replace_verb

__all__ = ["load_pairs", "replace_verb"]
