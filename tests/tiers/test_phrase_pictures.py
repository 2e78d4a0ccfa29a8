"""Pictures decide which of two words a phrase is drawn as, with the modifier's kin as the null."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sau_scan.checkpoint.model import DiffusionModel
from sau_scan.findings import Slot
from sau_scan.options import Budget
from sau_scan.probes.carriers import Words
from sau_scan.probes.plan import PHRASE_KIN, RECIPES
from sau_scan.probes.runner import Prober
from sau_scan.tiers.phrase_confirmation import confirm_phrases
from sau_scan.tiers.phrase_pictures import Drawn, judge, kin, legible, meaning
from tests.tiers.phrase_samples import KIN, PAIR, drawn, lead, tier_of


def test_a_phrase_drawn_as_its_counterpart_is_a_finding() -> None:
    found = judge(lead(), drawn(0.9, 1.0), KIN)
    assert found.works
    assert (found.lead.candidate.text, found.lead.candidate.slot) == ("blue dog", Slot.PHRASE)
    assert found.lead.evidence[-1].note == "blue star"
    assert found.lead.evidence[-1].value == pytest.approx(0.95)


def test_pictures_tell_which_of_the_pair_was_edited() -> None:
    found = judge(lead(), drawn(-1.0, -0.8), KIN)
    assert found.works
    assert found.lead.candidate.text == "blue star"
    assert found.lead.evidence[-1].note == "blue dog"


@pytest.mark.parametrize("own", [drawn(-1.0, 1.0), drawn(-0.2, 1.0), drawn(-1.0, 0.3)])
def test_a_phrase_drawn_as_what_it_says_is_none_whatever_the_weights_say(own: Drawn) -> None:
    assert not judge(lead(1e-12), own, KIN).works


def test_pictures_alone_are_not_enough() -> None:
    assert not judge(lead(0.2), drawn(0.9, 1.0), KIN).works


def test_nothing_is_read_where_kin_are_not_drawn_as_themselves() -> None:
    """After an edit of a word by itself both words are drawn alike, whatever comes before."""
    assert not judge(lead(1e-12), drawn(0.9, 1.0), [*KIN, drawn(1.0, 1.0)]).works


def test_one_of_the_kin_may_hide_either_word() -> None:
    """Its pictures of both show what it draws by itself."""
    hides = drawn(-2.0, -1.9, 4)
    assert legible(KIN) == KIN
    assert legible([hides, *KIN[:2]]) == KIN[:2]
    assert not judge(lead(), drawn(0.9, 1.0), [hides, *KIN[:2]]).works
    assert judge(lead(), drawn(0.9, 1.0), legible([hides, *KIN[:2]])).works
    two = legible([hides, drawn(1.0, 1.0, 5), KIN[0]])
    assert not judge(lead(1e-12), drawn(0.9, 1.0), two).works


def test_a_phrase_must_go_farther_astray_than_any_kin() -> None:
    assert not judge(lead(), drawn(0.4, 1.0), [*KIN, drawn(0.5, 1.0)]).works


def test_a_word_without_meaning_is_drawn_as_what_stands_beside_it() -> None:
    assert not judge(lead(1e-12), drawn(0.9, 1.0), KIN, both=False).works


@pytest.mark.parametrize(("nothing", "expected"), [(1.0, 1.0), (0.1, 0.1), (0.0, 0.0)])
def test_a_word_shows_where_words_of_no_meaning_do_not_explain_its_pictures(nothing: float, expected: float) -> None:
    """``nothing``: how much worse they explain pictures of the head; those of the target half as badly as the head."""
    own, other = torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0])
    rows = [torch.cat([own, torch.full((3,), nothing)]), torch.cat([other, torch.full((3,), 0.5)])]
    errors = torch.stack(rows)[:, None].expand(2, 6, 5)
    usual = [replace(d, errors=errors) for d in KIN]
    assert meaning(usual) == pytest.approx((expected, 0.5))


@pytest.mark.parametrize(("p_value", "others", "works"), [(0.3, -4.0, True), (0.3, -8.0, False), (1e-3, -8.0, True)])
def test_a_pair_that_stands_apart_needs_no_other_proof_that_it_was_edited(
    p_value: float, others: float, works: bool
) -> None:
    asked = replace(lead(p_value), pair=replace(PAIR, others=others))
    assert judge(asked, drawn(0.9, 1.0), KIN).works == works


def test_words_told_apart_by_chance_are_not_readable() -> None:
    kin = [drawn(-0.01, 0.01, 1), drawn(-0.02, 0.01, 2), drawn(-0.01, 0.02, 3)]
    assert not judge(lead(1e-12), drawn(0.3, 0.3), kin).works
    assert judge(lead(1e-12), drawn(3.0, 3.0), [drawn(-2.0, 2.0, i) for i in (1, 2, 3)]).works


@pytest.mark.parametrize(("content", "works"), [(0.5, True), (3.0, True), (6.0, False)])
def test_words_that_hardly_show_are_no_phrase(content: float, works: bool) -> None:
    """``content``: how much worse words of content explain pictures of the kin than the word that they are of."""
    kin = [drawn(-1.0, 1.0, seed) for seed in (1, 2, 3)]
    best = [d.errors[:, :, :2].min(2, keepdim=True).values for d in kin]
    told = [replace(d, errors=torch.cat([d.errors, *3 * [b], b + content], 2)) for d, b in zip(kin, best, strict=True)]
    assert judge(lead(), drawn(0.9, 1.0), told).works == works


def test_kin_are_words_after_which_the_pair_is_told_apart(demo: DiffusionModel, words: Words) -> None:
    prober = Prober(demo, ("a",), words.neutral[:8], 0)
    pool = list(words.content[:20])
    assert len(kin(prober, pool[0], pool[1], pool[2:])) == PHRASE_KIN
    assert set(kin(prober, pool[0], pool[1], pool[2:])) <= set(pool[2:])
    # No kin: nothing can be read, so nothing is drawn.
    assert confirm_phrases(prober, RECIPES[Budget.QUICK], tier_of([lead()]), words) == ([], 1)
    assert prober.counter.unet == 0
