"""Statistics of the report. These modules only compute: numbers in, numbers out, without text or file access.

scores: rows of verdicts -> a table [seeds, problems] for each benchmark (avg@k, pass@k)
intervals: means with 95% intervals over problems and training seeds
comparisons: gains between arms, p-values, their correction for many, a gain pooled over models
power: where the uncertainty of a gain comes from, and what it takes to find a smaller one
target_time: what it costs to reach an accuracy, from curves over seeds
"""
