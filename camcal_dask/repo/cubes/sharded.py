"""Variables of products, each detector from a shard of its own, read when indexed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from xarray.backends import BackendArray
from xarray.core import indexing

from camcal_dask.repo.storage import files
from camcal_dask.repo.storage.kept import kept
from camcal_dask.repo.storage.shards import Selection, pick, read_into, span


class ShardedArray(BackendArray):
    """One variable (detector, ...) of products, each detector from its own place; picklable.

    Parameters
    ----------
    name : str
        Of the variable.
    parts : sequence of (uri, index)
        Product cube and position in it, for each detector.
    inner : tuple of int
        Shape of one detector.
    dtype : np.dtype
        Of the pixels.
    keep : bool
        Whole detectors stay in memory, read-only, for the next time; see `camcal_dask.repo.storage.kept`.
    """

    def __init__(
        self,
        name: str,
        parts: Sequence[tuple[str, int]],
        inner: tuple[int, ...],
        dtype: np.dtype[Any],
        *,
        keep: bool = False,
    ) -> None:
        self.keep = keep
        self.uris = tuple(dict.fromkeys(uri for uri, _ in parts))
        self.places = np.array([(self.uris.index(uri), index) for uri, index in parts], dtype=np.int32)
        self.name, self.shape, self.dtype = name, (len(parts), *inner), dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        """Read; ``key`` is xarray's."""
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._select)

    def _select(self, key: Selection) -> npt.NDArray[Any]:
        spans = [span(k, n) for k, n in zip(key, self.shape, strict=True)]
        places = self.places[spans[0][0]][spans[0][1]]
        inner = tuple(part for part, _ in spans[1:])
        if self.keep and len(places) == 1 and inner == tuple(slice(0, n) for n in self.shape[1:]):
            uri, index = places[0].tolist()
            array = files.join(self.uris[uri], self.name)
            out = kept(array, index, lambda: self._read(array, index))[None]
            return pick(out, key, [None, *(local for _, local in spans[1:])])
        out = np.empty((len(places), *(part.stop - part.start for part in inner)), dtype=self.dtype)
        for i, (uri, index) in enumerate(places.tolist()):
            array = files.join(self.uris[uri], self.name)
            read_into(array, (index, *inner), out[i, ...], f"detector index {index}")
        return pick(out, key, [None, *(local for _, local in spans[1:])])

    def _read(self, array: str, index: int) -> npt.NDArray[Any]:
        out = np.empty(self.shape[1:], dtype=self.dtype)
        read_into(array, (index, *(slice(0, n) for n in out.shape)), out, f"detector index {index}")
        return out
