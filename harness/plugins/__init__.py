"""The user's own models, data sets, tricks, metrics and training functions, each from one Python file.

User code runs only when a study names it. Importing this package imports no torch.
"""
