"""`captrain push`."""

from __future__ import annotations

from captrain.cli.early import check_models
from captrain.cli.export import Merge, Precision
from captrain.cli.flags import TrustFlags, trust
from captrain.cli.logs import quiet_libraries
from captrain.cli.switch import Switch


def push(
    run: str,
    hub_id: str,
    /,
    *,
    public: Switch = False,
    merge: Merge = True,
    dtype: Precision = "fp32",
    model_files: TrustFlags = None,
) -> int:
    """Upload a trained captioner and its card to the model hub, and print where it is.

    Args:
        run: Run folder, model folder or .zip.
        hub_id: Its name on the hub, such as ada/cat-captions.
        public: Let everybody see it. Default: a new one is private, one that is there stays as it is.
        merge: Add the adapter to the weights, or keep it beside its base model.
        dtype: Precision of the written weights; the last two halve the size.
    """
    trust(model_files)
    check_models(run)
    quiet_libraries()
    from captrain.models.checkpoint.export import push as push_captioner

    print(push_captioner(run, hub_id, public=public, merge=merge, dtype=dtype))
    return 0
