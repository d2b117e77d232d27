import re

import pandas as pd
import pytest
from report_factory import TITLES, report_settings

from eval.report.collect import collect
from eval.report.tables import accuracy, pass_at_least_once
from eval.report.verdicts import headline


def scores(answers, model="tiny-qwen2"):
    """{(arm, seed): {benchmark: [right samples of each problem, out of 4]}} as rows."""
    rows = []
    for (arm, seed), benchmarks in answers.items():
        dataset = None if arm == "base" else "arithmetic"
        for benchmark, right in benchmarks.items():
            rows += [
                (model, dataset, arm, seed, benchmark, f"{benchmark}/{problem:03d}", k, k < count)
                for problem, count in enumerate(right)
                for k in range(4)
            ]
    columns = ["model", "dataset", "arm", "seed", "benchmark", "problem_id", "sample", "correct"]
    return pd.DataFrame(rows, columns=columns).astype({"seed": "Int64", "dataset": "string"})


def settings_of(**shape):
    update = {"benchmarks": {"sums": "Sums", "new_chains": "New chains"}, "samples": {"sums": 4, "new_chains": 4}}
    return report_settings(**shape).model_copy(update=update)


# Right answers out of 4, problem by problem. Means: base 1/8 and 0; grpo 4/8 and 1/4; sfpo 7/8 and 1/4.
BY_HAND = {
    ("base", None): {"sums": [1, 0], "new_chains": [0, 0]},
    ("grpo", 0): {"sums": [2, 2], "new_chains": [1, 1]},
    ("sfpo", 0): {"sums": [4, 3], "new_chains": [2, 0]},
}


def test_table1_by_hand():
    frame = accuracy(scores(BY_HAND), settings_of(seeds=(0,))).frame.set_index("arm")
    assert list(frame.index) == ["base", "grpo", "sfpo", "grpo-base", "sfpo-base", "sfpo-grpo"]
    assert list(frame["kind"]) == ["score"] * 3 + ["gain"] * 3
    assert list(frame["sums"]) == [12.5, 50, 87.5, 37.5, 75, 37.5]
    assert list(frame["new_chains"]) == [0, 25, 25, 25, 25, 0]
    assert list(frame["average"]) == [6.25, 37.5, 56.25, 31.25, 50, 18.75]
    assert (frame["n_seeds"] == 1).all() and (frame["problems"] == 4).all()


def test_pass_at_k_by_hand():
    frame = pass_at_least_once(scores(BY_HAND), settings_of(seeds=(0,))).frame.set_index("arm")
    # Problems solved at least once out of two: base 1 and 0; grpo 2 and 2; sfpo 2 and 1.
    assert list(frame.loc[["base", "grpo", "sfpo"], "sums"]) == [50, 100, 100]
    assert list(frame.loc[["base", "grpo", "sfpo"], "new_chains"]) == [0, 100, 50]
    assert frame.loc["sfpo-grpo", "average"] == -25


def test_columns_follow_the_settings(clear_lead):
    frame = accuracy(clear_lead, settings_of()).frame
    parts = [f"{name}{suffix}" for name in ("sums", "new_chains", "average") for suffix in ("", "_low", "_high")]
    errors = [f"error_{source}" for source in ("seed", "problem", "interaction", "sample")]
    of_gains = ["p", "p_holm", "detectable_low", "detectable_high", *errors]
    assert list(frame.columns) == ["model", "dataset", "arm", "kind", *parts, "n_seeds", "problems", "best_in", *of_gains]


@pytest.fixture
def clear_lead():
    """SFPO better on every problem of sums by half, equal on new_chains."""
    arms = {"base": ([0] * 30, [1] * 30), "grpo": ([1, 2] * 15, [2, 1] * 15), "sfpo": ([3, 4] * 15, [2, 1] * 15)}
    seeds = {"base": [None]}
    return scores({(arm, k): {"sums": s, "new_chains": c} for arm, (s, c) in arms.items() for k in seeds.get(arm, [0, 1, 2])})


def test_bold_only_where_the_lead_is_beyond_chance(clear_lead):
    table = accuracy(clear_lead, settings_of())
    assert dict(zip(table.frame["arm"], table.frame["best_in"], strict=True))["sfpo"] == "sums average"
    row = next(line for line in table.markdown.splitlines() if line.startswith("| SFPO  "))
    assert row.count("**") == 4 and "**87.5** [" in row
    assert r"$\mathbf{87.5}$" in table.latex and r"\mathbf{37.5}" not in table.latex


def test_bold_is_corrected_for_the_number_of_columns():
    """Twenty models of which one leads with p = 0.02 have no bold number; alone it has one."""
    seeds = range(6)
    of_seed = {0: 4, 1: 3, 2: 3, 3: 3, 4: 2, 5: 3}
    led = {("base", None): {"sums": [0] * 30}}
    led |= {("grpo", k): {"sums": [2] * 30} for k in seeds} | {("sfpo", k): {"sums": [of_seed[k]] * 30} for k in seeds}
    equal = {key: {"sums": [1] * 15 + [2] * 15} if key[0] != "base" else value for key, value in led.items()}
    names = [f"m{i}" for i in range(20)]
    settings = settings_of(models=tuple(names[:1]), seeds=tuple(seeds))
    settings = settings.model_copy(update={"benchmarks": {"sums": "Sums"}, "samples": {"sums": 4}})
    alone = accuracy(scores(led, "m0"), settings).frame
    # Gains in samples of four: 2, 1, 1, 1, 0, 1: mean 1, sd 0.632, t = 1 / 0.258 = 3.873: p of t(5) is 0.0117.
    assert alone.set_index("arm").loc["sfpo-grpo", "p"] == pytest.approx(0.0117, abs=1e-4)
    assert alone.set_index("arm").loc["sfpo", "best_in"] == "sums average"  # 2 * 0.0117
    among = pd.concat([scores(led, "m0"), *(scores(equal, name) for name in names[1:])])
    many = accuracy(among, settings.model_copy(update={"models": names})).frame
    assert not "".join(many["best_in"])
    assert many.query("model == 'm0' and arm == 'sfpo-grpo'")["p_holm"].item() == pytest.approx(21 * 0.0117, abs=2e-3)


def test_nothing_is_bold_among_equals():
    of_arms = {arm: {"sums": [1, 3, 2], "new_chains": [0, 1, 2]} for arm in ("base", "grpo", "sfpo")}
    equal = {(arm, k): of_arms[arm] for arm in of_arms for k in ([None] if arm == "base" else [0, 1, 2])}
    table = accuracy(scores(equal), settings_of())
    assert not "".join(table.frame["best_in"])
    # Two benchmarks of three problems without a difference: each 1 - 0.05^(1/3) = 63.16 points either way; their average
    # sqrt(2) * 63.16 / 2 = 44.66.
    assert "= +0.0 [-44.7, 44.7] points on average: not distinguishable from zero with 3 seeds; p 1" in table.markdown
    assert "rule of three: about 3/n" in table.markdown


def test_notes_say_what_was_measured(clear_lead):
    table = accuracy(clear_lead, settings_of())
    assert "over 60 problems with 4 samples each" in table.markdown
    assert "the 3 training seeds together (analysis of variance" in table.markdown and "fixed before the runs" in table.markdown
    # Of 30 problems, 9.503% may differ. sums gain 0.5 each, down to -1: 1.5 * 9.503 = 14.25 points below and 4.75 above; no
    # gain in new_chains: 9.503 either way. Average: sqrt(14.25^2 + 9.503^2) / 2 = 8.56 below, sqrt(4.75^2 + 9.503^2) / 2 = 5.31
    # above.
    said = "SFPO - GRPO = +25.0 [16.4, 30.3] points on average: distinguishable from zero with 3 seeds (better); p 5.9e-05"
    assert said in table.markdown
    # No gain differs from seed to seed or problem to problem; samples do: sums right 1 or 2 of 4 (GRPO), 3 or 4 (SFPO),
    # variance p (1 - p) 4/3: 1/4 and 1/3, 1/4 and 0: mean 5/12 of both; new_chains 2 or 1 of 4: 7/24 in either, 7/12. Error
    # of the average: sqrt((5/12 + 7/12) / 30 / 4 / 3) / 2 = 0.02635.
    assert (
        "standard errors by source: seeds 0.00, problems 0.00, seeds and problems together 0.00, samples 2.64."
        in table.markdown
    )
    assert "New chains†" in table.markdown and "Sums†" not in table.markdown and "† Out of distribution" in table.markdown


WORDS_OF_DIFFERENCE = ("distinguishable", "better than", "Holm", "p 0", "power lies", "standard errors", "Bold", "**8")


def test_one_seed_has_no_word_of_difference_and_says_why_above():
    settings = settings_of(seeds=(0,))
    table, passes = accuracy(scores(BY_HAND), settings), pass_at_least_once(scores(BY_HAND), settings)
    for text in (table.markdown, table.latex, passes.markdown, headline(table, passes, settings)):
        assert "ONE TRAINING SEED" in text and not [word for word in WORDS_OF_DIFFERENCE if word in text]
    assert table.markdown.index("ONE TRAINING SEED") < table.markdown.index("| Base")
    assert "Intervals: only over problems" in table.markdown
    gain = table.frame.set_index("arm").loc["sfpo-grpo"]
    assert gain[["average_low", "average_high", "p", "p_holm", "detectable_low", "detectable_high"]].isna().all()
    assert table.frame.set_index("arm").loc["sfpo", "average_low"] > 0 and not "".join(table.frame["best_in"])


def of_models(gains):
    """{model: samples of four that SFPO is better by on each of 30 problems}; one seed."""
    return pd.concat(
        [
            scores(
                {("base", None): {"sums": [0] * 30}, ("grpo", 0): {"sums": [1] * 30}, ("sfpo", 0): {"sums": [1 + g] * 30}}, name
            )
            for name, g in gains.items()
        ]
    )


def test_a_gain_over_models_is_tested_also_with_one_seed_each():
    gains = {"a": 1, "b": 2, "c": 1, "d": 2}
    settings = settings_of(models=tuple(gains), seeds=(0,))
    settings = settings.model_copy(update={"benchmarks": {"sums": "Sums"}, "samples": {"sums": 4}})
    table = accuracy(of_models(gains), settings)
    # Gains 25, 50, 25, 50 points: mean 37.5, sd 14.434, error 7.217; t(3) = 3.18245: 22.97. t = 5.196: p of t(3) is 0.01385.
    (pooled,) = table.frame.query("model == 'all models'").to_dict("records")
    assert pooled["arm"] == "sfpo-grpo"
    assert [pooled[f"average{end}"] for end in ("", "_low", "_high")] == pytest.approx([37.5, 14.53, 60.47], abs=0.01)
    assert pooled["p"] == pytest.approx(0.01385, abs=1e-5) == pooled["p_holm"]  # nothing else is tested
    assert (
        "all models, trained on arithmetic: SFPO - GRPO = +37.5 [14.5, 60.5] points on average: distinguishable"
        in table.markdown
    )
    assert table.frame.query("model != 'all models'")["p"].isna().all()


def test_benchmarks_with_their_own_numbers_of_samples():
    settings = settings_of(seeds=(0,)).model_copy(update={"samples": {"sums": 2, "new_chains": 4}})
    rows = scores(BY_HAND)
    rows = rows[(rows["benchmark"] == "new_chains") | (rows["sample"] < 2)]
    table, passes = accuracy(rows, settings), pass_at_least_once(rows, settings)
    assert "Accuracy (avg@k, %)" in table.markdown and "k samples (k: Sums 2, New chains 4) each" in table.markdown
    # pass@2, which both allow. new_chains: 1 of 4 right: 1 - 3/6; SFPO 2 of 4: 1 - 1/6, and 0.
    assert "(pass@2, %)" in passes.markdown
    assert passes.frame.set_index("arm").loc[["grpo", "sfpo"], "new_chains"].tolist() == pytest.approx([50, 100 * 5 / 12])


def test_no_note_on_a_mark_that_is_not_there():
    table = accuracy(scores(BY_HAND), settings_of(seeds=(0,)).model_copy(update={"out_of_distribution": []}))
    assert "†" not in table.markdown and "dagger" not in table.latex


def test_one_arm_alone():
    only = {key: value for key, value in BY_HAND.items() if key[0] != "sfpo"}
    table = accuracy(scores(only), settings_of(arms=("grpo",), seeds=(0,)))
    assert list(table.frame["arm"]) == ["base", "grpo", "grpo-base"]


@pytest.mark.parametrize("arms", [("grpo", "sfpo"), tuple(TITLES)])
def test_without_any_problem_there_are_no_gains_in_the_table(arms):
    settings, nothing = settings_of(models=("tiny-qwen2", "smollm2-135m"), arms=arms), scores(BY_HAND).iloc[:0]
    for table in (accuracy(nothing, settings), pass_at_least_once(nothing, settings)):
        rows = [line for line in table.markdown.splitlines() if "none left" in line]
        assert len(rows) == len(table.frame) == 2 * (1 + len(arms)) and {row.count("none left") for row in rows} == {3}
        assert table.markdown.count("\n- ") == 1 and " - Base" not in table.markdown
        assert "on 0 of 2 benchmarks" in table.markdown


def test_arms_scored_on_different_benchmarks_are_refused():
    rows = scores(BY_HAND)
    with pytest.raises(ValueError, match="arms scored on different benchmarks"):
        accuracy(rows[(rows["arm"] != "sfpo") | (rows["benchmark"] == "sums")], settings_of(seeds=(0,)))


def test_markdown_is_aligned_and_grouped_by_model(results, tmp_path):
    settings = results(models=("tiny-qwen2", "smollm2-135m"))
    text = accuracy(collect(settings, tmp_path).scores, settings).markdown
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 2 * (2 + 6) + 2 + 1 and len({len(line) for line in lines}) == 1
    assert text.index("tiny-qwen2, trained on arithmetic") < text.index("smollm2-135m, trained on arithmetic")


def test_latex_is_whole(results, tmp_path):
    settings = results(models=("tiny_qwen2",)).model_copy(update={"arms": {"grpo": "GRPO & co", "sfpo": "SFPO 50%"}})
    text = accuracy(collect(settings, tmp_path).scores, settings).latex
    rows = [line for line in text.splitlines() if line.endswith(r"\\[2pt]") and "multicolumn" not in line]
    assert len(rows) == 6 and {row.replace(r"\&", "").count("&") for row in rows} == {4}
    bare = text.replace(r"\\", "").replace(r"\{", "").replace(r"\}", "")
    assert bare.count("{") == bare.count("}")
    assert r"GRPO \& co" in text and r"SFPO 50\%" in text and r"tiny\_qwen2" in text
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == 1


def test_headline_gives_the_outcome_and_the_way_on(results, tmp_path):
    settings = results()
    found = collect(settings, tmp_path).scores
    table, passes = accuracy(found, settings), pass_at_least_once(found, settings)
    text = headline(table, passes, settings)
    gain = table.frame.set_index("arm").loc["sfpo-grpo"]
    line = next(line for line in text.splitlines() if line.startswith("  SFPO - GRPO"))
    assert f"{gain['average']:+.1f} [{gain['average_low']:.1f}, {gain['average_high']:.1f}]" in line
    assert f" {passes.frame.set_index('arm').loc['sfpo-grpo', 'average']:+.1f} " in line  # pass@4
    assert ("not distinguishable" in line) == (gain["p_holm"] >= 0.05)
    assert "results/tiny/figures/" in text and max(map(len, text.splitlines())) <= 120


def test_with_many_arms_gains_over_the_base_are_in_the_csv_alone(results, tmp_path):
    settings = results(arms=tuple(TITLES))
    found = collect(settings, tmp_path).scores
    table = accuracy(found, settings)
    words = headline(table, pass_at_least_once(found, settings), settings)
    others = len(TITLES) - 1
    assert (table.frame["arm"].str.endswith("-base")).sum() == others + 1
    assert " - Base" not in table.markdown and " - Base" not in words
    for text in (table.markdown, words):
        names = [re.split(r"  | \|", line.strip("| "))[0] for line in text.splitlines()]
        assert [name for name in names if name.endswith(" - GRPO")] == [f"{TITLES[arm]} - GRPO" for arm in [*TITLES][1:]]
    assert f"of {others} average gains over GRPO, " in table.markdown


def test_a_long_table_is_split_over_pages(results, tmp_path):
    settings = results(arms=tuple(TITLES))
    text = accuracy(collect(settings, tmp_path).scores, settings).latex
    pages = text.split(r"\begin{table}")[1:]
    # The base and 16 arms; 15 gains over the first arm.
    assert [page.count(r"\shortstack") for page in pages] == [17 * 4, 15 * 4]
    assert text.count(r"\label") == text.count(r"\caption") == 1 and "Intervals:" in pages[1] and "Intervals:" not in pages[0]
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == text.count(r"\end{table}") == 2
