"""Study files that no author means, found by fuzzing (tests/fuzz), and what the user is told."""

from __future__ import annotations

from tests.study.fakes import HEAD, HEAD_LINES
from tests.study.mistake_cases import FINE, FIRST, ROW, rows, table

FIVE_HUNDRED = ", ".join(f"{rate / 1000}" for rate in range(1, 501))

CASES = {
    "null in place of a value": (
        HEAD + rows("{label: a, set: {lr: null}}"),
        [
            f"small.yaml:{ROW}: tables.t.rows[0].set.lr must have a value;"
            " leave the key out to keep what is set below it"
        ],
    ),
    "null as the level of a factor": (
        HEAD + table("    factors: {batch_size: [256, null]}\n", design="grid"),
        [
            f"small.yaml:{FIRST + 4}: batch_size must have a value;"
            " leave the key out to keep what is set below it"
        ],
    ),
    "a whole number without end": (
        HEAD.replace("resolution: 32", f"resolution: {'9' * 5000}") + FINE,
        [
            f"small.yaml:6: cannot read '{'9' * 100}...':"
            " a whole number this large is none that a study needs",
            "small.yaml:6: sizes.mini.resolution must be a whole number, got None",
        ],
    ),
    "a hexadecimal number without end": (
        HEAD.replace("epochs: 4,", f"epochs: 0x{'f' * 5000},") + FINE,
        [
            f"small.yaml:6: cannot read '0x{'f' * 98}...':"
            " a whole number this large is none that a study needs",
            "small.yaml:6: sizes.mini.epochs must be a number, got None",
        ],
    ),
    "a fraction of which Python would write every digit": (
        HEAD.replace("batch_scale: 1/8", "batch_scale: '1e999999999'") + FINE,
        ["small.yaml:6: sizes.mini.batch_scale must be a fraction such as 1/8, got '1e999999999'"],
    ),
    "a fraction that leaves nothing": (
        HEAD.replace("batch_scale: 1/8", "batch_scale: 1/9000000") + FINE,
        ["small.yaml:6: sizes.mini.batch_scale must be from 1/1000000 to 1000000, got '1/9000000'"],
    ),
    "images that fit into no memory": (
        HEAD.replace("resolution: 32", "resolution: 1000000000") + FINE,
        ["small.yaml:6: sizes.mini.resolution must be less than or equal to 10000, got 1000000000"],
    ),
    "a number that is hardly more than nothing": (
        HEAD.replace("epochs: 4,", "epochs: 5.0e-324,") + FINE,
        ["small.yaml:6: sizes.mini.epochs must be at least 1e-12, got 5e-324"],
    ),
    "a label that moves the cursor of a terminal": (
        HEAD + rows('{label: "a\\e[31m"}'),
        [f"small.yaml:{ROW}: a text has characters that cannot be printed: U+001B"],
    ),
    "a label that turns the direction of what is read": (
        HEAD + rows('{label: "a\\u202eb"}'),
        [f"small.yaml:{ROW}: a text has characters that cannot be printed: U+202E"],
    ),
    "a label of two lines": (
        HEAD + rows('{label: "a\\nb"}', "{label: b}"),
        [f"small.yaml:{ROW}: tables.t.rows[0].label must be one line of at most 200 characters"],
    ),
    "a label without end": (
        HEAD + rows(f"{{label: {'a' * 201}}}", "{label: b}"),
        [f"small.yaml:{ROW}: tables.t.rows[0].label must be one line of at most 200 characters"],
    ),
    "a key of two lines": (
        HEAD + '"a\\nb": 1\n' + FINE,
        [
            f"small.yaml:{FIRST}: a key must be one line, got 'a\\nb'",
            f"small.yaml:{FIRST}: unknown key 'a\\nb'. Valid: arms, baseline, claims, expect, metric,"
            " metrics, paper, plugins, priority, question, seeds, sizes, smallest_effect, study, tables,"
            " unknown",
        ],
    ),
    "a table whose files would lie elsewhere": (
        HEAD + FINE.replace("{t:", "{../../t:"),
        [
            f"small.yaml:{FIRST}: tables.../../t must be letters, digits, _ . and -, at most 100:"
            " files are named after it",
        ],
    ),
    "a study whose folder would lie elsewhere": (
        HEAD.replace("study: small", "study: ../small") + FINE,
        ["small.yaml:1: study must be lower-case letters, digits, - and _, got '../small'"],
    ),
    "more rows than a plan has": (
        HEAD + table(f"    factors: {{lr: [{FIVE_HUNDRED}], decay: [{FIVE_HUNDRED}]}}\n", design="grid"),
        [f"small.yaml:{FIRST + 4}: the factors have 250000 combinations, more than 200000"],
    ),
    "more rows than a plan has, in columns": (
        HEAD
        + table(f"    factors: {{lr: [{FIVE_HUNDRED}]}}\n    columns:\n", design="grid")
        + "".join(f"      c{column}: {{set: {{weight_decay: 0.{column}1}}}}\n" for column in range(401)),
        [f"small.yaml:{FIRST + 1}: with this table, the study has more than 200000 rows x columns"],
    ),
    "more tricks than a row has": (
        HEAD + rows(f"{{label: a, add: [{', '.join(['mixup'] * 101)}]}}"),
        [f"small.yaml:{ROW}: tables.t.rows[0].add is wrong: expected at most 100 of them, got 101"],
    ),
    "a fraction of more tricks than the search can take": (
        HEAD
        + table(
            f"    tricks: [{', '.join(f'{{mixup: {{alpha: {k}}}}}' for k in range(1, 9))},"
            f" {', '.join(f'{{label_smoothing: {{eps: 0.{k}}}}}' for k in range(1, 14))}]\n",
            design="fractional",
        ),
        [f"small.yaml:{FIRST + 4}: a fraction is made of at most 20 tricks, here are 21"],
    ),
    "an ensemble of a million": (
        HEAD + rows("{label: a, add: {ensemble: {members: 1000000}}}"),
        [
            f"small.yaml:{ROW}: ensemble: at most 1000 networks are evaluated together, got 1000000"
            " (t, row 'a'; sizes mini, gpu, paper)"
        ],
    ),
    "a text without end": (
        HEAD + rows(f"{{label: a, add: {'m' * 100_000}}}"),
        [
            f"small.yaml:{ROW}: unknown trick '{'m' * 100}...'. Valid: bf16, cosine, distillation, ensemble,"
            " fine_tuning, fp16, initialisation, lab_loss, lab_recipe, label_smoothing, linear_lr_scaling,"
            " mixed_ensemble, mixup, multi_crop, no_bias_decay, raw_weights, receptive_field, resnet_b,"
            " resnet_c, resnet_d, warmup, zero_gamma"
        ],
    ),
    "a file that is too large": (
        HEAD + FINE + "#" * 1_000_000,
        ["small.yaml: larger than 1,000,000 bytes; a study has a few thousand"],
    ),
}
assert HEAD_LINES == FIRST - 1
