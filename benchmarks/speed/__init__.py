"""How near training, generation and serving come to what the machine can do: `python -m benchmarks.speed`."""
