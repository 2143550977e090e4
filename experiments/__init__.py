"""The `mbrl` command: presets, studies, benchmarks, plots, statistics."""
