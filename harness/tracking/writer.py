"""The calls that write one run into MLflow, few and batched. Importing this module imports mlflow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from harness.tracking.content import Change, Marker, artifacts, mlflow_status, parameters
from harness.tracking.store import Store, is_server, within

POINTS_PER_BATCH = (
    800  # MLflow takes 1,000 points, parameters and tags at once, 100 of either of the last two
)
PARAMETERS_PER_BATCH = 100
PAGE = 1000
NO_PARAMETERS: Mapping[str, str] = MappingProxyType({})
NOTHING = Marker(offset=0, state="created", summary="").to_text()


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes into one experiment."""

    client: MlflowClient
    experiment_id: str
    study: str
    size: str

    def create(self, change: Change) -> tuple[str, str]:
        """A new MLflow run without content: its id and the place of its artifacts.

        It gets as many tags as possible: here MLflow inserts them at once, later one by one.
        """
        run = self.client.create_run(
            self.experiment_id,
            start_time=change.started_ms,
            tags={**change.identity(self.study, self.size), **change.description(), "mirrored": NOTHING},
            run_name=change.title(),
        )
        return run.info.run_id, run.info.artifact_uri

    def write(
        self,
        change: Change,
        mlflow_id: str,
        artifact_uri: str,
        *,
        is_new: bool,
        kept: Mapping[str, str] = NO_PARAMETERS,
    ) -> None:
        """Files, status, points, parameters; the tags come last, with the one that says how far this went.

        kept: long parameters that the run has already; MLflow changes none.
        """
        if change.summary is not None:
            repository = get_artifact_repository(artifact_uri, tracking_uri=self.client.tracking_uri)
            for path in artifacts(change.folder):
                self._log_artifact(repository, path)
        status = mlflow_status(change.marker.state)
        if status == "RUNNING":
            self.client.update_run(mlflow_id, status=status)
        else:
            self.client.set_terminated(mlflow_id, status, change.ended_ms)
        tags = change.conclusion() if is_new else {**change.description(), **change.conclusion()}
        points = [Metric(p.name, p.value, p.time_ms, p.step) for p in change.points]
        params = [Param(key, value) for key, value in {**parameters(change.spec), **kept}.items()]
        while len(points) > POINTS_PER_BATCH or len(params) > PARAMETERS_PER_BATCH:
            self.client.log_batch(
                mlflow_id, metrics=points[:POINTS_PER_BATCH], params=params[:PARAMETERS_PER_BATCH]
            )
            points, params = points[POINTS_PER_BATCH:], params[PARAMETERS_PER_BATCH:]
        self.client.log_batch(
            mlflow_id,
            metrics=points,
            params=params,
            tags=[RunTag(key, value) for key, value in tags.items()],
        )

    def _log_artifact(self, repository: Any, path: str) -> None:
        uri = self.client.tracking_uri
        if is_server(uri):
            within(lambda: repository.log_artifact(path), uri, "log_artifact")
        else:
            repository.log_artifact(path)

    def delete(self, mlflow_id: str) -> None:
        """Mark a run as deleted; nothing reads it any more."""
        self.client.delete_run(mlflow_id)


def open_writer(store: Store, study: str, size: str) -> tuple[Writer, list[Any]]:
    """A writer for the study's experiment, created if needed, and the MLflow runs it has at this size.

    Raises:
        StoreError: the store cannot be opened.
    """
    client = store.client()
    store.follow()
    experiment_id = _experiment_id(client, store, study)
    return Writer(client, experiment_id, study, size), find_runs(client, experiment_id, size)


def _experiment_id(client: MlflowClient, store: Store, study: str) -> str:
    """The study's experiment; made if there is none, restored if it was deleted in MLflow's pages."""
    experiment = client.get_experiment_by_name(study)
    if experiment is None:
        return client.create_experiment(study, artifact_location=store.artifact_location(study))
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
    return experiment.experiment_id


def find_runs(client: MlflowClient, experiment_id: str, size: str) -> list[Any]:
    """Every MLflow run (mlflow.entities.Run) of the experiment at this size."""
    runs: list[Any] = []
    token = None
    while True:
        page = client.search_runs(
            [experiment_id], f"tags.size = '{size}'", max_results=PAGE, page_token=token
        )
        runs += page
        token = page.token
        if not token:
            return runs
