"""Shared folders: found on this machine or on the Hugging Face Hub, and pushed there with a card."""

from __future__ import annotations

import difflib
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from rvelens.files.atomic import is_scratch
from rvelens.files.paths import check_new_folder, refuse_foreign

MANIFEST, PROFILE, ABOUT, CARD = "manifest.json", "profile.safetensors", "profile.json", "README.md"
FILES = (MANIFEST, PROFILE, ABOUT, CARD)
# The folder of the embedded model, "rvelens/tiny", and of its head profile.
TINY = Path(__file__).parents[1] / "assets" / "tiny"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def embedded_folder(name: str | Path) -> str | Path:
    """The folder of "rvelens/tiny"; any other name is returned unchanged."""
    return TINY if str(name) == "rvelens/tiny" else name


def check_name(name: str | Path) -> None:
    """Raise ValueError for a model name that cannot exist, without a request to the Hub."""
    text = str(name)
    if Path(text).exists() or text == "rvelens/tiny":
        return
    if text.startswith((".", "/", "~")) or text.endswith("/") or text.count("/") > 1:
        raise ValueError(
            f"no folder {text}: expected a folder with a model, rvelens/tiny, or the name of a model "
            "on the Hub; check the path."
        )
    try:
        huggingface_hub.utils.validate_repo_id(text)
    except HFValidationError as error:
        raise ValueError(
            f"model {text!r} is neither a folder nor a valid name on the Hub: expected a folder "
            "with a model, rvelens/tiny, or OWNER/NAME; correct it."
        ) from error
    if difflib.get_close_matches(text, ["rvelens/tiny"], cutoff=0.8):
        raise ValueError(
            f"model {text!r}: expected a folder, a name on the Hub, or rvelens/tiny, the embedded "
            "model; did you mean 'rvelens/tiny'?"
        )


def find(where: str | Path, file: str, revision: str | None = None) -> Path | None:
    """A file, found by its path, by its folder, or by the OWNER/NAME of a repository on the Hub.

    "rvelens/tiny" is a folder of this package. The Hub is asked only if there is no local file or
    folder of that name, and only for the files of `FILES`.

    Args:
        where: the path or name.
        file: the file's name in the folder.
        revision: branch, tag or commit of the repository.

    Returns:
        None if there is no such file, and `where` cannot be the name of a repository.

    Raises:
        ValueError: the Hub has no such repository, or cannot be reached.
    """
    where = embedded_folder(where)
    path = Path(where)
    path = path / file if path.is_dir() else path
    if path.is_file():
        return path
    name = str(where)
    if (
        Path(where).exists()
        or not _HUB_ID.fullmatch(name)
        or name.endswith((".json", ".safetensors"))
    ):
        return None
    try:
        folder = huggingface_hub.snapshot_download(
            name, revision=revision, allow_patterns=list(FILES)
        )
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise ValueError(
            f"no folder {name} here, and the Hub does not give it ({_first_line(error)}): expected "
            "a folder, a file, or the name of a readable repository; check the name."
        ) from error
    path = Path(folder) / file
    return path if path.is_file() else None


def push(write: Callable[[Path], None], repo_id: str, *, private: bool | None = None) -> str:
    """Upload a folder that `write` fills as a model repository; returns its URL.

    If the repository does not exist, it is created.

    The token is that of huggingface_hub: the variable HF_TOKEN, or `hf auth login`.

    Raises:
        ValueError: an invalid name, no token, or the Hub refuses.
    """
    api = huggingface_hub.HfApi()
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        try:
            address = api.create_repo(repo_id, private=private, exist_ok=True)
            api.upload_folder(repo_id=repo_id, folder_path=folder, allow_patterns=list(FILES))
        except (OSError, ValueError, HfHubHTTPError) as error:
            raise ValueError(
                f"{repo_id} cannot be pushed ({_first_line(error)}): expected OWNER/NAME and a token "
                "that may write there; set HF_TOKEN, or run `hf auth login`."
            ) from error
    return str(address)


def check_folder(folder: str | Path, ours: Sequence[str] = FILES) -> None:
    """Raise ValueError if a folder cannot be written safely; call it before the work."""
    folder = Path(folder)
    check_new_folder(folder)
    others = (
        [p.name for p in folder.iterdir() if p.name not in ours and not is_scratch(p)]
        if folder.is_dir()
        else []
    )
    if others:
        raise ValueError(
            f"{folder} holds other files ({sorted(others)[0]} is one): expected a folder that is "
            "new, empty or of this kind; choose another."
        )
    name, key = (ABOUT, "digest") if (folder / ABOUT).exists() else (MANIFEST, "format")
    refuse_foreign(
        [folder / file_name for file_name in (MANIFEST, ABOUT, CARD)], folder / name, key
    )


def make_folder(folder: str | Path) -> Path:
    """A folder to write to, created if it does not exist; raises the errors of `check_folder`."""
    check_folder(folder)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def card(title: str, body: str, base_model: str) -> str:
    """A model card: metadata for the Hub at the top, and text for readers below.

    Args:
        title: the heading.
        body: Markdown.
        base_model: the model; omitted in the metadata if it is not a name on the Hub.
    """
    head = huggingface_hub.ModelCardData(
        library_name="rvelens",
        tags=["rvelens", "vision-language", "attention"],
        base_model=None if _is_local(base_model) else base_model,
    )
    from rvelens.tables import markdown_text  # as in `rows`

    return f"---\n{head.to_yaml()}\n---\n\n# {markdown_text(title)}\n\n{body.strip()}\n"


def rows(pairs: Mapping[str, Any], first: str, second: str) -> str:
    """A Markdown table with two columns."""
    # Here, since it loads rich's tables, for which an import need not wait.
    from rvelens.tables import Table

    cells = [(name, str(value)) for name, value in pairs.items()]
    return Table("", (first, second), cells).to_markdown()


def _is_local(model: str) -> bool:
    if model.startswith("rvelens/") or Path(model).exists():
        return True
    try:
        huggingface_hub.utils.validate_repo_id(model)
    except HFValidationError:
        return True
    return False


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines() or [type(error).__name__]
    return text[0].strip().rstrip(".:")
