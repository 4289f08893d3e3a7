"""The explorer: a local page to ask, look at heads, review pairs and open runs.

Needs Gradio: `pip install 'rvelens[app]'`.

- `page.py`: all tabs, and the server on 127.0.0.1.
- `tab_ask.py`, `tab_heads.py`, `tab_pairs.py`, `tab_runs.py`: one tab each, fields and events.
- `models.py`: models that are loaded, and the lock round them.
- `asking.py`, `settings.py`, `truth.py`, `heads.py`: what the tabs compute, without Gradio.
- `viewer.py`, `enhanced.py`: answers token by token, and enhanced tokens, as HTML.
- `head_charts.py`, `head_maps.py`: all heads, and where one of them looks, as HTML.
- `address.py`, `heads_link.py`, `profile_link.py`: the page as an address.
- `programs.py`, `code.py`, `heads_code.py`, `runs_code.py`: what tabs show as Python.
- `downloads.py`, `heads_tools.py`, `runs_tools.py`: buttons for programs, figures and other files.
- `markup.py`, `chart.py`, `pictures.py`: results as HTML, SVG and pictures, without Gradio.
- `examples.py`, `recent.py`: what tabs open with, and what they remember.
- `shared.py`, `fields.py`, `theme.py`: fields that tabs share, messages, the look.
"""
