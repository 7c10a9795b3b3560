"""What `score-text` does: scores of texts, or the share of minimal pairs that are judged right."""

import json
import sys
from collections.abc import Sequence

from electra_jax import remote
from electra_jax.scoring import model, network, pairs, texts
from electra_jax.scoring import score as scores
from electra_jax.scoring.model import Scorer
from electra_jax.scoring.score import Score
from electra_jax.spec import UserError

_HEADER = "       score     a token  tokens  text"


def run(
    path: str,
    *,
    given: Sequence[str] = (),
    file: str = "",
    pairs_file: str = "",
    head: str = "",
    word_l2r: bool = False,
    windows: bool = False,
    tokens: bool = False,
    as_json: bool = False,
    step: int | None = None,
    average: bool = False,
) -> None:
    """Prints the scores of the texts that are `given` or are the lines of `file`, or the tally of a file of pairs.

    What a score means goes to stderr. Raises UserError before anything is compiled.
    """
    if given == ["-"]:
        given, file = [], file or "-"
    if sum(map(bool, (given, file, pairs_file))) != 1:
        raise UserError(
            "give what to score in one way: texts, or --input FILE (a text a line, - for standard input), or "
            "--pairs FILE"
        )
    with remote.inputs(file if file != "-" else "", pairs_file) as (local, local_pairs):
        scorer = model.read(path, head, step, average)
        if word_l2r and scorer.spec.one_pass:
            raise UserError(
                f"--word-l2r is for masked LMs, and {scorer.name} has a {scorer.spec.head} head; leave it out, or "
                "choose another with --head"
            )
        if pairs_file:
            _pairs(scorer, local_pairs, word_l2r, windows, as_json)
            return
        wanted = texts.given(given) if given else texts.of_lines(local or file)
        if not wanted:
            raise UserError(f"{file} has no lines; expected a text a line")
        encoded = texts.encode(wanted, scorer.tokenizer, scorer.room, windows)
        _say(scorer, word_l2r)
        if not as_json:
            print(_HEADER)
        for one in scores.score(scorer, encoded, word_l2r):
            print(_json(one) if as_json else _line(one, tokens))


def _pairs(scorer: Scorer, path: str, word_l2r: bool, windows: bool, as_json: bool) -> None:
    found = pairs.read(path)
    _say(scorer, word_l2r)
    judged = pairs.judge(scorer, found, word_l2r=word_l2r, windows=windows)
    print(json.dumps(judged, indent=2) if as_json else pairs.table(judged))


def _say(scorer: Scorer, word_l2r: bool) -> None:
    how = "; with it the rest of its word (PLL-word-l2r)" if word_l2r else ""
    print(f"{scorer.name}: {network.MEANING[scorer.spec.head]}{how}", file=sys.stderr)


def _line(one: Score, tokens: bool) -> str:
    count = len(one.values_N)
    line = f"{one.total:12.4f} {one.total / count:11.4f} {count:7}  {one.text}"
    if not tokens:
        return line
    each = (
        f"{value:12.4f} {'':11} {'':7}    {token}"
        for token, value in zip(one.tokens, one.values_N, strict=True)
    )
    return "\n".join([line, *each])


def _json(one: Score) -> str:
    found = {
        "text": one.text,
        "score": one.total,
        "per_token": one.total / len(one.values_N),
        "tokens": one.tokens,
        "scores": one.values_N.tolist(),
    }
    return json.dumps(found, ensure_ascii=False)
