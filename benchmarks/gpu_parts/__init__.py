"""The sections of benchmarks/gpu.py. Each has `measure(settings, add)` and runs in a process of its own."""
