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

    from harness.tracking.reach import usable

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
    from harness.reporting.pdf import to_pdf

    pdf = to_pdf(Document(title="A page", question="", scope="", banner="", sections=()), {})
    return {"typst": version("typst"), "pdf": pdf.startswith(b"%PDF"), "font": FONT.encode() in pdf}


PROBES = {"torch": torch, "mlflow": mlflow, "database": database, "typst": typst}


def main(name: str) -> int:
    """Print the answer of one probe."""
    try:
        facts = PROBES[name]()
    except Exception as error:
        from harness.tracking.reach import in_words

        facts = {"error": f"{type(error).__name__}: {in_words(error)}"}
    print(json.dumps(facts))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
