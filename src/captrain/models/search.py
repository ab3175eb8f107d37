"""Greedy and beam search over rows that come and go: finished captions leave, and new pictures take their places.

The choices are those of `generate` of transformers (its greedy search, and its beam search with `early_stopping=False`), one
image at a time: an image's caption does not depend on the others in the batch, except for the rounding of sums. The score of a
caption adds up as its words are chosen.

Shape letters: A rows (one for each image), K beams, M the most tokens of a caption, V size of the vocabulary, P tokens that
every caption begins with, C vectors of an image, H width of the decoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from transformers import Cache, GenerationConfig

from captrain.models.layers.word_cache import Reading, Table

NEVER = -1.0e9
"""The score of what is not to be chosen, as in transformers."""

NONE = -1
"""Stands where a caption has no token yet."""

State = dict[str, Tensor]
"""What is known about rows by name; the first dimension of every tensor is the row."""


class Reads(Protocol):
    """What a search needs of a captioner."""

    def begin(self, context: Tensor) -> Cache:
        """A cache for words that follow images with this context."""

    def decode(self, context: Tensor, input_ids: Tensor, position_ids: Tensor, mask: Tensor, cache: Cache) -> Tensor:
        """Hidden states of words."""

    def head(self, hidden: Tensor) -> Tensor:
        """Logits of hidden states."""


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


@dataclass(frozen=True, slots=True)
class Found:
    """A finished caption: its picture's number, token ids without the end token, mean log-probability a token (end included)."""

    number: int
    tokens: list[int]
    score: float


class Search:
    """Captions that are being written.

    `admit` takes pictures in, `step` adds a word to each caption; both return those that are finished. A step that runs out of
    memory can be tried again, with fewer rows after `give_up`.

    Args:
        model: whose decoder reads. rules: how words are chosen. prompt: (P) ids that every caption begins with.
    """

    def __init__(self, model: Reads, rules: Rules, prompt: Sequence[int]) -> None:
        self.model, self.rules, self.prompt = model, rules, list(prompt)
        self.choice: Greedy | Beams = Greedy(rules) if rules.beams == 1 else Beams(rules)
        self.reading = Reading(rules.beams, rules.most - 1)
        self.table = Table()
        self.numbers: list[int] = []
        """Of the pictures in the rows."""
        self._holes: list[int] = []
        self._names = (*self.choice.fresh(1, torch.device("cpu")),)

    @property
    def rows(self) -> int:
        """Captions that are being written."""
        return len(self.numbers) - len(self._holes)

    def admit(self, numbers: Sequence[int], context: Tensor) -> list[Found]:
        """Take in pictures by what the decoder attends to, (I, C, H), and choose their first words."""
        cache = self.model.begin(context)
        images, length, before = len(context), len(self.prompt), cache.get_seq_length()
        ids = torch.tensor([self.prompt] * images, device=context.device)
        positions = torch.arange(length, device=context.device).expand(images, -1)
        mask = torch.ones(length, before + length, dtype=torch.bool, device=context.device).tril(before)
        hidden = self.model.decode(context, ids, positions, mask.expand(images, 1, -1, -1), cache)
        logits = self.model.head(hidden[:, -1]).float()
        state = self.choice.fresh(images, context.device)
        _, finished = self.choice.choose(state, logits.repeat_interleave(self.rules.beams, 0))
        done = self._found([*numbers], state, finished)
        going, rest = (~finished).nonzero()[:, 0], context[:, -1:].clone()
        if len(going) == images:
            self._place([*numbers], cache, {**state, "context": rest})
        elif len(going):
            chosen = {name: part[going] for name, part in {**state, "context": rest}.items()}
            cache.batch_select_indices(going)
            self._place([numbers[row] for row in going.tolist()], cache, chosen)
        return done

    def step(self) -> list[Found]:
        """One more word for each caption."""
        self._close_holes()
        rows, beams = len(self.numbers), self.rules.beams
        cache = self.reading.cache(rows)
        state = {name: self.table[name][:rows] for name in self._names}
        ids = self.choice.last(state).reshape(-1, 1)
        positions = (state["age"] + (len(self.prompt) - 1)).repeat_interleave(beams)[:, None]
        context = self.table["context"][:rows].repeat_interleave(beams, 0)
        hidden = self.model.decode(context, ids, positions, self.reading.words.mask(), cache)
        parents, finished = self.choice.choose(state, self.model.head(hidden[:, -1]).float())
        if parents is not None:
            self.reading.words.follow(parents)
        self.reading.words.steps += 1
        done = self._found(self.numbers, state, finished)
        self._holes = finished.nonzero()[:, 0].tolist()
        return done

    def give_up(self, rows: int) -> list[int]:
        """Put the last rows out again, unfinished; returns the numbers of their pictures."""
        self._close_holes()
        kept = max(0, len(self.numbers) - rows)
        given_up, self.numbers = self.numbers[kept:], self.numbers[:kept]
        return given_up

    def _place(self, numbers: list[int], cache: Cache, state: State) -> None:
        """Give rows to new pictures, those of finished captions first."""
        anew = self.rows == 0
        taken = 0 if anew else len(self.numbers)
        holes = [] if anew else self._holes[: len(numbers)]
        places = [*holes, *range(taken, taken + len(numbers) - len(holes))]
        self.reading.put(places, cache, anew)
        self.table.put(places, state, anew)
        if anew:
            self.numbers, self._holes = [], []
        for place, number in zip(places, numbers, strict=True):
            self.numbers[place : place + 1] = [number]
        self._holes = self._holes[len(holes) :]

    def _close_holes(self) -> None:
        """Move the last rows to where captions have left."""
        holes = sorted(self._holes)
        while holes:
            last = len(self.numbers) - 1
            if holes[-1] == last:
                holes.pop()
            else:
                place = holes.pop(0)
                self.reading.move(last, place)
                self.table.move(last, place)
                self.numbers[place] = self.numbers[last]
            self.numbers.pop()
        self._holes = []

    def _found(self, numbers: Sequence[int], state: State, finished: Tensor) -> list[Found]:
        """The finished captions."""
        rows = finished.nonzero()[:, 0]
        if not len(rows):
            return []
        captions, totals = self.choice.found({name: part[rows] for name, part in state.items() if name in self._names})
        found = []
        for row, written, total in zip(rows.tolist(), captions, totals, strict=True):
            chosen = [token for token in written if token != NONE]
            words = chosen[:-1] if chosen[-1] == self.rules.end else chosen
            found.append(Found(numbers[row], words, total / len(chosen)))
        return found
