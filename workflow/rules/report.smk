# Tables and figures by name: `snakemake --cores 1 table1`, `... figure2`. What each shows is in eval/report/.

RESULTS = f"results/{SUITE}"
TABLES = {"table1": ["table1", "table1_pass_at_k"]}
FIGURES = ["figure2", "figure3", "figure4"]


def finished_jobs(wildcards):
    """The files that the report reads."""
    of_runs = of_all_runs([rules.train_run.output[name] for name in ("summary", "metrics", "validation")])
    scores = of_all_runs(rules.evaluate_run.output.scores)
    return of_runs + scores + expand(rules.evaluate_base.output.scores, model=PARAMS.active.models)


for item, names in TABLES.items():

    rule:
        name:
            item
        input:
            settings=f"{RESULTS}/settings.json",
            jobs=finished_jobs,
        output:
            [
                report(f"{RESULTS}/tables/{name}.{kind}", caption=f"../report/{name}.rst", category="Tables", labels={"table": name, "as": kind})
                for name in names
                for kind in ("csv", "md", "tex")
            ],
        log:
            f"logs/{SUITE}/report/{item}.log",
        shell:
            "{PYTHON} -m eval.report.render {input.settings} {rule} > {log} 2>&1"


for item in FIGURES:

    rule:
        name:
            item
        input:
            settings=f"{RESULTS}/settings.json",
            jobs=finished_jobs,
        output:
            [
                report(f"{RESULTS}/figures/{item}.{kind}", caption=f"../report/{item}.rst", category="Figures", labels={"figure": item, "as": kind})
                for kind in ("png", "pdf", "csv")
            ],
        log:
            f"logs/{SUITE}/report/{item}.log",
        shell:
            "{PYTHON} -m eval.report.render {input.settings} {rule} > {log} 2>&1"


rule arms:
    input:
        settings=f"{RESULTS}/settings.json",
        jobs=finished_jobs,
    output:
        [
            report(f"{RESULTS}/tables/arms.{kind}", caption="../report/arms.rst", category="Tables", labels={"table": "arms", "as": kind})
            for kind in ("csv", "md", "tex")
        ],
        [
            report(f"{RESULTS}/figures/arms.{kind}", caption="../report/arms_figure.rst", category="Figures", labels={"figure": "arms", "as": kind})
            for kind in ("png", "pdf", "csv")
        ],
    log:
        f"logs/{SUITE}/report/arms.log",
    shell:
        "{PYTHON} -m eval.report.render {input.settings} {rule} > {log} 2>&1"


rule metrics:
    input:
        settings=f"{RESULTS}/settings.json",
        jobs=finished_jobs,
    output:
        f"{RESULTS}/metrics.json",
    log:
        f"logs/{SUITE}/report/metrics.log",
    shell:
        "{PYTHON} -m eval.report.render {input.settings} {rule} > {log} 2>&1"


rule report:
    input:
        [getattr(rules, item).output for item in (*TABLES, *FIGURES, "arms")],
        rules.metrics.output,
