"""The tables of models, one file per family of architectures; none of them imports torch."""
