"""Named recipes, one module per family of papers."""
