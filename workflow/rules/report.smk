# Tables and figures by name: `snakemake --cores 1 table1`, `... figure2`: the items of the suite. Each asks for the runs that it
# shows and no others. How what is shown is made stands in eval/report/.

RESULTS = f"results/{SUITE}"
PAPER_VALUES = Path(workflow.basedir).parent / "eval/report/paper_values.yaml"
PAPER_ITEMS = {row["item"] for row in yaml.safe_load(PAPER_VALUES.read_text())["rows"]}
TABLE, FIGURE = ("csv", "md", "tex", "html"), ("png", "pdf", "csv")
FILES = {
    "scores": {"tables/{item}": ("scores", TABLE), "tables/{item}_pass_at_k": ("pass_at_k", TABLE)},
    "arms": {"tables/{item}": ("arms", TABLE), "figures/{item}": ("arms_figure", FIGURE)},
    "targets": {"tables/{item}": ("targets", TABLE), "figures/{item}": ("targets_figure", FIGURE)},
    "contamination": {"tables/{item}": ("contamination", TABLE)},
    "selection": {"tables/{item}": ("selection", TABLE)},
    **{shows: {"figures/{item}": (shows, FIGURE)} for shows in ("curves", "dynamics", "costs", "memory")},
}
"""What is shown -> the files of an item, each with its caption and its forms."""


def files_of(item):
    """FILES, and those that depend on the item."""
    more = {}
    if item.shows in ("scores", "costs") and item.item in PAPER_ITEMS:
        more = {"tables/{item}_beside_paper": ("beside_paper", TABLE)}
    if item.shows == "contamination":
        more = {f"tables/{{item}}_without_{dataset}": ("scores", TABLE) for dataset in item.datasets}
    return {**FILES[item.shows], **more}


def finished_jobs(item):
    """The files that an item reads."""
    of_training = of_runs(item.runs, [rules.train_run.output[name] for name in ("summary", "metrics", "validation")])
    if not item.scored:
        return of_training
    base = expand(rules.evaluate_base.output.scores, model=item.models)
    texts = [
        expand(rules.prepare_benchmark.output.problems, benchmark=item.benchmarks),
        expand([rules.prepare_dataset.output.train, rules.prepare_dataset.output.validation], dataset=item.datasets),
    ]
    compared = texts if item.shows == "contamination" else []
    return [of_training, of_runs(item.runs, rules.evaluate_run.output.scores), base, compared]


def for_the_report(item, file, caption):
    """A file of RESULTS with its place on the workflow's report page."""
    category = (Path(file).parent.name or Path(file).stem).capitalize()
    labels = {"item": item, "file": Path(file).name}
    return report(f"{RESULTS}/{file}", caption=f"../report/{caption}.rst", category=category, labels=labels)


def command_of(target):
    """What reproduces a target, and only what it needs: the last line of its caption."""
    mirror = f" data_mirror={shlex.quote(PARAMS.data_mirror)}" if PARAMS.data_mirror else ""
    return f"snakemake --cores all --config suite={SUITE}{mirror} -- {target}"


def written(item):
    """The files of an item."""
    return [
        for_the_report(item.item, f"{name.format(item=item.item)}.{kind}", caption)
        for name, (caption, kinds) in files_of(item).items()
        for kind in kinds
    ]


for item in ITEMS:

    rule:
        name:
            item.item
        input:
            settings=f"{RESULTS}/items/{item.item}/settings.json",
            jobs=finished_jobs(item),
        output:
            written(item),
        params:
            command=command_of(item.item),
        log:
            f"logs/{SUITE}/report/{item.item}.log",
        shell:
            "{PYTHON} -m eval.report.render {input.settings} > {log} 2>&1"


rule metrics:
    input:
        settings=[f"{RESULTS}/items/{item.item}/settings.json" for item in ITEMS],
        jobs=[finished_jobs(item) for item in ITEMS if item.shows == "scores"],
    output:
        f"{RESULTS}/metrics.json",
    log:
        f"logs/{SUITE}/report/metrics.log",
    shell:
        "{PYTHON} -m eval.report.render {input.settings} --metrics > {log} 2>&1"


rule runs_page:
    input:
        settings=[f"{RESULTS}/items/{item.item}/settings.json" for item in ITEMS],
        runs=of_runs(RUNS, [rules.train_run.input.settings, rules.train_run.output.summary]),
    output:
        for_the_report("runs", "runs.html", "runs_page"),
    params:
        command=command_of("runs_page"),
    log:
        f"logs/{SUITE}/report/runs_page.log",
    shell:
        "{PYTHON} -m eval.report.render {input.settings} --runs > {log} 2>&1"


rule report:
    input:
        [getattr(rules, item.item).output for item in ITEMS],
        rules.metrics.output,
        rules.runs_page.output,
