# Data sets, benchmarks and starting models.

PREPARATION = EXECUTION.preparation
DATASET = f"data/{SUITE}/train/{{dataset}}"
BENCHMARK = f"data/{SUITE}/benchmarks/{{benchmark}}"
MODEL = f"models/{SUITE}/{{model}}"


rule prepare_dataset:
    input:
        changed(DATASET),
    output:
        train=f"{DATASET}/train.parquet",
        validation=f"{DATASET}/validation.parquet",
        report=f"{DATASET}/report.json",
    params:
        settings=settings_of(DATASET),
    log:
        f"logs/{SUITE}/prepare/dataset-{{dataset}}.log",
    resources:
        mem_mb=PREPARATION.mem_mb,
        runtime=PREPARATION.runtime,
    shell:
        "{PYTHON} -m sfpo.data.prepare {params.settings} --kind dataset > {log} 2>&1"


rule prepare_benchmark:
    input:
        changed(BENCHMARK),
    output:
        problems=f"{BENCHMARK}/problems.parquet",
        report=f"{BENCHMARK}/report.json",
    params:
        settings=settings_of(BENCHMARK),
    log:
        f"logs/{SUITE}/prepare/benchmark-{{benchmark}}.log",
    resources:
        mem_mb=PREPARATION.mem_mb,
        runtime=PREPARATION.runtime,
    shell:
        "{PYTHON} -m sfpo.data.prepare {params.settings} --kind benchmark > {log} 2>&1"


def warm_up_data(wildcards):
    folder = SETTINGS[f"models/{SUITE}/{wildcards.model}/settings.json"].warm_up_data
    files = [f"{folder}/train.parquet", f"{folder}/validation.parquet"] if folder else []
    return made_from(MODEL, *files)(wildcards)


rule prepare_model:
    input:
        changed(MODEL),
        warm_up=warm_up_data,
    output:
        f"{MODEL}/checkpoint/manifest.json",
    params:
        settings=settings_of(MODEL),
        gpu=1 if RESOURCES.requested_gpus else RESOURCES.gpu,
        python=python(PREPARATION.threads),
    log:
        f"logs/{SUITE}/prepare/model-{{model}}.log",
    benchmark:
        f"logs/{SUITE}/prepare/model-{{model}}.benchmark.tsv"
    threads: PREPARATION.threads
    resources:
        gpu=min(1, RESOURCES.requested_gpus),
        mem_mb=PREPARATION.mem_mb,
        runtime=PREPARATION.runtime,
    shell:
        "exec env {params.python} -m workflow.gpus {params.gpu} {sys.executable} -m sfpo.models.prepare {params.settings} > {log} 2>&1"


FILTERS = [str(Path(path).parent) for path, one in SETTINGS.items() if isinstance(one, FilterSettings)]
FILTERED = f"data/{SUITE}/filtered/{{model}}+{{dataset}}"


# Samples like an evaluation, and needs what an evaluation needs.
rule filter_dataset:
    input:
        changed(FILTERED),
        data=made_from(FILTERED, rules.prepare_dataset.output.train, rules.prepare_dataset.output.validation),
        model=made_from(FILTERED, rules.prepare_model.output[0]),
    output:
        train=f"{FILTERED}/train.parquet",
        validation=f"{FILTERED}/validation.parquet",
        report=f"{FILTERED}/report.json",
    params:
        settings=settings_of(FILTERED),
        gpu=EXECUTION.evaluation_gpu,
        python=python(EXECUTION.evaluation.threads),
        ranks=EXECUTION.engine.tensor_parallel,
        threads_of_a_rank=max(1, EXECUTION.evaluation.threads // EXECUTION.engine.tensor_parallel),
    log:
        f"logs/{SUITE}/prepare/filter-{{model}}+{{dataset}}.log",
    benchmark:
        f"logs/{SUITE}/prepare/filter-{{model}}+{{dataset}}.benchmark.tsv"
    threads: EXECUTION.evaluation.threads
    resources:
        gpu=min(EXECUTION.engine.tensor_parallel, RESOURCES.requested_gpus),
        mem_mb=EXECUTION.evaluation.mem_mb,
        runtime=EXECUTION.evaluation.runtime,
    shell:
        "exec env {params.python} -m workflow.gpus {params.gpu} {sys.executable} -m workflow.launch {params.ranks} "
        "sfpo.difficulty {params.settings} --threads {params.threads_of_a_rank} > {log} 2>&1"


rule prepare:
    input:
        expand(rules.prepare_dataset.output, dataset=jobs.datasets(PARAMS)),
        [f"{folder}/{name}" for folder in FILTERS for name in ("train.parquet", "validation.parquet", "report.json")],
        expand(rules.prepare_benchmark.output, benchmark=jobs.union(item.benchmarks for item in SCORED)),
        expand(rules.prepare_model.output, model=jobs.union(item.models for item in ITEMS)),
