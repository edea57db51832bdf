"""Rows that train nothing: what they evaluate, in words."""

from __future__ import annotations

from harness.reporting.document import Block, Bullets, Paragraph
from harness.reporting.names import arm_name
from harness.reporting.numbers import count
from harness.study.plan import Plan
from harness.study.spec import MEMBER_STRIDE, Arm, Member

_TEXT = (
    "Rows that evaluate networks of other rows cost no training. Their answer to an image is the mean of "
    "the softmax probabilities over all networks and all crops. Such a row and the row whose networks it "
    "evaluates share weights, and their values rise and fall together from seed to seed: two such rows are "
    "compared by their paired differences (paired t interval), and in every other comparison only one of "
    "the rows that share a network counts towards the noise between seeds."
)
_MEMBERS = (
    " The further trainings that ensembles need are used by the ensembles alone; no other row counts them."
)


def observer_blocks(plan: Plan) -> list[Block]:
    """One sentence per evaluation-only recipe; nothing where the plan has none."""
    observing = {arm_id: arm for arm_id, arm in plan.arms.items() if arm.observes}
    if not observing:
        return []
    has_members = any(member.runs > 1 for arm in observing.values() for member in arm.observes)
    items = tuple(
        f"{arm_name(plan, arm_id)}: {observed(plan, arm)}{_how(arm)}" for arm_id, arm in observing.items()
    )
    return [Paragraph(_TEXT + (_MEMBERS if has_members else "")), Bullets(items)]


def observed(plan: Plan, arm: Arm) -> str:
    """The networks of an evaluation-only recipe, for example "7 runs of “Table 3 / one network” (...)"."""
    return " and ".join(_member(plan, member) for member in arm.observes)


def _member(plan: Plan, member: Member) -> str:
    name = f"“{arm_name(plan, member.arm)}”"
    if member.runs == 1:
        return f"the run of {name} with the same seed"
    last = (member.runs - 1) * MEMBER_STRIDE
    between = "" if member.runs == 2 else f", s + {MEMBER_STRIDE}" + (", ..." if member.runs > 3 else "")
    return f"{count(member.runs, 'run')} of {name} (seeds s{between}, s + {last} for seed s)"


def _how(arm: Arm) -> str:
    crops = arm.recipe.eval_crops
    parts = [f"{crops} crops of every image"] if crops > 1 else []
    if arm.recipe.eval_weights == "raw":
        parts.append("the trained weights, not their average")
    return "".join(f"; {part}" for part in parts)
