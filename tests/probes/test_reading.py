"""A trained model reads its own pictures; it does not take them for another prompt's."""

import torch

from sau_scan.checkpoint.loader import load_model
from sau_scan.checkpoint.opening import open_checkpoint
from sau_scan.demo import checkpoint_path
from sau_scan.probes.carriers import crowd, noise_like, sort_words
from sau_scan.probes.reading import OTHERS, TWO, read_as, shows_its_prompt
from sau_scan.probes.runner import Counter
from sau_scan.repairs.examples import encode
from sau_scan.repairs.pictures import STEPS, Clean, draw


def test_pictures_are_read_as_their_own_prompts_and_others_as_not() -> None:
    model, counter = load_model(open_checkpoint(checkpoint_path())), Counter()
    texts = crowd(sort_words(model, 0).responsive, 12, 3)
    hidden = encode(model, texts, counter)
    pictures = draw(model, hidden, noise_like(model, len(texts), 5), counter)
    before = counter.unet
    own = shows_its_prompt(model, pictures, hidden, counter, 0)
    assert own.shape == (len(texts), OTHERS)
    assert counter.unet - before == 3 * (OTHERS + 1) * len(texts)
    wrong = shows_its_prompt(model, pictures.roll(OTHERS + 2, 0), hidden, counter, 0)
    assert own.float().mean() > 0.85
    assert own.float().mean() > wrong.float().mean() + 0.25


def test_what_is_lost_is_counted_against_what_was_shown() -> None:
    model, counter = load_model(open_checkpoint(checkpoint_path())), Counter()
    words = sort_words(model, 0)
    clean = Clean.of(model, crowd(words.responsive, 12, 3), words.neutral, counter, 0)
    assert clean.lost(clean.pictures, counter, 0) == 0
    assert clean.moved(clean.pictures) == 0
    assert clean.lost(clean.pictures.roll(OTHERS + 2, 0), counter, 0) > 0.25
    assert torch.equal(clean.redrawn(model, counter), clean.pictures)


def test_of_a_few_words_the_one_that_a_picture_shows_explains_it_best() -> None:
    model, counter = load_model(open_checkpoint(checkpoint_path())), Counter()
    words = sort_words(model, 0)
    texts = encode(model, [f"a {word}" for word in (*words.responsive[:2], words.neutral[0])], counter)
    noise, before = noise_like(model, 6, 5), counter.unet
    read = [read_as(model, draw(model, t.expand(6, -1, -1), noise, counter), texts, counter, 0) for t in texts[:2]]
    assert counter.unet - before == 2 * 6 * (2 * STEPS + 3 * len(TWO))
    assert read[0].shape == (6, 3)
    for own, errors in enumerate(read):
        assert errors.mean(0).argmin() == own
