"""What a credit means, in one or two plain sentences."""

from __future__ import annotations

from harness.analysis.credit_findings import Amount, CreditTotal, TrickCredit
from harness.analysis.credit_weights import FIRST_AND_LAST
from harness.analysis.findings import HELPS, HURTS, NOT_EVALUABLE, UNDECIDED, Settings
from harness.analysis.sentences import SAME_RUN, seeds
from harness.analysis.units import effect_text, interval_text, level_text


def trick_sentence(credit: TrickCredit, places: tuple[str, str], settings: Settings) -> str:
    """The verdict on one trick, its places, and whether the order matters."""
    name = credit.trick if credit.column is None else f"{credit.trick} ({credit.column})"
    if credit.verdict == NOT_EVALUABLE:
        seen = ""
        if credit.credit.estimate is not None:
            seen = f"; observed {effect_text(credit.credit.estimate, settings)}, {seeds(credit.n)}"
        return f"{name}: the credit is not evaluable: {credit.qualifier}{seen}."
    if credit.qualifier == SAME_RUN:
        return f"{name} changes no run at this size: its credit is 0 by construction."
    numbers = f"{_amount(credit.credit, settings)} of the total, {seeds(credit.n)}"
    claim = f"{_verb(name, credit)}: {numbers} ({_places(credit, places, settings)})"
    if credit.verdict not in (HELPS, HURTS) and credit.qualifier:
        claim += f"; {credit.qualifier}"
    return f"{claim}.{_order(credit, places, settings)}"


def total_sentence(total: CreditTotal, design: str, tricks: int, settings: Settings) -> str:
    """What is split, and whether the credits can be trusted to be the Shapley values."""
    where = "" if total.column is None else f" ({total.column})"
    if total.total.estimate is None:
        return f"Total{where}: no value, because a row that it needs has none."
    levels = ""
    if total.none is not None and total.every is not None:
        levels = f", from {level_text(total.none, settings)} to {level_text(total.every, settings)}"
    fitted = ", as fitted" if design == "fractional" else ""
    text = (
        f"All {tricks} tricks together{where}: {_amount(total.total, settings)}{levels}{fitted}, "
        f"{seeds(total.n)}. The credits add up to exactly this."
    )
    return f"{text}{_higher_order(total, design, tricks, settings)}"


def _verb(name: str, credit: TrickCredit) -> str:
    if credit.verdict in (HELPS, HURTS):
        return " ".join(filter(None, (name, credit.verdict, credit.qualifier)))
    return f"{name} {'is' if credit.verdict == UNDECIDED else 'makes'} {credit.verdict}"


def _places(credit: TrickCredit, places: tuple[str, str], settings: Settings) -> str:
    words = ("alone", "given all others")
    if places != FIRST_AND_LAST:
        words = ("in the given order", "in the reverse order")
    shown = (
        "no value" if amount.estimate is None else effect_text(amount.estimate, settings)
        for amount in (credit.first, credit.last)
    )
    return ", ".join(f"{value} {word}" for value, word in zip(shown, words, strict=True))


def _order(credit: TrickCredit, places: tuple[str, str], settings: Settings) -> str:
    gap = credit.half_gap
    text = ""
    if credit.path_dependent and gap.estimate is not None:
        why = "its value depends on the order"
        if places == FIRST_AND_LAST:
            why = "it overlaps with the others" if gap.estimate < 0 else "it needs the others"
        text = f" Path-dependent: {why}, half-gap {_amount(gap, settings)}."
    if credit.contradiction:
        text += " Path-dependent: alone and given all others, its verdicts contradict each other."
    return text


def _higher_order(total: CreditTotal, design: str, tricks: int, settings: Settings) -> str:
    if total.check is None or total.check_p is None:
        return ""
    amount = _amount(total.check, settings)
    more = f"three or more tricks interact (p {total.check_p:.2g})"
    if total.check_p >= settings.alpha:
        more = "there is no sign that three or more tricks interact"
    if design == "both_ends":
        each = effect_text((total.check.estimate or 0.0) / tricks, settings)
        return f" The means of first and last miss it by {amount}, shared equally ({each} each); {more}."
    return f" The designs with fewer rows would differ by up to {amount}; {more}."


def _amount(amount: Amount, settings: Settings) -> str:
    """For example "+0.31 pp [0.12, 0.50]"."""
    if amount.estimate is None:
        return "no value"
    text = effect_text(amount.estimate, settings)
    if amount.low is None or amount.high is None:
        return text
    return f"{text} {interval_text(amount.low, amount.high, settings)}"
