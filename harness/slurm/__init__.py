"""Runs on a Slurm cluster: submissions of agents that claim runs, and the controller that watches them."""
