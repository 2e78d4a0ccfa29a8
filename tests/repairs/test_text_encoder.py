import torch

from sau_scan.repairs.base import Bench, relative_change, with_patch
from sau_scan.repairs.text_encoder import Lesson, Realign, copied, trainable
from sau_scan.repairs.training import optimise


def test_triggered_prompts_approach_what_was_wanted_and_others_stay(bench: Bench) -> None:
    lesson, student = Lesson(bench), copied(bench.model.text_encoder)
    generator = torch.Generator().manual_seed(0)
    losses = optimise(trainable(student).values(), lambda step: lesson.loss(student, generator), 60, 1e-2)
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


def test_a_perfect_student_has_no_loss_on_prompts_that_stay(bench: Bench) -> None:
    lesson = Lesson(bench)
    lesson.examples.wanted[:] = lesson.examples.hidden
    student = copied(bench.model.text_encoder)
    assert lesson.loss(student, torch.Generator().manual_seed(0)) < 1e-6
