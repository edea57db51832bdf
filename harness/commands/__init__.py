"""One file per command: what it wires together. Here and in `harness.cli` every package may be imported."""
