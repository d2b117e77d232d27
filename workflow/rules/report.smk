# Tables and figures by name: `snakemake --cores 1 table1`, `... figure2`: the items of the suite. Each asks for the runs that it
# shows and no others. What each kind of table or figure reads and writes is in eval/report/kinds/.

RESULTS = f"results/{SUITE}"

def finished_jobs(item):
    """The files that an item reads."""
    of_training = of_runs(item.runs, [rules.train_run.output[name] for name in ("summary", "metrics", "validation")])
    steps = [f"{item.trajectory(*group)}/results.json" for group in jobs.recorded(item)]
    if not item.scored:
        return [of_training, steps]
    base = [f"{folder}/scores.parquet" for folder in item.base.values()]
    texts = [
        expand(rules.prepare_benchmark.output.problems, benchmark=item.benchmarks),
        expand([rules.prepare_dataset.output.train, rules.prepare_dataset.output.validation], dataset=item.datasets),
    ]
    compared = texts if find_kind(item.shows).reads_texts else []
    return [of_training, steps, of_runs(item.runs, rules.evaluate_run.output.scores), base, compared]


def flat(files):
    """Lists of lists of files as one list."""
    return [file for one in files for file in ([one] if isinstance(one, str) else flat(one))]


def written(item):
    """The files of an item."""
    return [
        f"{RESULTS}/{name}.{form}"
        for name, (_, forms) in find_kind(item.shows).files(item).items()
        for form in forms
    ]


for item in ITEMS:

    rule:
        name:
            item.item
        input:
            changed(f"{RESULTS}/items/{item.item}"),
            jobs=made_from(f"{RESULTS}/items/{item.item}", *flat(finished_jobs(item))),
        output:
            written(item),
            record=f"{RESULTS}/items/{item.item}/record.json",
        params:
            settings=f"{RESULTS}/items/{item.item}/settings.json",
        log:
            f"logs/{SUITE}/report/{item.item}.log",
        shell:
            "{PYTHON} -m eval.report.render {params.settings} > {log} 2>&1"


ITEM_SETTINGS = " ".join(f"{RESULTS}/items/{item.item}/settings.json" for item in ITEMS)


rule metrics:
    input:
        changed(f"{RESULTS}/pages/metrics"),
        jobs=made_from(f"{RESULTS}/pages/metrics", *flat(finished_jobs(item) for item in ITEMS if find_kind(item.shows).in_metrics)),
    output:
        f"{RESULTS}/metrics.json",
        f"{RESULTS}/pages/metrics/record.json",
    params:
        settings=ITEM_SETTINGS,
    log:
        f"logs/{SUITE}/report/metrics.log",
    shell:
        "{PYTHON} -m eval.report.render {params.settings} --metrics > {log} 2>&1"


rule runs_page:
    input:
        changed(f"{RESULTS}/pages/runs_page"),
        runs=made_from(f"{RESULTS}/pages/runs_page", *flat(of_runs(RUNS, rules.train_run.output.summary))),
    output:
        f"{RESULTS}/runs.html",
        f"{RESULTS}/pages/runs_page/record.json",
    params:
        settings=ITEM_SETTINGS,
    log:
        f"logs/{SUITE}/report/runs_page.log",
    shell:
        "{PYTHON} -m eval.report.render {params.settings} --runs > {log} 2>&1"


rule completions_page:
    input:
        changed(f"{RESULTS}/pages/completions_page"),
        jobs=made_from(
            f"{RESULTS}/pages/completions_page",
            *flat(of_runs(RUNS, [rules.train_run.output.completions, rules.train_run.output.validation_completions])),
            *flat(finished_jobs(item) for item in ITEMS),
        ),
    output:
        f"{RESULTS}/completions.html",
        f"{RESULTS}/pages/completions_page/record.json",
    params:
        settings=ITEM_SETTINGS,
    log:
        f"logs/{SUITE}/report/completions_page.log",
    shell:
        "{PYTHON} -m eval.report.render {params.settings} --completions > {log} 2>&1"


rule report_page:
    input:
        changed(f"{RESULTS}/pages/report_page"),
        shown=made_from(f"{RESULTS}/pages/report_page", *[file for item in ITEMS for file in written(item)]),
    output:
        f"{RESULTS}/report.html",
        f"{RESULTS}/pages/report_page/record.json",
    params:
        settings=ITEM_SETTINGS,
        mirror=f"--data-mirror {shlex.quote(PARAMS.data_mirror)}" if PARAMS.data_mirror else "",
    log:
        f"logs/{SUITE}/report/report_page.log",
    shell:
        "{PYTHON} -m eval.report.render {params.settings} --report {params.mirror} > {log} 2>&1"


rule report:
    input:
        [getattr(rules, item.item).output for item in ITEMS],
        rules.metrics.output,
        rules.runs_page.output,
        rules.completions_page.output,
        rules.report_page.output,
