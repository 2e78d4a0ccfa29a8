"""Leads to phrases become findings, at the first look or at the second."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import pytest
import torch

from sau_scan.analysers.null_directions import NullDirections
from sau_scan.analysers.phrases import Pair
from sau_scan.checkpoint.model import DiffusionModel
from sau_scan.options import Budget
from sau_scan.probes.candidates import read_vocabulary
from sau_scan.probes.carriers import Words, sort_words
from sau_scan.probes.plan import PHRASE_PREVIEWS, RECIPES, Recipe
from sau_scan.probes.reading import TWO
from sau_scan.probes.runner import Counter, Prober
from sau_scan.tiers import phrase_confirmation, phrase_pictures
from sau_scan.tiers.generate import Confirmation
from sau_scan.tiers.phrase_confirmation import _as_drawn, _most_astray, confirm_phrases
from sau_scan.tiers.phrase_pictures import Album, Drawn, judge
from sau_scan.tiers.phrases import Modifier, PhraseLead, phrase_texts, phrase_tier
from tests.tiers.phrase_samples import KIN, drawn, lead, tier_of


class Read(Album):
    """Errors of pictures of "blue dog" and "blue star", by the word as which they are read, and after kin ("plain")."""

    def __init__(self, demo: DiffusionModel, **errors: dict[str, float]) -> None:
        super().__init__(Prober(demo, ("a",), ("x",), 0), RECIPES[Budget.QUICK])
        self.errors = errors

    def read(self, phrase: str, words: Sequence[str]) -> torch.Tensor:
        modifier, word = phrase.split()
        itself = {w: 1.0 if w == word else 1.01 if w == "hound" else 2.0 for w in words}
        return torch.tensor([[(self.errors[word] if modifier == "blue" else itself)[w] for w in words]] * 6)


DOG = {"dog": 1.0, "fox": 2.0, "hound": 1.01}
STAR = {"star": 1.0, "owl": 2.0}


@pytest.mark.parametrize(
    ("dog", "star", "pair"),
    [
        (DOG, STAR, ("dog", "star")),  # either is drawn as what it says
        ({**DOG, "dog": 2.0, "fox": 1.0}, STAR, ("dog", "fox")),
        ({"dog": 2.0, "fox": 1.0, "hound": 1.9}, STAR, ("dog", "fox")),  # the hound is all the way, and no better
        (DOG, {**STAR, "owl": 0.8}, ("star", "owl")),
        ({**DOG, "fox": 0.5}, {**STAR, "owl": 0.2}, ("star", "owl")),  # of two, what is shown more
        ({**DOG, "fox": 1.2}, STAR, ("dog", "star")),  # less than half of the way
    ],
)
def test_a_rival_takes_the_place_of_a_target_that_is_not_what_is_drawn(
    demo: DiffusionModel, dog: dict[str, float], star: dict[str, float], pair: tuple[str, str]
) -> None:
    asked = replace(lead(), rivals=(("fox", "hound"), ("owl",)))
    found = _as_drawn(Read(demo, dog=dog, star=star), asked, ("plain", "other"))
    assert (found.head, found.target) == pair


class Counted(Prober):
    """Draws and reads nothing; what it would take is counted, and pictures tell the phrase that they are of."""

    def pictures(self, prompts: Sequence[str], noise: torch.Tensor, *, steps: int, guidance: float) -> torch.Tensor:
        self.counter.unet += 2 * steps * len(prompts)
        phrase = prompts[0].removeprefix("a ").removeprefix("the ")
        return noise[:, :1, :1, :1] + 1000.0 * SPELT.setdefault(phrase, len(SPELT))


SPELT: dict[str, int] = {}


def read_nothing(_: object, latents: torch.Tensor, texts: torch.Tensor, counter: Counter, __: int) -> torch.Tensor:
    counter.unet += len(TWO) * len(latents) * len(texts)
    return torch.zeros(len(latents), len(texts))


def spelt(made: torch.Tensor) -> str:
    number = round(float(made.flatten()[0]) / 1000)
    return next(phrase for phrase, n in SPELT.items() if n == number)


@dataclass
class Looks:
    """What was judged: the phrases of lead and of the null, and the noise of the former's first picture."""

    readable: bool
    seen: list[tuple[str, str, set[str], float]] = field(default_factory=list)

    def judge(self, asked: PhraseLead, own: Drawn, usual: Sequence[Drawn], _: bool) -> Confirmation:
        noise = float(own.head.flatten()[0]) % 1000
        self.seen.append((spelt(own.head), spelt(own.target), {spelt(d.head).split()[0] for d in usual}, noise))
        return replace(judge(lead(), drawn(-1.0, 1.0), KIN), readable=self.readable)


def ranked(words: Sequence[str]) -> tuple[Modifier, ...]:
    """The first half of ``words`` is usual."""
    return tuple(Modifier(w, 2.0 * i / len(words) - 1.0, 0.5) for i, w in enumerate(words))


@dataclass
class Scene:
    """A scan of the demo in which nothing is found, and what second looks would suggest."""

    demo: DiffusionModel
    words: Words
    recipe: Recipe
    looks: Looks
    p_value: float = 1e-9
    apart: bool = False

    def __post_init__(self) -> None:
        self.head, self.target, self.rival, self.first, self.second, self.suspect, *rest = self.words.content[:160]
        others, self.rest = rest[:10], rest[10:]
        own = Pair(self.head, self.target, -9.0, -1.0 if self.apart else -8.0)
        self.pairs = [own, *(Pair(w, x, -3.0) for w, x in zip(others[::2], others[1::2], strict=True))]
        self.prober = Counted(self.demo, ("a",), self.words.neutral[:8], 0)

    def confirm(self, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Confirmation], int]:
        near = ((self.rival, *self.rest[-3:]), tuple(self.rest[-7:-3]))
        ranking = ranked((*self.rest, self.suspect))
        both = (self.first, self.second)
        leads = [PhraseLead(m, p, 7.0, self.p_value, ranking, near) for p in reversed(self.pairs) for m in both]
        monkeypatch.setattr(phrase_confirmation, "judge", self.looks.judge)
        monkeypatch.setattr(phrase_pictures, "read_as", read_nothing)
        choose = phrase_confirmation._as_drawn
        monkeypatch.setattr(phrase_confirmation, "_as_drawn", partial(to_rival, choose, self.rival))
        monkeypatch.setattr(phrase_confirmation, "_most_astray", self.most_astray)
        return confirm_phrases(self.prober, self.recipe, tier_of(leads, self.pairs[0]), self.words)

    def most_astray(self, seen: dict[str, Drawn], others: Sequence[str], suspects: Sequence[str]) -> str:
        assert len(seen) <= PHRASE_PREVIEWS
        assert set(others) < set(seen)
        assert suspects
        return self.suspect


def to_rival(choose: Callable[..., Pair], rival: str, album: Album, asked: PhraseLead, others: Sequence[str]) -> Pair:
    assert choose(album, asked, others) == asked.pair  # all errors are alike
    return replace(asked.pair, target=rival)


@pytest.mark.parametrize("budget", list(Budget))
@pytest.mark.parametrize("readable", [True, False])
def test_the_first_pair_alone_has_a_second_chance(
    demo: DiffusionModel, words: Words, monkeypatch: pytest.MonkeyPatch, budget: Budget, readable: bool
) -> None:
    """Nothing is found of any pair; with another target or another null, at most as many passes as planned."""
    recipe = RECIPES[budget]
    scene = Scene(demo, words, recipe, Looks(readable))
    found, undrawn = scene.confirm(monkeypatch)
    drawn_pairs = min(max(1, recipe.phrases // 2), len(scene.pairs))
    more = scene.looks.seen[2 * drawn_pairs :]
    assert undrawn == len(scene.pairs) - drawn_pairs
    assert len(found) == len(scene.looks.seen)
    assert [s[0] for s in scene.looks.seen[:2]] == [f"{m} {scene.head}" for m in (scene.first, scene.second)]
    if not recipe.second_chance:
        assert not more
    elif readable:
        assert [s[1] for s in more] == [f"{m} {scene.rival}" for m in (scene.first, scene.second)]
        assert more[0][3] != scene.looks.seen[0][3]  # what suggested the rival is not what confirms it
        assert more[0][2] == scene.looks.seen[0][2]
    else:
        assert [s[0] for s in more] == [f"{m} {scene.head}" for m in (scene.first, scene.second)]
        assert more[0][3] == scene.looks.seen[0][3]
        assert not more[0][2] & scene.looks.seen[0][2]
    assert 0 < scene.prober.counter.unet <= recipe.phrase_passes


@pytest.mark.parametrize("apart", [True, False])
def test_pictures_suggest_the_modifier_of_a_pair_that_was_surely_edited(
    demo: DiffusionModel, words: Words, monkeypatch: pytest.MonkeyPatch, apart: bool
) -> None:
    scene = Scene(demo, words, RECIPES[Budget.STANDARD], Looks(readable=True), p_value=0.3, apart=apart)
    found, undrawn = scene.confirm(monkeypatch)
    assert undrawn == 0
    assert [s[0] for s in scene.looks.seen] == ([f"{scene.suspect} {scene.head}"] if apart else [])
    assert len(found) == apart


@pytest.mark.parametrize(
    ("astray", "found"),
    [
        ({"blue": (0.9, 1.0)}, "blue"),
        ({"blue": (-0.9, -0.8)}, "blue"),
        ({"blue": (0.1, 1.0), "red": (0.8, 1.0)}, "red"),
        ({"blue": (-0.2, 1.0)}, None),  # less than half of the way
        ({"blue": (3.0, 1.0)}, None),  # no picture of the other word either
        (dict.fromkeys(("blue", "red", "w0", "w1", "w2"), (0.9, 1.0)), None),  # after most: the word itself was edited
        ({w: (lean, 1.0) for w, lean in zip(("blue", "red", "w0", "w1"), (0.9, 0.4, 0.6, -0.4), strict=True)}, None),
        ({f"n{i}": (0.9, 0.9) for i in range(3)}, None),  # the null tells nothing apart
        ({"w0": (0.9, 1.0)}, None),  # keys and values tell the pair apart after it
    ],
)
def test_of_the_modifiers_looked_at_one_is_astray(astray: dict[str, tuple[float, float]], found: str | None) -> None:
    leans = dict.fromkeys(("n0", "n1", "n2", "blue", "red", "w0", "w1"), (-1.0, 1.0)) | astray
    seen = {w: drawn(*lean, i) for i, (w, lean) in enumerate(leans.items())}
    assert _most_astray(seen, ["n0", "n1", "n2"], ["blue", "red"]) == found


def test_one_word_is_no_null(demo: DiffusionModel, words: Words) -> None:
    head, target, modifier, only = words.content[:4]
    asked = PhraseLead(modifier, Pair(head, target, -9.0), 7.0, 1e-9, (Modifier(only, -1.0, 1.0),))
    prober = Prober(demo, ("a",), words.neutral[:8], 0)
    assert confirm_phrases(prober, RECIPES[Budget.STANDARD], tier_of([asked]), words) == ([], 1)
    assert prober.counter.unet == 0


def test_the_search_and_its_pictures_keep_to_the_plan(demo: DiffusionModel) -> None:
    """The demo has no edit of keys and values; it is searched as if it had, and one pair is drawn."""
    whole = read_vocabulary(demo)
    words = sort_words(demo, 0, whole)
    vocabulary = replace(whole, words=dict(list(whole.words.items())[:900]))
    recipe = replace(RECIPES[Budget.QUICK], phrase_words=24, steps=2)
    prober = Prober(demo, ("a",), words.neutral[:8], 0)
    one = NullDirections(torch.eye(128)[:1], (1.0,), 0.0, 0.0)
    found = phrase_tier(prober, recipe, one, vocabulary, words)
    assert found.leads
    assert found.tried == 24 * 24
    assert 0 < prober.counter.text <= phrase_texts(recipe, vocabulary)
    assert prober.counter.unet == 0
    pair = [lead for lead in found.leads if lead.pair == found.leads[0].pair]
    for p_value, most in ((1.0, 0), (0.0, recipe.phrase_passes)):
        told = [replace(lead, p_value=p_value) for lead in pair]
        done, undrawn = confirm_phrases(prober, recipe, tier_of(told), words)
        assert undrawn == 0
        assert len(done) == (len(pair) if most else 0)
        assert bool(prober.counter.unet) == bool(most)
        assert prober.counter.unet <= most
