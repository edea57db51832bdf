"""What the paper printed beside a row: accuracies, and further numbers that are shown, never analysed."""

from __future__ import annotations

from harness.analysis.findings import CellFinding, Settings
from harness.reporting.cells import NUMBER, TEXT, Cell, Column
from harness.reporting.names import mark, paper_text
from harness.reporting.numbers import DASH
from harness.study.plan import PaperValue

STD = "top1_std"
STD_NOTE = "sd beside a value of the paper: its own standard deviation over trainings, as printed."

# name in a study file -> how it is written; what is not named here is shown with its own name
_FORMS = {
    "params_m": "{} M parameters",
    "gflops": "{} G multiply-adds",
    "cost": "cost {}×",
    "cost_bn_ops": "{} Bn operations",
    "epoch_minutes": "{} min per epoch",
    "steps_to_target_m": "{} M steps",
}
_ACCURACIES = ("top1", "top5")


def other_metric(metric: str) -> str:
    """The accuracy that is shown beside the primary metric."""
    return "top5" if metric == "top1" else "top1"


def paper_cell(cell: CellFinding, settings: Settings) -> Cell:
    """The printed value of the metric; its sd and the other accuracy on the second line."""
    value = paper_text(cell.paper.get(settings.metric))
    std = cell.paper.get(STD) if settings.metric == "top1" else None
    other = paper_text(cell.paper.get(other_metric(settings.metric)))
    details = [f"(sd {std.value:g}{mark(std.status)})"] if std else []
    details += [f"({other})"] if other else []
    if not value and not details:
        return Cell(DASH, "(none)")
    return Cell(value or DASH, " ".join(details))


def extras_column(cells: list[CellFinding]) -> Column | None:
    """A column for the further printed numbers, where any row has one."""
    return Column(title="Also printed", kind=TEXT) if any(map(_extras, cells)) else None


def extras_cell(cell: CellFinding) -> Cell:
    """For example "4.2 G multiply-adds, 25.6 M parameters"."""
    texts = [_extra(name, value) for name, value in _extras(cell).items()]
    return Cell(", ".join(texts)) if texts else Cell(DASH, "(nothing)")


def paper_column_kind(cells: list[CellFinding], settings: Settings) -> str:
    """Numbers, unless the paper has none of the metric at all (a plugin's)."""
    return NUMBER if any(settings.metric in cell.paper for cell in cells) else TEXT


def _extras(cell: CellFinding) -> dict[str, PaperValue]:
    shown = {name: value for name, value in cell.paper.items() if name not in (*_ACCURACIES, STD)}
    places = {name: place for place, name in enumerate(_FORMS)}
    return dict(sorted(shown.items(), key=lambda item: (places.get(item[0], len(places)), item[0])))


def _extra(name: str, value: PaperValue) -> str:
    number = f"{value.value:,.6g}" if value.value >= 1e6 else f"{value.value:g}"
    form = _FORMS.get(name, f"{name.replace('_', ' ')} {{}}")
    return form.format(number) + mark(value.status)
