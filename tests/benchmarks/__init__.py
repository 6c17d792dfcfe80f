"""How fast rnnlab is, beside PyTorch, a floor and a plain loop: `python -m tests.benchmarks` prints the tables."""
