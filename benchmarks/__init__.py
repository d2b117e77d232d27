"""Speed, memory and robustness, measured. ``make bench`` compares with peers within one run; see docs/performance.md."""
