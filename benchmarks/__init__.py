"""Benchmarks of speed, memory and fault tolerance. ``make bench`` also runs the peers that it compares with; see
docs/performance.md."""
