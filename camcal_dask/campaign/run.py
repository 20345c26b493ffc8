"""Carry out a plan: one quantum a detector, whatever happens to the others.

A stack's quantum reads, corrects, combines and writes one shard; a verification's returns the
statistics of its detector.  Pixels stay in the tasks; the registry hears of a detector when its
shard is whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import dask
import pandas as pd
import xarray as xr

from camcal_dask.calibs.products import template
from camcal_dask.calibs.stack import Finished, combine, finished_of
from camcal_dask.calibs.state import common_state
from camcal_dask.campaign.plan import Plan
from camcal_dask.campaign.recipe import StackRecipe, VerifyRecipe
from camcal_dask.campaign.record import QuantumOutcome, open_record
from camcal_dask.errors import RepoError
from camcal_dask.isr.blocks import isr
from camcal_dask.repo import cubes, files, products
from camcal_dask.repo.registry import Repo
from camcal_dask.repo.shards import check_format
from camcal_dask.verify.judge import failures, judge, summary
from camcal_dask.verify.statistics import measure

if TYPE_CHECKING:
    from distributed import Client, Future

Progress = Callable[[QuantumOutcome], None]
IN_FLIGHT_PER_THREAD = 3
"""Quanta submitted at once for each thread of the cluster: keeps it busy and the scheduler small."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    run: str
    product: str
    uri: str
    quanta: Mapping[int, QuantumOutcome]
    seconds: float
    verdict: xr.Dataset | None = None
    """Statistics, tests and summaries of a verification."""
    failures: pd.DataFrame = field(default_factory=pd.DataFrame)
    """Failing tests of a verification: exposure, detector, amp, test, value, limit."""

    @property
    def failed(self) -> list[QuantumOutcome]:
        """Quanta that failed, with their reasons."""
        return [q for q in self.quanta.values() if q.status == "failed"]

    @property
    def passed(self) -> bool:
        """Whether all quanta are done and, for a verification, every required test passed."""
        return not self.failed and (self.verdict is None or bool(self.verdict["run_success"]))

    def text(self) -> str:
        """Return the account of the run for the terminal."""
        count = {s: sum(q.status == s for q in self.quanta.values()) for s in ("done", "skipped", "failed")}
        lines = [f"{self.product} in {self.run}: " + ", ".join(f"{n} {s}" for s, n in count.items() if n)]
        lines[0] += f" ({self.seconds:.1f} s)"
        lines += [f"  failed: detector {q.detector}: {q.reason}" for q in self.failed]
        if self.verdict is not None:
            lines.append(summary(self.verdict))
        return "\n".join(lines)


def execute(
    repo: Repo, plan: Plan, client: Client, *, cluster: str = "local", progress: Progress | None = None
) -> Outcome:
    """Run a plan on a client's workers and register what is whole.

    Safe to repeat: detectors that are registered already are skipped, half-written ones redone.

    Parameters
    ----------
    repo : Repo
        Opened for writing.
    plan : Plan
        From :func:`camcal_dask.campaign.plan.make_plan`.
    client : distributed.Client
        Where the tasks run.
    cluster : str
        Name of the cluster, for the record.
    progress : callable, optional
        Called with the outcome of each quantum.

    Raises
    ------
    RepoError
        If the output RUN holds products of another recipe or other exposures.
    """
    started = time.perf_counter()
    record = open_record(plan, cluster)
    repo.register_dataset_type(plan.recipe.product, plan.product_dimensions, plan.is_calibration)
    uri = files.join(repo.root, "cubes", plan.output, f"{plan.recipe.product}.zarr")
    run = _run_stack if isinstance(plan.recipe, StackRecipe) else _run_verify
    outcome = run(repo, plan, client, uri, record.provenance_id, progress or (lambda _: None))
    path = files.join(repo.root, "cubes", plan.output, f"{plan.recipe.product}-{record.provenance_id}.json")
    files.write_json(path, record.close(outcome.quanta))
    if len(outcome.failed) < len(outcome.quanta):
        repo.register_product(plan.output, "runRecord", path, [{"instrument": plan.instrument.name}])
    return Outcome(**{**outcome.__dict__, "seconds": time.perf_counter() - started})


# ---------------------------------------------------------------------------- stack


def _run_stack(repo: Repo, plan: Plan, client: Client, uri: str, provenance: str, progress: Progress) -> Outcome:
    recipe = plan.recipe
    assert isinstance(recipe, StackRecipe)
    attrs = {"provenance_id": provenance, "exposures": plan.exposures, "recipe": recipe.model_dump(mode="json")}
    products.create_product(uri, template(recipe.product, plan.instrument, attrs))
    _check_same_run(uri, provenance)
    there = set(products.finished_detectors(uri))
    ids = list(plan.instrument.detectors)
    outcomes = {d: QuantumOutcome(d, "skipped") for d in plan.detectors if d in there}
    for done in outcomes.values():
        progress(done)
    todo = [d for d in plan.detectors if d not in there]
    graphs = ((d, _stack_quantum(repo, plan, uri, ids.index(d), d)) for d in todo)
    for result in _run_quanta(client, graphs):
        outcomes[result.outcome.detector] = result.outcome
        progress(result.outcome)
    whole = [{"instrument": plan.instrument.name, "detector": d} for d, q in outcomes.items() if q.status != "failed"]
    if whole:
        repo.register_product(plan.output, recipe.product, uri, whole)
    return Outcome(plan.output, recipe.product, uri, outcomes, 0.0)


def _check_same_run(uri: str, provenance: str) -> None:
    there = check_format(uri, "product").get("provenance_id")
    if there != provenance:
        raise RepoError(
            f"{uri} was begun with other settings, exposures or software "
            f"(provenance {there}, this run is {provenance}); choose another output collection with -o"
        )


def _stack_quantum(repo: Repo, plan: Plan, uri: str, index: int, detector: int) -> Any:
    recipe = plan.recipe
    assert isinstance(recipe, StackRecipe)
    raw = plan.raws.sel(detector=[detector])
    corrected = isr(raw, config=recipe.isr, block="slab", slab_rows=plan.slab_rows)
    (blocks,) = dask.optimize(finished_of(combine(corrected, recipe.combine)))
    return dask.delayed(_write_detector)(
        uri,
        index,
        blocks.to_delayed()[0],
        manifests={e: (cubes.raw_cube_uri(repo.root, plan.instrument.name, e), detector) for e in plan.exposures},
        keywords=plan.instrument.settings.state_keywords,
        what=f"{recipe.product}, detector {plan.instrument.detector(detector).name}",
        strict=not recipe.mixed_state,
    )


def _write_detector(
    uri: str,
    index: int,
    product: Finished,
    *,
    manifests: Mapping[int, tuple[str, int]],
    keywords: Sequence[str],
    what: str,
    strict: bool,
) -> None:
    """Write one detector's shard with the camera state of its inputs; runs on a worker."""
    headers = {}
    for exposure, (cube, detector) in manifests.items():
        manifest = cubes.read_raw_manifest(cube, cubes.raw_slot(exposure), detector)
        headers[exposure] = None if manifest is None else manifest["header"]
    state = common_state(headers, keywords, what=what, strict=strict)
    present = [exposure for exposure, header in headers.items() if header is not None]
    products.write_product(uri, index, product._asdict(), {"exposures": present, "camera_state": state})


def count_tasks(repo: Repo, plan: Plan) -> int:
    """Tasks that dask will schedule: those of one quantum, times the quanta."""
    detector = plan.detectors[0]
    if isinstance(plan.recipe, StackRecipe):
        graph = _stack_quantum(repo, plan, "", 0, detector)
    else:
        graph = _verify_quantum(plan, detector)
    return len(plan.detectors) * len(dict(graph.__dask_graph__()))


# ---------------------------------------------------------------------------- verify


def _run_verify(repo: Repo, plan: Plan, client: Client, uri: str, provenance: str, progress: Progress) -> Outcome:
    recipe = plan.recipe
    assert isinstance(recipe, VerifyRecipe)
    outcomes: dict[int, QuantumOutcome] = {}
    parts: dict[int, xr.Dataset] = {}
    graphs = ((d, _verify_quantum(plan, d)) for d in plan.detectors)
    for result in _run_quanta(client, graphs):
        outcomes[result.outcome.detector] = result.outcome
        if result.value is not None:
            parts[result.outcome.detector] = result.value
        progress(result.outcome)
    if not parts:
        return Outcome(plan.output, recipe.product, uri, outcomes, 0.0)
    statistics = xr.concat([parts[d] for d in sorted(parts)], "detector", data_vars="minimal", coords="minimal")
    settings = recipe.verify
    verdict = judge(
        statistics,
        settings.tests,
        thresholds=settings.thresholds,
        known_bad=settings.known_bad,
        role=_roles(plan),
        first_in_set=_first_in_set(plan),
    )
    verdict = statistics.merge(verdict, compat="override", join="exact").assign_attrs(
        **verdict.attrs,
        provenance_id=provenance,
        candidate=sorted({ref.dataset_type for ref in plan.calibs.values()}),
        candidate_ids={str(d): ref.uuid for d, ref in plan.calibs.items()},
        recipe=recipe.model_dump(mode="json"),
    )
    products.write_dataset(uri, verdict, overwrite=True)
    repo.register_product(plan.output, recipe.product, uri, [{"instrument": plan.instrument.name}])
    return Outcome(plan.output, recipe.product, uri, outcomes, 0.0, verdict, failures(verdict))


def _verify_quantum(plan: Plan, detector: int) -> xr.Dataset:
    recipe = plan.recipe
    assert isinstance(recipe, VerifyRecipe)
    ref = plan.calibs[detector]
    candidate = products.open_products([(ref.uri, detector)])
    gains = "none" if candidate.attrs["units"] == "adu" else "nominal"
    config = recipe.isr.model_copy(update={"gains": gains})
    corrected = isr(plan.raws.sel(detector=[detector]), {"bias": candidate}, config, block="exposure")
    statistics: xr.Dataset
    (statistics,) = dask.optimize(measure(corrected, config=recipe.verify.measure))
    return statistics


def _roles(plan: Plan) -> dict[int, str]:
    """Say which exposures made the candidate and which are independent of it (verification.md 1.1)."""
    cubes_used = {ref.uri for ref in plan.calibs.values()}
    made = {int(e) for uri in cubes_used for e in check_format(uri, "product").get("exposures", ())}
    return {e: "construction" if e in made else "verification" for e in plan.exposures}


def _first_in_set(plan: Plan) -> list[int]:
    first = plan.raws["seq_num"].values == plan.raws["seq_start"].values
    return [e for e, is_first in zip(plan.exposures, first, strict=True) if is_first]


# ---------------------------------------------------------------------------- quanta


@dataclass(frozen=True)
class _Result:
    outcome: QuantumOutcome
    value: Any


def _run_quanta(client: Client, graphs: Iterator[tuple[int, Any]]) -> Iterator[_Result]:
    """Keep a bounded number of quanta on the cluster; yield each as it ends, failed ones included."""
    from distributed import as_completed

    threads = sum(client.nthreads().values())
    flying: dict[Future, tuple[int, float]] = {}
    ended = as_completed()

    def submit() -> None:
        for detector, graph in graphs:
            future = client.compute(graph)
            flying[future] = (detector, time.perf_counter())
            ended.add(future)
            return

    for _ in range(max(2, IN_FLIGHT_PER_THREAD * threads)):
        submit()
    for future in ended:
        detector, begun = flying.pop(future)
        error = future.exception()
        status, reason = ("done", "") if error is None else ("failed", _reason(error))
        value = future.result() if error is None else None
        future.release()
        submit()
        yield _Result(QuantumOutcome(detector, status, time.perf_counter() - begun, reason), value)


def _reason(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else 'no message'}"
