"""The model hub: captioners up, private unless asked otherwise, and down into a chosen folder."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id

from captrain.errors import CaptrainError, ModelError
from captrain.models.export import Precision, write_model
from captrain.models.located import fetch
from captrain.models.trust import asked


def push(source: str, hub_id: str, *, public: bool = False, merge: bool = True, dtype: Precision = "fp32") -> str:
    """Upload an exported captioner with its card; returns where it can be looked at.

    A new repository is private unless `public`; one that is there stays as it is.

    Raises `ModelError` for a name that can't be one or without a token; `CaptrainError` when the hub refuses or can't be reached.
    """
    check_hub_id(hub_id)
    if get_token() is None:
        raise ModelError("no token for the model hub; run 'hf auth login', or set HF_TOKEN to a token that can write")
    hub = HfApi()
    with TemporaryDirectory(prefix="captrain-") as staging:
        folder = Path(staging) / "model"
        write_model(source, folder, hub_id.rpartition("/")[2], merge=merge, dtype=dtype, hub_id=hub_id)
        try:
            place = hub.create_repo(hub_id, private=not public, exist_ok=True)
            hub.upload_folder(
                repo_id=hub_id, folder_path=folder, commit_message="Upload a captioner made with captrain"
            )
        except HfHubHTTPError as error:
            raise CaptrainError(
                f"{hub_id}: the hub refused it ({_one_line(error)}); see that the token may write there"
            ) from None
        except Exception as error:  # of every kind: httpx's and requests' errors have no common parent
            raise CaptrainError(
                f"{hub_id}: the hub can't be reached ({_one_line(error)}); see to the network and try again"
            ) from None
    return str(place)


def download(hub_id: str, cache: Path) -> str:
    """The folder below `cache` that a hub's model was copied to; what is there already is not fetched again.

    Raises `ModelError` when it can't be had.
    """
    check_hub_id(hub_id)
    try:
        return fetch(hub_id, cache, code=asked().remote_code)
    except Exception as error:  # of every kind, as above
        raise ModelError(f"{hub_id}: can't be fetched from the hub to {cache} ({_one_line(error)})") from None


def check_hub_id(hub_id: str) -> None:
    """Raise `ModelError` unless a name is of the form that the hub takes."""
    try:
        validate_repo_id(hub_id)
    except HFValidationError:
        raise ModelError(f"{hub_id}: is no name for the hub; expected owner/name, such as ada/cat-captions") from None


def _one_line(error: Exception) -> str:
    """The first line of what went wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0][:200]
