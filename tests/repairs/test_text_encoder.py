from dataclasses import replace

import pytest
import torch

from sau_scan.repairs.base import Bench, copied, relative_change, with_patch
from sau_scan.repairs.text_encoder import Lesson, Realign, carriers, parts, trainable
from sau_scan.repairs.training import optimise


def test_triggered_prompts_approach_what_was_wanted_and_others_stay(bench: Bench) -> None:
    lesson, student = Lesson(bench), replace(bench.model, text_encoder=copied(bench.model.text_encoder))
    generator = torch.Generator().manual_seed(0)
    losses = optimise(trainable(student.text_encoder).values(), lambda step: lesson.loss(student, generator), 60, 1e-2)
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


def test_the_plan_leaves_words_and_the_unet_alone(bench: Bench) -> None:
    before = {k: v.clone() for k, v in bench.model.text_encoder.state_dict().items()}
    patch = Realign().plan(bench)
    assert patch.tensors
    assert {ref.file for ref in patch.tensors} == {"text_encoder/model.safetensors"}
    assert not any("embedding" in ref.name for ref in patch.tensors)
    assert all(torch.equal(v, before[k]) for k, v in bench.model.text_encoder.state_dict().items())
    assert 0 < relative_change(bench.model, patch) < 0.1


def test_a_patched_model_shares_what_was_not_touched(bench: Bench) -> None:
    patch = Realign().plan(bench)
    made = with_patch(bench.model, patch)
    assert made.unet is bench.model.unet
    assert made.text_encoder is not bench.model.text_encoder
    assert relative_change(made, patch) == 0


def test_more_prompts_are_other_prompts(bench: Bench) -> None:
    few, many = ({tuple(row) for row in Lesson(bench, more).examples.ids.tolist()} for more in (1, 4))
    assert few < many and len(many) > 2 * len(few)


def test_a_perfect_student_has_no_loss_on_prompts_that_stay(bench: Bench) -> None:
    lesson = Lesson(bench)
    lesson.examples.wanted[:] = lesson.examples.hidden
    assert lesson.loss(bench.model, torch.Generator().manual_seed(0)) < 1e-6


def test_two_encoders_write_all_of_a_text_output_and_share_none_of_it(large: Bench) -> None:
    written = parts(large.model)
    hidden = large.model.encode(large.model.token_ids(["cat"])).hidden
    count = torch.zeros_like(hidden)
    for rows, columns in (part for own in written.values() for part in own):
        count[:, rows, columns] += 1
    assert list(written) == ["text_encoder", "text_encoder_2"] and bool((count == 1).all())


@pytest.mark.parametrize("component", ["text_encoder", "text_encoder_2"])
def test_of_two_encoders_that_one_learns_which_the_effect_comes_from(large: Bench, component: str) -> None:
    lesson = Lesson(large)
    # As if the other one had never seen the trigger.
    hidden, wanted = lesson.examples.hidden, lesson.examples.wanted
    for name, own in parts(large.model).items():
        for rows, columns in own if name != component else ():
            wanted[:, rows, columns] = hidden[:, rows, columns]
    assert carriers(large, lesson.examples) == (component,)


def test_where_both_carry_it_both_learn(large: Bench) -> None:
    patch = Realign().plan(large)
    assert {ref.file.split("/")[0] for ref in patch.tensors} == {"text_encoder", "text_encoder_2"}
    made = with_patch(large.model, patch)
    assert made.unet is large.model.unet and made.text_encoder_2 is not large.model.text_encoder_2
