"""Questions that need heavy imports or a server, each asked in a process of its own: `python -m ... NAME`.

Prints one JSON object: what was found, or {"error": words}.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

FONT = "Libertinus"  # of the report's template; typst brings it along


def torch() -> dict[str, Any]:
    """Versions, and for each GPU its name, its memory and whether a sum on it works."""
    import torch

    facts: dict[str, Any] = {
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "gloo": torch.distributed.is_available() and torch.distributed.is_gloo_available(),
        "nccl": torch.distributed.is_available() and torch.distributed.is_nccl_available(),
        "torchvision": None,
        "torchvision_error": None,
        "gpus": [],
    }
    try:
        from harness.data.torchvision_import import torchvision

        facts["torchvision"] = torchvision.__version__
    except Exception as error:
        facts["torchvision_error"] = f"{type(error).__name__}: {error}"
    if torch.cuda.is_available():
        facts["gpus"] = [_gpu(torch, index) for index in range(torch.cuda.device_count())]
    return facts


def _gpu(torch: Any, index: int) -> dict[str, Any]:
    about = torch.cuda.get_device_properties(index)
    facts = {"name": about.name, "memory_gb": about.total_memory / 2**30, "error": None}
    try:
        torch.ones(8, device=f"cuda:{index}").sum().item()
    except Exception as error:  # e.g. no kernels for this GPU in this build of torch
        facts["error"] = str(error).splitlines()[0]
    return facts


def mlflow() -> dict[str, Any]:
    """The versions of MLflow and of the database schema that it writes."""
    from harness.tracking.store import be_quiet

    be_quiet()
    import mlflow

    facts: dict[str, Any] = {"mlflow": mlflow.__version__, "schema": None}
    try:
        from mlflow.store.db.utils import _get_latest_schema_revision

        facts["schema"] = _get_latest_schema_revision()
    except ImportError:  # not public: another version may not have it
        pass
    return facts


def database() -> dict[str, Any]:
    """The schema version in the database server $MLFLOW_TRACKING_URI names; None where it is empty."""
    facts = mlflow()
    from mlflow.store.db.utils import create_sqlalchemy_engine

    from harness.tracking.store import usable

    engine = create_sqlalchemy_engine(usable(os.environ["MLFLOW_TRACKING_URI"]))
    with engine.connect() as connection:
        if not engine.dialect.has_table(connection, "alembic_version"):
            return {**facts, "found": None}
        found = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    return {**facts, "found": found}


def typst() -> dict[str, Any]:
    """The version of typst, and whether it sets a page with the report's own fonts."""
    from importlib.metadata import version

    from harness.reporting.document import Document
    from harness.reporting.pdf import packed, typeset

    pdf = typeset(Document(title="A page", question="", scope="", banner="", sections=()), {})
    return {"typst": version("typst"), "pdf": packed(pdf).startswith(b"%PDF"), "font": FONT.encode() in pdf}


def kernels() -> dict[str, Any]:
    """How many layers have been examined here for a worker of one thread, and which are computed wrongly.

    The family of which faults are known (1x1, stride 2, few channels) is examined now. Keeps nothing."""
    import torch

    from harness.training.kernel_probe import AS_IT_IS, LayerCall
    from harness.training.kernels import Answers, examine_all

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    answers = Answers.of_this_machine()
    known = {LayerCall.of_key(key): verdict for key, verdict in answers.verdicts.items()}
    family = [narrow_convolution(channels) for channels in range(2, 7)]
    known |= dict(zip(family, examine_all(family), strict=True))
    wrong = {str(call): verdict.form for call, verdict in known.items() if verdict.form != AS_IT_IS}
    unchecked = {verdict.says() for verdict in known.values() if not verdict.is_certain}
    return {"known": len(known), "wrong": wrong, "unchecked": sorted(unchecked)}


def narrow_convolution(channels: int) -> Any:
    """1x1, stride 2, on 8x8 in channels last: what torch 2.13 computes wrongly with AVX2."""
    from harness.training.kernel_probe import LayerCall

    image = ((16, channels, 8, 8), (64 * channels, 1, 8 * channels, channels))
    weight = ((16, channels, 1, 1), (channels, 1, channels, channels))
    options = {"stride": [2, 2], "padding": [0, 0], "dilation": [1, 1], "groups": 1}
    return LayerCall("conv2d", {"input": image, "weight": weight}, options)


PROBES = {"kernels": kernels, "torch": torch, "mlflow": mlflow, "database": database, "typst": typst}


def main(name: str) -> int:
    """Print the answer of one probe."""
    try:
        facts = PROBES[name]()
    except Exception as error:
        from harness.tracking.store import in_words

        facts = {"error": f"{type(error).__name__}: {in_words(error)}"}
    print(json.dumps(facts))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
