"""Short rows put together: several documents' rows in one, each with its own number and its own attention."""

import bisect

import numpy as np

DOCS = 2  # the line of `record.FIELDS` that numbers the documents of a row; 0 is padding


def pack(rows_RxFxL: np.ndarray, pad: int) -> np.ndarray:
    """The same rows in fewer: [R', F, L] with every row's tokens somewhere, whole and once.

    Each of the R rows holds one document (docs is 1 and then 0) and goes where it leaves least
    room, longest first (best-fit decreasing). In the result docs counts 1, 2, ... along a row.
    """
    rows, fields, length = rows_RxFxL.shape
    size_R = np.count_nonzero(rows_RxFxL[:, DOCS], axis=1)
    bin_R = np.zeros(rows, np.int64)  # the row it goes to, its place there and its number
    begin_R, number_R = np.zeros_like(bin_R), np.zeros_like(bin_R)
    rooms: list[tuple[int, int, int]] = []  # (places left, bin, documents), ascending
    bins = 0
    for row in np.argsort(-size_R, kind="stable").tolist():
        size = int(size_R[row])
        at = bisect.bisect_left(rooms, (size, -1, -1))
        left, where, held = rooms.pop(at) if at < len(rooms) else (length, bins, 0)
        bins += held == 0
        bin_R[row], begin_R[row], number_R[row] = where, length - left, held + 1
        bisect.insort(rooms, (left - size, where, held + 1))

    out_FxRxL = np.zeros((fields, bins, length), rows_RxFxL.dtype)
    out_FxRxL[0] = pad
    within_M = np.arange(size_R.sum()) - np.repeat(np.cumsum(size_R) - size_R, size_R)
    to_M = np.repeat(bin_R * length + begin_R, size_R) + within_M
    from_M = np.repeat(np.arange(rows) * length, size_R) + within_M
    for field in range(fields):
        out_FxRxL[field].reshape(-1)[to_M] = rows_RxFxL[:, field].reshape(-1)[from_M]
    out_FxRxL[DOCS].reshape(-1)[to_M] = np.repeat(number_R, size_R)
    return out_FxRxL.transpose(1, 0, 2)


def positions(docs_NxL: np.ndarray) -> np.ndarray:
    """0, 1, ... along each row, from 0 again where the next document begins; int32."""
    places_L = np.arange(docs_NxL.shape[1], dtype=np.int32)
    if docs_NxL.max(initial=0) <= 1:
        return np.tile(places_L, (docs_NxL.shape[0], 1))
    begins_NxL = np.zeros(docs_NxL.shape, bool)
    begins_NxL[:, 1:] = (docs_NxL[:, 1:] != docs_NxL[:, :-1]) & (docs_NxL[:, 1:] > 0)
    begin_NxL = np.maximum.accumulate(np.where(begins_NxL, places_L, 0), axis=1)
    return places_L - begin_NxL.astype(np.int32)
