"""An ablation-study harness for image classification: one study file in, one paper-style table out."""

__version__ = "0.1.0"
