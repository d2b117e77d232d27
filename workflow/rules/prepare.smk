# Data sets, benchmarks and starting models.


rule prepare_dataset:
    input:
        f"data/{SUITE}/train/{{dataset}}/settings.json",
    output:
        train=f"data/{SUITE}/train/{{dataset}}/train.parquet",
        validation=f"data/{SUITE}/train/{{dataset}}/validation.parquet",
        report=f"data/{SUITE}/train/{{dataset}}/report.json",
    log:
        f"logs/{SUITE}/prepare/dataset-{{dataset}}.log",
    resources:
        mem_mb=4000,
        runtime=60,
    shell:
        "{PYTHON} -m sfpo.data.prepare {input} --kind dataset > {log} 2>&1"


rule prepare_benchmark:
    input:
        f"data/{SUITE}/benchmarks/{{benchmark}}/settings.json",
    output:
        problems=f"data/{SUITE}/benchmarks/{{benchmark}}/problems.parquet",
        report=f"data/{SUITE}/benchmarks/{{benchmark}}/report.json",
    log:
        f"logs/{SUITE}/prepare/benchmark-{{benchmark}}.log",
    resources:
        mem_mb=4000,
        runtime=60,
    shell:
        "{PYTHON} -m sfpo.data.prepare {input} --kind benchmark > {log} 2>&1"


def warm_up_data(wildcards):
    folder = SETTINGS[f"models/{SUITE}/{wildcards.model}/settings.json"].warm_up_data
    return [f"{folder}/train.parquet", f"{folder}/validation.parquet"] if folder else []


rule prepare_model:
    input:
        settings=f"models/{SUITE}/{{model}}/settings.json",
        warm_up=warm_up_data,
    output:
        f"models/{SUITE}/{{model}}/checkpoint/manifest.json",
    log:
        f"logs/{SUITE}/prepare/model-{{model}}.log",
    benchmark:
        f"logs/{SUITE}/prepare/model-{{model}}.benchmark.tsv"
    threads: RESOURCES.threads
    resources:
        mem_mb=RESOURCES.mem_mb,
        runtime=120,
    shell:
        "{PYTHON} -m sfpo.models.prepare {input.settings} > {log} 2>&1"


rule prepare:
    input:
        expand(rules.prepare_dataset.output, dataset=jobs.union(item.datasets for item in ITEMS)),
        expand(rules.prepare_benchmark.output, benchmark=jobs.union(item.benchmarks for item in SCORED)),
        expand(rules.prepare_model.output, model=jobs.union(item.models for item in ITEMS)),
