# One training job for each model x dataset x arm x seed. Resume state is kept below the run's state/ folder, which no rule declares:
# a failed job loses its declared outputs, never what it had computed.


rule train_run:
    input:
        settings=f"runs/{SUITE}/{RUN}/settings.json",
        train=rules.prepare_dataset.output.train,
        validation=rules.prepare_dataset.output.validation,
        model=rules.prepare_model.output,
    output:
        summary=f"runs/{SUITE}/{RUN}/summary.json",
        metrics=f"runs/{SUITE}/{RUN}/metrics.jsonl",
        validation=f"runs/{SUITE}/{RUN}/validation.jsonl",
        best=f"runs/{SUITE}/{RUN}/best/manifest.json",
        last=f"runs/{SUITE}/{RUN}/last/manifest.json",
    log:
        f"logs/{SUITE}/{RUN}/train.log",
    benchmark:
        f"logs/{SUITE}/{RUN}/train.benchmark.tsv"
    threads: RESOURCES.threads
    # Each goes on from the last saved state. On a cluster the Snakemake that submits retries, not the one inside the job.
    retries: 2 if workflow.is_main_process else 0
    resources:
        gpu=RESOURCES.gpu,
        tasks=RESOURCES.tasks,
        cpus_per_task=max(1, RESOURCES.threads // RESOURCES.tasks),  # Slurm's
        mem_mb=RESOURCES.mem_mb,
        runtime=RESOURCES.runtime,
    params:
        ranks=RESOURCES.ranks,
        threads_of_a_rank=max(1, RESOURCES.threads // RESOURCES.ranks),
    shell:
        # exec: a shell in between would die of SIGTERM, and the job with it, before training has saved.
        "exec env {PYTHON} -m workflow.gpus --tasks {resources.tasks} {resources.gpu} {sys.executable} -m workflow.launch {params.ranks} "
        "sfpo.train {input.settings} --threads {params.threads_of_a_rank} > {log} 2>&1"


def of_runs(runs, files):
    """These files of every one of the runs."""
    return [expand(files, **run.model_dump()) for run in runs]


rule train:
    input:
        of_runs(RUNS, rules.train_run.output),
