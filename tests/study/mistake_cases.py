"""Study files with one mistake each, and what the user is told."""

from __future__ import annotations

from harness.study.catalogue import RECIPES
from tests.study.fakes import HEAD, HEAD_LINES

FIRST = HEAD_LINES + 1  # the line after the head
TRICKS = (
    "bf16, cosine, distillation, ensemble, fine_tuning, fp16, initialisation, lab_loss, lab_recipe,"
    " label_smoothing, linear_lr_scaling, mixed_ensemble, mixup, multi_crop, no_bias_decay, raw_weights,"
    " receptive_field, resnet_b, resnet_c, resnet_d, warmup, zero_gamma"
)
MODELS = "inception, lab_net, resnet152, resnet50, resnet50d, timm/x"
DATA = "cifar10, fashion_mnist, few, folder, generated, imagenet, lab_data, places"
FINE = "tables: {t: {title: T, design: rows, rows: [{label: a}]}}\n"


def table(body: str, design: str = "rows") -> str:
    return f"tables:\n  t:\n    title: T\n    design: {design}\n{body}"


def rows(*entries: str) -> str:
    """A table of design `rows`; the first row is on line FIRST + 5."""
    return table("    rows:\n" + "".join(f"      - {entry}\n" for entry in entries))


ROW = FIRST + 5

CASES = {
    "unknown key": (
        HEAD + "mettric: top1\n" + FINE,
        [
            f"small.yaml:{FIRST}: unknown key 'mettric'; did you mean 'metric'? Valid: arms, baseline,"
            " claims, expect, metric, metrics, paper, plugins, priority, question, seeds, sizes,"
            " smallest_effect, study, tables, unknown"
        ],
    ),
    "unknown key in a row": (
        HEAD + rows("{label: a}", "{label: b, ad: mixup}"),
        [
            f"small.yaml:{ROW + 1}: unknown key 'ad'; did you mean 'add'? Valid: add, cite, columns,"
            " label, may_fail, note, on, paper, paper_versus, set, start_from, versus (in tables.t.rows[1])"
        ],
    ),
    "a key that is no text": (
        HEAD + rows("{label: a}", "{label: b, 1: mixup}"),
        [
            f"small.yaml:{ROW + 1}: unknown key '1'. Valid: add, cite, columns,"
            " label, may_fail, note, on, paper, paper_versus, set, start_from, versus (in tables.t.rows[1])"
        ],
    ),
    "numbers of the wrong kind and too large": (
        HEAD + rows("{label: a, set: {lr: 2e9, batch_size: 1.5, flip: yes, eval_crop: 1.5}}"),
        [
            f"small.yaml:{ROW}: tables.t.rows[0].set.batch_size must be a whole number, got 1.5",
            f"small.yaml:{ROW}: tables.t.rows[0].set.eval_crop must be less than or equal to 1, got 1.5",
            f"small.yaml:{ROW}: tables.t.rows[0].set.flip must be a number, got 'yes'",
            f"small.yaml:{ROW}: tables.t.rows[0].set.lr must be less than or equal to 1000000000,"
            " got 2000000000.0",
        ],
    ),
    "an argument of an optimizer that is of no kind it may be": (
        HEAD + rows("{label: a, set: {optimizer_args: {momentum: [a]}}}"),
        [
            f"small.yaml:{ROW}: tables.t.rows[0].set.optimizer_args.momentum must be a number, got 'a'",
            f"small.yaml:{ROW}: tables.t.rows[0].set.optimizer_args.momentum must be a number, got list",
            f"small.yaml:{ROW}: tables.t.rows[0].set.optimizer_args.momentum must be true or false, got list",
        ],
    ),
    "unknown trick": (
        HEAD + rows("{label: a, add: mixupp}"),
        [f"small.yaml:{ROW}: unknown trick 'mixupp'; did you mean 'mixup'? Valid: {TRICKS}"],
    ),
    "unknown option": (
        HEAD + rows("{label: a, add: {mixup: {alfa: 1}}}"),
        [f"small.yaml:{ROW}: trick 'mixup': unknown option 'alfa'; did you mean 'alpha'? Valid: alpha"],
    ),
    "option out of range": (
        HEAD + rows("{label: a, add: {label_smoothing: {eps: 2}}}"),
        [f"small.yaml:{ROW}: eps must be from 0 to 1, got 2.0"],
    ),
    "unknown model": (
        HEAD.replace("model: resnet50", "model: resnet5") + FINE,
        [f"small.yaml:4: unknown model 'resnet5'; did you mean 'resnet50'? Valid: {MODELS}"],
    ),
    "unknown recipe": (
        HEAD.replace("recipe: bag_of_tricks_baseline", "recipe: bag_of_tricks") + FINE,
        [
            "small.yaml:4: unknown recipe 'bag_of_tricks'; did you mean 'bag_of_tricks_baseline'?"
            f" Valid: {', '.join(sorted(RECIPES))}"
        ],
    ),
    "unknown data set": (
        HEAD.replace("cifar10", "cifar") + FINE,
        [f"small.yaml:7: unknown data set 'cifar'; did you mean 'cifar10'? Valid: {DATA}"],
    ),
    "model argument out of range": (
        HEAD.replace("1/8}", "1/8, models: {resnet50: {width: 9}}}") + FINE,
        ["small.yaml:6: width must be from 0.01 to 4, got 9.0"],
    ),
    "neither sizes nor data": (
        "study: small\nquestion: Why?\nbaseline:\n  model: resnet50\n  recipe: bag_of_tricks_baseline\n"
        "  set: {resolution: 32}\n" + FINE,
        [
            "small.yaml:6: missing key 'data' (in baseline.set); a study without 'sizes' says its data here:"
            " set: {data: cifar10, resolution: 32}"
        ],
    ),
    "an unknown data set of a study without sizes": (
        "study: small\nquestion: Why?\nbaseline:\n  model: resnet50\n  recipe: bag_of_tricks_baseline\n"
        "  set:\n    resolution: 32\n    data: cifar\n" + FINE,
        [f"small.yaml:8: unknown data set 'cifar'; did you mean 'cifar10'? Valid: {DATA}"],
    ),
    "missing key": (
        HEAD.replace("question: Does it work?\n", "") + FINE,
        ["small.yaml:1: missing key 'question'"],
    ),
    "value out of range": (
        HEAD + rows("{label: a, set: {lr: -0.1}}"),
        [f"small.yaml:{ROW}: tables.t.rows[0].set.lr must be greater than 0, got -0.1"],
    ),
    "value of the wrong type": (
        HEAD.replace("start: 2", "start: two") + FINE,
        ["small.yaml:3: seeds.start must be a whole number, got 'two'"],
    ),
    "unknown value": (
        HEAD + rows("{label: a, set: {schedule: cosin}}"),
        [
            f"small.yaml:{ROW}: tables.t.rows[0].set.schedule is wrong: unknown value 'cosin';"
            " did you mean 'cosine'? Valid: constant, cosine, exponential, step"
        ],
    ),
    "batch that does not divide": (
        HEAD + rows("{label: a, set: {batch_size: 100}}"),
        [
            f"small.yaml:{ROW}: batch_size 100 x batch_scale 1/8 = 12.5 is not a whole number of images"
            " (t, row 'a'; size mini)"
        ],
    ),
    "warm-up longer than training": (
        HEAD + rows("{label: a, set: {epochs: 4}, add: warmup}"),
        [
            f"small.yaml:{ROW}: warm-up of 5 epochs is not shorter than training (4 epochs)"
            " (t, row 'a'; sizes mini, gpu, paper)"
        ],
    ),
    "more padding than image": (
        HEAD + rows("{label: a, set: {crop_pad: 32}}"),
        [
            f"small.yaml:{ROW}: crop_pad 32 around 32 x 32 pixels would train on windows without any of the"
            " image; it must be smaller than the resolution (t, row 'a'; size mini)"
        ],
    ),
    "a crop's range that falls": (
        HEAD + rows("{label: a, set: {crop_area: [1, 0.5]}}"),
        [
            f"small.yaml:{ROW}: tables.t.rows[0].set.crop_area must not fall from left to right,"
            " got [1.0, 0.5]"
        ],
    ),
    "padding of half a pixel": (
        HEAD + rows("{label: a, set: {crop_pad: 0.5}}"),
        [f"small.yaml:{ROW}: tables.t.rows[0].set.crop_pad must be a whole number, got 0.5"],
    ),
    "duplicate label": (
        HEAD + rows("{label: a}", "{label: b}", "{label: a}"),
        [f"small.yaml:{ROW + 2}: duplicate row label 'a' in table 't'"],
    ),
    "circle of arms": (
        HEAD + "arms:\n  a: {from: b}\n  b: {add: {distillation: {teacher: a}}}\n" + FINE,
        [f"small.yaml:{FIRST + 1}: arms need each other in a circle: a -> b -> a"],
    ),
    "unknown arm": (
        HEAD + "arms: {strong: {add: mixup}}\n" + rows("{label: a, start_from: strng}"),
        [f"small.yaml:{ROW + 1}: unknown arm 'strng'; did you mean 'strong'? Valid: baseline, strong"],
    ),
    "trick without its teacher": (
        HEAD + rows("{label: a, add: distillation}"),
        [
            f"small.yaml:{ROW}: trick 'distillation' needs a teacher:"
            " {distillation: {teacher: NAME OF AN ARM}}"
        ],
    ),
    "conflicting tricks": (
        HEAD + rows("{label: a}", "{label: b, add: [fp16, mixup, bf16]}"),
        [
            f"small.yaml:{ROW + 1}: tricks 'fp16' and 'bf16' exclude each other"
            " (t, row 'b'; sizes mini, gpu, paper)"
        ],
    ),
    "conflicting tricks, the one that declares it last": (
        HEAD + rows("{label: b, add: [bf16, fp16]}"),
        [
            f"small.yaml:{ROW}: tricks 'bf16' and 'fp16' exclude each other"
            " (t, row 'b'; sizes mini, gpu, paper)"
        ],
    ),
    "a trick twice": (
        HEAD + rows("{label: b, add: [mixup, {mixup: {alpha: 1}}]}"),
        [f"small.yaml:{ROW}: trick 'mixup' is on twice (t, row 'b'; sizes mini, gpu, paper)"],
    ),
    "a trick that cannot exist at one size": (
        HEAD.replace("1/8}", "1/8, models: {resnet50: {width: 0.0625}}}") + rows("{label: b, add: resnet_c}"),
        [f"small.yaml:{ROW}: resnet_c needs a width of at least 0.125 (t, row 'b'; size mini)"],
    ),
    "no tables": (HEAD + "tables: {}\n", [f"small.yaml:{FIRST}: the study has no tables"]),
    "empty table": (
        HEAD + table("    rows: []\n"),
        [f"small.yaml:{FIRST + 1}: table 't' is empty: the design 'rows' needs 'rows'"],
    ),
    "unknown design": (
        HEAD + table("    rows: [{label: a}]\n", design="stak"),
        [
            f"small.yaml:{FIRST + 3}: unknown design 'stak'; did you mean 'stack'?"
            " Valid: add_one_in, both_ends, both_ways, factorial, fractional, grid, leave_one_out, rows,"
            " stack"
        ],
    ),
    "a key of another design": (
        HEAD + table("    tricks: [mixup]\n    resolution: 5\n", design="factorial"),
        [
            f"small.yaml:{FIRST + 5}: the design 'factorial' does not use the key 'resolution';"
            " it takes paper, tricks"
        ],
    ),
    "tricks that cannot all be on": (
        HEAD + table("    tricks: [fp16, bf16, cosine]\n", design="both_ends"),
        [
            f"small.yaml:{FIRST + 4}: tricks 'fp16' and 'bf16' exclude each other"
            " (t, row 'all' and 1 more row; sizes mini, gpu, paper)"
        ],
    ),
    "a fraction that does not exist": (
        HEAD + table("    tricks: [mixup, cosine]\n", design="fractional"),
        [
            f"small.yaml:{FIRST + 4}: no fraction of 2 factors has resolution 5;"
            " use the design 'factorial', or a lower resolution"
        ],
    ),
    "unknown row": (
        HEAD + rows("{label: first}", "{label: b, versus: frist}"),
        [f"small.yaml:{ROW + 1}: unknown row 'frist'; did you mean 'first'? Valid: b, first"],
    ),
    "compared with a quoted row": (
        HEAD + rows("{label: q, cite: true, paper: {top1: 1, status: memory}}", "{label: b, versus: q}"),
        [f"small.yaml:{ROW + 1}: row 'q' is quoted, not trained; nothing can be compared with it"],
    ),
    "printed value without a status": (
        HEAD + rows("{label: a, paper: {top1: 76.2}}"),
        [f"small.yaml:{ROW}: the printed top1 has no status; say 'status: verified' or 'status: memory'"],
    ),
    "printed value of an unknown metric": (
        HEAD + rows("{label: a, paper: {top_1: 76.2, status: memory}}"),
        [
            f"small.yaml:{ROW}: unknown metric 'top_1'; did you mean 'top1'? Valid: cost, cost_bn_ops,"
            " epoch_minutes, gflops, params_m, status, steps_to_target_m, top1, top1_std, top5"
        ],
    ),
    "printed value that is no percentage": (
        HEAD + rows("{label: a, paper: {top1: 101, status: memory}}"),
        [f"small.yaml:{ROW}: top1 must be a percentage from 0 to 100, got 101"],
    ),
    "printed number that is not positive": (
        HEAD + rows("{label: a, paper: {params_m: 0, gflops: -1, status: memory}}"),
        [
            f"small.yaml:{ROW}: gflops must be a number greater than 0, got -1",
            f"small.yaml:{ROW}: params_m must be a number greater than 0, got 0",
        ],
    ),
    "crops that are not known": (
        HEAD + rows("{label: a, set: {eval_crops: 11}}"),
        [f"small.yaml:{ROW}: tables.t.rows[0].set.eval_crops must be one of 1, 10, 12, 144, got 11"],
    ),
    "too many seeds": (
        HEAD.replace("at_most: 2", "at_most: 1001") + FINE,
        ["small.yaml:3: seeds.at_most must be less than or equal to 1000, got 1001"],
    ),
    "seeds that are no number": (
        HEAD.replace("{start: 2, at_most: 2}", "few") + FINE,
        ["small.yaml:3: seeds must be a number of seeds, or {start: 3, at_most: 10}, got 'few'"],
    ),
    "fewer seeds at most than at the start": (
        HEAD.replace("{start: 2, at_most: 2}", "{start: 5, at_most: 2}") + FINE,
        ["small.yaml:3: seeds must have at_most >= start, got start 5 and at_most 2"],
    ),
    "looks that do not rise": (
        HEAD.replace("{start: 2, at_most: 2}", "{start: 3, at_most: 10, looks: [3, 5, 5, 10]}") + FINE,
        [
            "small.yaml:3: seeds must have looks that rise from start 3 to at_most 10, such as"
            " [3, 5, 8, 10], got [3, 5, 5, 10]"
        ],
    ),
    "looks that end elsewhere": (
        HEAD.replace("{start: 2, at_most: 2}", "{start: 3, at_most: 10, looks: [3, 8]}") + FINE,
        [
            "small.yaml:3: seeds must have looks that rise from start 3 to at_most 10, such as"
            " [3, 5, 8, 10], got [3, 8]"
        ],
    ),
    "seeds of a size": (
        HEAD.replace("epochs: 30", "epochs: 30, seeds: {at_most: 2}") + FINE,
        ["small.yaml:7: sizes.gpu.seeds must have at_most >= start, got start 3 and at_most 2"],
    ),
    "teacher that is not an arm": (
        HEAD + rows("{label: a, add: {distillation: {teacher: large}}}"),
        [f"small.yaml:{ROW}: unknown arm 'large'. Valid: baseline"],
    ),
    "unknown recipe of an arm": (
        HEAD + "arms: {a: {recipe: goyel}}\n" + FINE,
        [
            f"small.yaml:{FIRST}: unknown recipe 'goyel'; did you mean 'goyal'?"
            f" Valid: {', '.join(sorted(RECIPES))}"
        ],
    ),
    "an argument that the optimizer does not have": (
        HEAD + rows("{label: a, set: {optimizer: rmsprop_tf}}"),
        [
            f"small.yaml:{ROW}: unknown argument of optimizer rmsprop_tf 'nesterov'."
            " Valid: alpha, eps, momentum (t, row 'a'; sizes mini, gpu, paper)"
        ],
    ),
    "wrong level": (
        HEAD + table("    factors: {batch_size: [256, 0]}\n", design="grid"),
        [f"small.yaml:{FIRST + 4}: batch_size must be greater than or equal to 1, got 0"],
    ),
    "YAML syntax": (
        HEAD + "tables: {t: [\n",
        [f"small.yaml:{FIRST + 1}: not valid YAML: ..."],
    ),
    "duplicate key": (
        HEAD + "study: again\n" + FINE,
        [f"small.yaml:{FIRST}: duplicate key 'study', first on line 1"],
    ),
    "empty file": (
        "# nothing\n",
        ["small.yaml: the file is empty; a study has at least study, question, baseline, tables"],
    ),
    "not a map": (
        "- a\n",
        ["small.yaml:1: the file must be a map with the keys study, question, baseline, tables"],
    ),
}
