# One training job for each model x dataset x arm x seed. What a job has computed is below the run's state/ folder, which no rule
# declares: a job that fails or is run again loses its declared outputs, which are links, never what they link to.

RUN_FOLDER = f"runs/{SUITE}/{RUN}"


def training_rows(wildcards):
    """The data set, or what the suite's difficulty filter keeps of it."""
    folder = SETTINGS[f"{RUN_FOLDER.format(**wildcards)}/settings.json"].data_path
    return made_from(RUN_FOLDER, f"{folder}/train.parquet", f"{folder}/validation.parquet")(wildcards)


rule train_run:
    input:
        changed(RUN_FOLDER),
        data=training_rows,
        model=made_from(RUN_FOLDER, rules.prepare_model.output[0]),
    output:
        summary=f"{RUN_FOLDER}/summary.json",
        metrics=f"{RUN_FOLDER}/metrics.jsonl",
        validation=f"{RUN_FOLDER}/validation.jsonl",
        completions=f"{RUN_FOLDER}/completions.jsonl",
        validation_completions=f"{RUN_FOLDER}/validation_completions.jsonl",
        best=f"{RUN_FOLDER}/best/manifest.json",
        last=f"{RUN_FOLDER}/last/manifest.json",
    log:
        f"logs/{SUITE}/{RUN}/train.log",
    benchmark:
        f"logs/{SUITE}/{RUN}/train.benchmark.tsv"
    threads: RESOURCES.threads
    # Each continues from the last saved state. On a cluster the Snakemake that submits retries, not the one inside the job.
    retries: RESOURCES.retries if workflow.is_main_process else 0
    resources:
        gpu=RESOURCES.requested_gpus,
        tasks=RESOURCES.tasks,
        cpus_per_task=max(1, RESOURCES.threads // RESOURCES.tasks),  # Slurm's
        mem_mb=RESOURCES.mem_mb,
        runtime=RESOURCES.runtime,
    params:
        settings=settings_of(RUN_FOLDER),
        gpu=RESOURCES.gpu,
        python=python(RESOURCES.threads),
        ranks=RESOURCES.ranks,
        threads_of_a_rank=max(1, RESOURCES.threads // RESOURCES.ranks),
    shell:
        # exec: a shell in between would die of SIGTERM, and the job with it, before training has saved.
        "exec env {params.python} -m workflow.gpus --tasks {resources.tasks} {params.gpu} {sys.executable} -m workflow.launch "
        "{params.ranks} sfpo.train {params.settings} --wait --threads {params.threads_of_a_rank} > {log} 2>&1"


def of_runs(runs, files):
    """These files of every one of the runs."""
    return [expand(files, **run.model_dump()) for run in runs]


rule train:
    input:
        of_runs(RUNS, rules.train_run.output),
