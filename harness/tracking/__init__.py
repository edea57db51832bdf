"""The mirror: run folders -> MLflow (`mirror`, `live`), MLflow -> tidy frames (`collect`).

Only the controller opens the store; workers write run folders. Importing this package imports neither mlflow
nor pandas.
"""
