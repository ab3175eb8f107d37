"""How the next word of a caption is chosen: the likeliest one, or as beam search of transformers chooses it.

The choices are those of `generate` of transformers (its greedy search, and its beam search with `early_stopping=False`), one
image at a time: an image's caption does not depend on the others in the batch, except for the rounding of sums. The score of a
caption adds up as its words are chosen.

Shape letters: A rows (one for each image), K beams, R = A*K, M the most tokens of a caption, V size of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import GenerationConfig

NEVER = -1.0e9
"""The score of what is not to be chosen, as in transformers."""

NONE = -1
"""Stands where a caption has no token yet."""

State = dict[str, Tensor]
"""What is known about rows by name; the first dimension of every tensor is the row."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What may be chosen next, and when a caption ends.

    Attributes:
        end: the token that ends it. most: its most tokens. least: before so many no end. beams: of an image.
        length_penalty: the power of its length that the score of a beam is divided by.
        repetition_penalty: what the score of a word is divided by that stands in the caption, or in `before`.
        never: tokens that are never chosen. before: the prompt, if its words count as repeated.
    """

    end: int
    most: int
    least: int = 0
    beams: int = 1
    length_penalty: float = 1.0
    repetition_penalty: float = 1.0
    never: tuple[int, ...] = ()
    before: tuple[int, ...] = ()

    @classmethod
    def of(cls, config: GenerationConfig, before: Sequence[int]) -> Rules:
        """Those of a configuration of transformers."""
        return cls(
            config.eos_token_id, config.max_new_tokens, config.min_new_tokens or 0, config.num_beams or 1,
            1.0 if config.length_penalty is None else config.length_penalty, config.repetition_penalty or 1.0,
            tuple(config.suppress_tokens or ()), tuple(before),
        )  # fmt: skip

    def adjusted(self, scores: Tensor, tokens: Tensor, age: Tensor) -> Tensor:
        """Scores (R, V) of what may come after tokens (R, M), of which there are `age` (R); never changed in place."""
        if self.repetition_penalty != 1.0:
            said = torch.where(tokens < 0, scores.shape[1], tokens)
            said = torch.cat([said, said.new_tensor(self.before).expand(len(said), -1)], 1)
            seen = scores.new_zeros(len(scores), scores.shape[1] + 1, dtype=torch.bool).scatter_(1, said, True)[:, :-1]
            lowered = torch.where(scores < 0, scores * self.repetition_penalty, scores / self.repetition_penalty)
            scores = torch.where(seen, lowered, scores)
        if not self.least and not self.never:
            return scores
        scores = scores.clone()
        scores[:, self.end] = scores[:, self.end].masked_fill(age < self.least, -torch.inf)
        scores[:, list(self.never)] = -torch.inf
        return scores


class Greedy:
    """The likeliest word, again and again. State: tokens (A, M), their summed log-probability `total` and their number `age`."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules

    def fresh(self, rows: int, device: torch.device) -> State:
        """The state of captions that have no word yet."""
        return {
            "tokens": torch.full((rows, self.rules.most), NONE, device=device),
            "total": torch.zeros(rows, device=device),
            "age": torch.zeros(rows, dtype=torch.int64, device=device),
        }

    def choose(self, state: State, logits: Tensor) -> tuple[Tensor | None, Tensor]:
        """Choose by logits (A, V), in the state itself. Returns no parents, and which rows (A) are finished."""
        tokens, age = state["tokens"], state["age"]
        chosen = self.rules.adjusted(logits, tokens, age).argmax(1, keepdim=True)
        gained = logits.gather(1, chosen)[:, 0] - logits.logsumexp(1)
        state["total"] += gained
        tokens.scatter_(1, age[:, None], chosen)
        age += 1
        return None, (chosen[:, 0] == self.rules.end) | (age >= self.rules.most)

    def last(self, state: State) -> Tensor:
        """The words that were chosen last, (A, 1)."""
        return state["tokens"].gather(1, state["age"][:, None] - 1)

    def found(self, state: State) -> tuple[list[list[int]], list[float]]:
        """Tokens and summed log-probability of each caption."""
        return state["tokens"].tolist(), state["total"].tolist()


class Beams:
    """Beam search as transformers does it.

    State: of running beams (A, K) their `tokens` (A, K, M), `score` and `total` (the plain sum of log-probabilities); of the best
    finished ones `ended`, `ended_score`, `ended_total` and `is_ended`; `open` (A, 1), whether a running beam can still become the
    best; the number of tokens, `age` (A).
    """

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.powers = [1.0] + [float(length) ** rules.length_penalty for length in range(1, rules.most + 1)]

    def fresh(self, rows: int, device: torch.device) -> State:
        """The state of captions that have no word yet: only the first beam counts, as all are the same."""
        beams, most = self.rules.beams, self.rules.most
        score = torch.zeros(rows, beams, device=device)
        score[:, 1:] = NEVER
        tokens = torch.full((rows, beams, most), NONE, device=device)
        return {
            "tokens": tokens, "score": score, "total": torch.zeros_like(score),
            "ended": tokens.clone(), "ended_score": torch.full_like(score, NEVER), "ended_total": torch.zeros_like(score),
            "is_ended": torch.zeros_like(score, dtype=torch.bool),
            "open": torch.ones(rows, 1, dtype=torch.bool, device=device),
            "age": torch.zeros(rows, dtype=torch.int64, device=device),
        }  # fmt: skip

    def choose(self, state: State, logits: Tensor) -> tuple[Tensor | None, Tensor]:
        """Choose by logits (A*K, V), in the state itself. Returns each beam's parent (A, K), and which rows (A) are finished."""
        beams, age = self.rules.beams, state["age"]
        plain = logits.log_softmax(1)
        scores = self.rules.adjusted(plain, state["tokens"].flatten(0, 1), age.repeat_interleave(beams))
        words = scores.shape[1]
        reached = (scores.unflatten(0, (-1, beams)) + state["score"][..., None]).flatten(1)
        score, index = reached.topk(2 * beams)  # so many, as each of the best `beams` may end here
        parents, chosen = index // words, index % words
        total = plain.unflatten(0, (-1, beams)).flatten(1).gather(1, index) + state["total"].gather(1, parents)
        tokens = _take(state["tokens"], parents)
        tokens.scatter_(2, age[:, None, None].expand(-1, 2 * beams, 1), chosen[..., None])
        ends = (chosen == self.rules.end) | (age[:, None] + 1 >= self.rules.most)
        self._finish(state, tokens, score, total, ends)
        running, kept = (score + ends * NEVER).topk(beams)
        state["tokens"].copy_(_take(tokens, kept))
        state["score"].copy_(running)
        state["total"].copy_(total.gather(1, kept))
        age += 1
        best = running[:, :1] / self._power(age)
        worst = torch.where(state["is_ended"], state["ended_score"].amin(1, keepdim=True), NEVER)
        state["open"] &= (best > worst).any(1, keepdim=True)
        return parents.gather(1, kept), ~state["open"][:, 0] | ends.all(1)

    def last(self, state: State) -> Tensor:
        """The words that were chosen last, (A, K)."""
        age = state["age"][:, None, None]
        return state["tokens"].gather(2, (age - 1).expand(-1, self.rules.beams, 1))[..., 0]

    def found(self, state: State) -> tuple[list[list[int]], list[float]]:
        """Tokens and summed log-probability of each image's best caption."""
        return state["ended"][:, 0].tolist(), state["ended_total"][:, 0].tolist()

    def _finish(self, state: State, tokens: Tensor, score: Tensor, total: Tensor, ends: Tensor) -> None:
        """Keep the best of what was finished before and of what ends now among the first `beams` candidates (A, 2K)."""
        beams = self.rules.beams
        ends_now = ends.clone()
        ends_now[:, beams:] = False
        penalised = score / self._power(state["age"] + 1) + ~state["open"] * NEVER + ~ends_now * NEVER
        both = torch.cat([state["ended_score"], penalised], 1)
        best, kept = both.topk(beams)
        state["ended_score"].copy_(best)
        for name, new in (("ended_total", total), ("is_ended", ends_now)):
            state[name].copy_(torch.cat([state[name], new], 1).gather(1, kept))
        state["ended"].copy_(_take(torch.cat([state["ended"], tokens], 1), kept))

    def _power(self, age: Tensor) -> Tensor:
        """What scores of captions of `age` (A) tokens are divided by, (A, 1)."""
        return torch.tensor(self.powers, device=age.device)[age][:, None]


def _take(beams: Tensor, index: Tensor) -> Tensor:
    """Beams (A, J, M) by their numbers (A, K) -> (A, K, M)."""
    return beams.gather(1, index[..., None].expand(-1, -1, beams.shape[2]))
