# lm-eval on every run's checkpoints, and on the untrained models.

EVALUATION = EXECUTION.evaluation
EVALUATION_FOLDER = f"evaluations/{SUITE}/{RUN}"
BASE_FOLDER = f"evaluations/{SUITE}/{{model}}/{{base}}"
BASES = jobs.union(item.base.values() for item in SCORED)


def problems_of(folder):
    """The benchmarks of one evaluation."""

    def problems(wildcards):
        settings = SETTINGS[f"{folder.format(**wildcards)}/settings.json"]
        return made_from(folder, *settings.benchmarks.values())(wildcards)

    return problems


rule evaluate_run:
    input:
        changed(EVALUATION_FOLDER),
        # and exports/, which are written with them
        checkpoints=made_from(EVALUATION_FOLDER, rules.train_run.output.best, rules.train_run.output.last),
        benchmarks=problems_of(EVALUATION_FOLDER),
    output:
        results=f"{EVALUATION_FOLDER}/results.json",
        scores=f"{EVALUATION_FOLDER}/scores.parquet",
        samples=f"{EVALUATION_FOLDER}/samples.jsonl",
    params:
        settings=settings_of(EVALUATION_FOLDER),
        gpu=EXECUTION.evaluation_gpu,
        python=python(EVALUATION.threads),
        ranks=EXECUTION.engine.tensor_parallel,
        threads_of_a_rank=max(1, EVALUATION.threads // EXECUTION.engine.tensor_parallel),
    log:
        f"logs/{SUITE}/{RUN}/evaluate.log",
    benchmark:
        f"logs/{SUITE}/{RUN}/evaluate.benchmark.tsv"
    threads: EVALUATION.threads
    resources:
        gpu=min(EXECUTION.engine.tensor_parallel, RESOURCES.requested_gpus),
        mem_mb=EVALUATION.mem_mb,
        runtime=EVALUATION.runtime,
    shell:
        "exec env {params.python} -m workflow.gpus {params.gpu} {sys.executable} -m workflow.launch {params.ranks} "
        "eval.evaluate_checkpoints {params.settings} --threads {params.threads_of_a_rank} > {log} 2>&1"


use rule evaluate_run as evaluate_base with:
    input:
        changed(BASE_FOLDER),
        checkpoints=made_from(BASE_FOLDER, rules.prepare_model.output[0]),
        benchmarks=problems_of(BASE_FOLDER),
    output:
        results=f"{BASE_FOLDER}/results.json",
        scores=f"{BASE_FOLDER}/scores.parquet",
        samples=f"{BASE_FOLDER}/samples.jsonl",
    params:
        settings=settings_of(BASE_FOLDER),
        gpu=EXECUTION.evaluation_gpu,
        python=python(EVALUATION.threads),
        ranks=EXECUTION.engine.tensor_parallel,
        threads_of_a_rank=max(1, EVALUATION.threads // EXECUTION.engine.tensor_parallel),
    log:
        f"logs/{SUITE}/{{model}}/{{base}}/evaluate.log",
    benchmark:
        f"logs/{SUITE}/{{model}}/{{base}}/evaluate.benchmark.tsv"


TRAJECTORY_FOLDER = f"evaluations/{SUITE}/{{model}}/{{dataset}}/trajectory-{{item}}"
RECORDED = [item.trajectory(*group) for item in ITEMS for group in jobs.recorded(item)]


def start_of_step(wildcards):
    """The policy that a recorded step starts from, and the rows that its batch is drawn from."""
    settings = SETTINGS[f"{TRAJECTORY_FOLDER.format(**wildcards)}/settings.json"]
    files = [f"{settings.checkpoint}/manifest.json", f"{settings.start.data_path}/train.parquet"]
    return made_from(TRAJECTORY_FOLDER, *files)(wildcards)


# A step of training, taken again and again: it needs what a training job needs.
rule record_step:
    input:
        changed(TRAJECTORY_FOLDER),
        start=start_of_step,
    output:
        f"{TRAJECTORY_FOLDER}/results.json",
    params:
        settings=settings_of(TRAJECTORY_FOLDER),
        gpu=RESOURCES.gpu,
        python=python(RESOURCES.threads),
        ranks=RESOURCES.ranks,
        threads_of_a_rank=max(1, RESOURCES.threads // RESOURCES.ranks),
    log:
        f"logs/{SUITE}/{{model}}/{{dataset}}/trajectory-{{item}}/evaluate.log",
    benchmark:
        f"logs/{SUITE}/{{model}}/{{dataset}}/trajectory-{{item}}/evaluate.benchmark.tsv"
    threads: RESOURCES.threads
    resources:
        gpu=RESOURCES.requested_gpus,
        tasks=RESOURCES.tasks,
        cpus_per_task=max(1, RESOURCES.threads // RESOURCES.tasks),
        mem_mb=RESOURCES.mem_mb,
        runtime=RESOURCES.runtime,
    shell:
        "exec env {params.python} -m workflow.gpus --tasks {resources.tasks} {params.gpu} {sys.executable} -m workflow.launch "
        "{params.ranks} eval.record_step {params.settings} --threads {params.threads_of_a_rank} > {log} 2>&1"


rule evaluate:
    input:
        [f"{folder}/results.json" for folder in RECORDED],
        of_runs(jobs.runs(SCORED), rules.evaluate_run.output),
        [f"{folder}/{name}" for folder in BASES for name in ("results.json", "scores.parquet", "samples.jsonl")],
