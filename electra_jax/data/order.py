"""Which rows make up the batch of a step: a keyed permutation per epoch, nothing else."""

import numpy as np

# Even counts give both halves the same number of updates; four suffice for a pseudo-random
# permutation when the round function is random (Luby and Rackoff, 1988), and ours is only a hash,
# so twice that.
_ROUNDS = 8
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLY_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLY_2 = np.uint64(0x94D049BB133111EB)


def rows(step: int, batch: int, n: int, seed: int, read: int = 0) -> np.ndarray:
    """The row numbers of step `step`'s global batch, int64 [batch], each in 0..n-1.

    `read` rows were read before step 0: the walk goes on behind them.

    Steps walk through epochs without a gap: every run of n numbers that starts at a multiple of n
    holds each row once, in an order of its own for each (seed, epoch). A batch may straddle epochs
    and may be larger than n.
    """
    if n < 1 or batch < 1 or step < 0:
        raise ValueError(
            f"rows(step={step}, batch={batch}, n={n}): expected step >= 0, batch >= 1, n >= 1"
        )
    at_B = read + np.arange(step * batch, (step + 1) * batch, dtype=np.int64)
    return permute(at_B % n, at_B // n, n, seed)


def permute(index_N: np.ndarray, epoch_N: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Where the permutation of (seed, epoch) of 0..n-1 sends each index; int64, same shape as
    `index_N`.

    A Feistel network over the next power of two; what falls outside 0..n-1 is sent round again
    (cycle walking, fewer than two rounds on average), which keeps it a bijection for every n.
    """
    bits = max(2, int(n - 1).bit_length())
    left_bits = np.uint64(bits // 2)
    right_bits = np.uint64(bits - bits // 2)
    epochs, which_N = np.unique(epoch_N, return_inverse=True)
    keys_RxE = _round_keys(seed, epochs)

    out_N = index_N.astype(np.uint64)
    todo = np.arange(out_N.size)
    while todo.size:
        keys_RxM = keys_RxE[:, which_N[todo]]
        moved_M = _feistel(out_N[todo], keys_RxM, left_bits, right_bits)
        out_N[todo] = moved_M
        todo = todo[moved_M >= np.uint64(n)]
    return out_N.astype(np.int64)


def _feistel(
    x_M: np.ndarray, keys_RxM: np.ndarray, left_bits: np.uint64, right_bits: np.uint64
) -> np.ndarray:
    """One pass of the network over numbers of left_bits + right_bits bits (the halves may differ by
    a bit).
    """
    one = np.uint64(1)
    left_mask, right_mask = (one << left_bits) - one, (one << right_bits) - one
    left_M, right_M = x_M >> right_bits, x_M & right_mask
    for r in range(0, _ROUNDS, 2):
        left_M = left_M ^ (_mix(right_M ^ keys_RxM[r]) & left_mask)
        right_M = right_M ^ (_mix(left_M ^ keys_RxM[r + 1]) & right_mask)
    return (left_M << right_bits) | right_M


def _round_keys(seed: int, epochs_E: np.ndarray) -> np.ndarray:
    """One 64-bit key for each round and epoch, uint64 [_ROUNDS, E]."""
    base = _mix(np.array([seed % 2**64], np.uint64))
    epoch_E = _mix(base + _GOLDEN * (epochs_E.astype(np.uint64) + np.uint64(1)))
    round_R = np.arange(1, _ROUNDS + 1, dtype=np.uint64)
    return _mix(epoch_E[None, :] + _GOLDEN * round_R[:, None])


def _mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, 2014), on an array so that uint64 wraps
    silently.
    """
    x = (x ^ (x >> np.uint64(30))) * _MULTIPLY_1
    x = (x ^ (x >> np.uint64(27))) * _MULTIPLY_2
    return x ^ (x >> np.uint64(31))
