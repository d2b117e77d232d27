# lm-eval on every run's checkpoints, and on the untrained models.


def problems_of(settings_path):
    """The benchmarks of one evaluation."""
    return lambda wildcards: list(SETTINGS[settings_path.format(**wildcards)].benchmarks.values())


rule evaluate_run:
    input:
        settings=f"evaluations/{SUITE}/{RUN}/settings.json",
        checkpoints=[rules.train_run.output.best, rules.train_run.output.last],  # and exports/, which are written with them
        benchmarks=problems_of(f"evaluations/{SUITE}/{RUN}/settings.json"),
    output:
        results=f"evaluations/{SUITE}/{RUN}/results.json",
        scores=f"evaluations/{SUITE}/{RUN}/scores.parquet",
        samples=f"evaluations/{SUITE}/{RUN}/samples.jsonl",
    log:
        f"logs/{SUITE}/{RUN}/evaluate.log",
    benchmark:
        f"logs/{SUITE}/{RUN}/evaluate.benchmark.tsv"
    threads: RESOURCES.threads
    resources:
        gpu=min(1, RESOURCES.gpu),
        mem_mb=RESOURCES.mem_mb,
        runtime=RESOURCES.runtime,
    shell:
        "exec env {PYTHON} -m workflow.gpus {resources.gpu} {sys.executable} -m eval.evaluate_checkpoints {input.settings} --threads {threads} > {log} 2>&1"


use rule evaluate_run as evaluate_base with:
    input:
        settings=f"evaluations/{SUITE}/{{model}}/base/settings.json",
        checkpoints=rules.prepare_model.output,
        benchmarks=problems_of(f"evaluations/{SUITE}/{{model}}/base/settings.json"),
    output:
        results=f"evaluations/{SUITE}/{{model}}/base/results.json",
        scores=f"evaluations/{SUITE}/{{model}}/base/scores.parquet",
        samples=f"evaluations/{SUITE}/{{model}}/base/samples.jsonl",
    log:
        f"logs/{SUITE}/{{model}}/base/evaluate.log",
    benchmark:
        f"logs/{SUITE}/{{model}}/base/evaluate.benchmark.tsv"


rule evaluate:
    input:
        of_runs(jobs.runs(SCORED), rules.evaluate_run.output),
        expand(rules.evaluate_base.output, model=jobs.union(item.models for item in SCORED)),
