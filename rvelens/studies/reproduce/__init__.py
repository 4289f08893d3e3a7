"""The paper's tables and figures by one command: which study makes each, from which questions.

- `targets.py`: the one table of what the paper has, and what it leaves open.
- `plan.py`: the rows that the data allow, with their cost; why others cannot be run.
- `pace.py`: how fast this machine answers, measured in at most a minute.
- `run.py`: measuring the rows one after the other.
- `report.py`: each cell beside the paper's.
"""
