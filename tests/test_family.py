"""The family: saving, tiers as prefixes, heads, and text that cannot be malformed."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from made import SMALL, write_clip

from ruyicam.cloud.data.clips import find_clips, model_input
from ruyicam.cloud.errors import RuyicamError
from ruyicam.cloud.family import Family, FamilyConfig, Reasoner
from ruyicam.cloud.family.labels import BEHAVIOURS, SLOTS
from ruyicam.cloud.family.vocabulary import CALM, EVENTS, tokenizer
from ruyicam.cloud.training.metrics import agreement, tier_scores
from ruyicam.kernels import Preprocessor, reference


def test_saving_and_loading_give_the_same_answers(tmp_path):
    model = Family(SMALL).eval()
    model.save_pretrained(tmp_path)
    again = Family.from_pretrained(tmp_path)
    x, seen = torch.randint(-50, 50, (2, 8, 3, 64, 64), dtype=torch.int8), torch.ones(2, 8, dtype=torch.bool)
    assert torch.equal(model.features(x), again.features(x))
    features = model.features(x)
    for name, answer in model.reasoner(features, seen).items():
        assert torch.equal(answer.window, again.reasoner(features, seen)[name].window)


def test_a_tier_is_a_prefix_with_the_very_outputs_of_its_exit():
    model = Family(SMALL).eval()
    features = torch.randint(-40, 40, (3, 8, SMALL.features)).float()
    valid = torch.rand(3, 8) > 0.3
    whole = model.reasoner(features, valid)
    sizes = []
    for name in SMALL.trunk.exits:
        tier = model.tier(name)
        assert torch.equal(tier(features, valid)[name].steps, whole[name].steps)
        sizes.append(sum(p.numel() for p in tier.parameters()))
    assert sizes == sorted(set(sizes))
    with pytest.raises(ValueError, match="tier 'huge' is unknown"):
        model.tier("huge")


def test_ticks_that_were_not_released_do_not_matter():
    model = Family(SMALL).eval()
    features = torch.randint(-40, 40, (1, 8, SMALL.features)).float()
    valid = torch.tensor([[True, False, True, True, False, True, True, True]])
    other = torch.where(valid.unsqueeze(-1), features, torch.full_like(features, 99.0))
    assert torch.equal(model.reasoner(features, valid)["cloud-l"].window, model.reasoner(other, valid)["cloud-l"].window)


def test_a_tier_saves_and_loads_alone(tmp_path):
    model = Family(SMALL).eval()
    features, valid = torch.randint(-40, 40, (2, 8, SMALL.features)).float(), torch.ones(2, 8, dtype=torch.bool)
    model.tier("cloud-s").save_pretrained(tmp_path / "s")
    model.save_pretrained(tmp_path / "whole")
    alone = Reasoner.from_pretrained(tmp_path / "s")
    assert list(alone.exits) == ["edge", "cloud-s"]
    for a, b in zip(alone(features, valid)["cloud-s"], model.reasoner(features, valid)["cloud-s"], strict=True):
        assert torch.equal(a, b)
    sizes = [(tmp_path / n / "model.safetensors").stat().st_size for n in ("s", "whole")]
    assert sizes[0] < sizes[1]


def test_every_exit_has_every_head():
    model = Family(SMALL).eval()
    answers = model.reasoner(torch.zeros(2, 8, SMALL.features), torch.zeros(2, 8, dtype=torch.bool))
    assert list(answers) == ["edge", "cloud-s", "cloud-l"]
    for a in answers.values():
        assert a.steps.shape == (2, 8, 3) and a.window.shape == (2, 3) and a.doing.shape == (2, 8, len(BEHAVIOURS))
        assert a.slots.shape == (2, 8, SLOTS, len(BEHAVIOURS)) and a.people.shape == (2, 8, SLOTS + 1)
        assert a.contour.shape == (2, 8, SLOTS, 17, 3)
        assert a.hidden.shape == (2, 8 + SLOTS * len(BEHAVIOURS), SMALL.trunk.hidden_size)
        assert ((a.contour[..., :2] >= 0) & (a.contour[..., :2] <= 1)).all()
        assert a.window.isfinite().all()


def test_every_tick_sees_the_whole_window():
    """Who is the second from the left is told by the whole window, so the first tick must know of the last."""
    torch.manual_seed(4)
    trunk = Family(SMALL).eval().reasoner.trunk
    for layer in trunk.layers:
        torch.nn.init.normal_(layer.self_attn.o_proj.weight, std=0.3)
    valid = torch.ones(1, 8, dtype=torch.bool)
    features = 16 * torch.randn(1, 8, SMALL.features)
    other = features.clone()
    other[:, -1] = 0
    one, two = (trunk(f, valid, {"edge": 2})["edge"][:, 0] for f in (features, other))
    assert (one - two).abs().max() > 1e-3


def test_the_language_head_is_told_when_each_person_does_what():
    """A token is that of its slot, behaviour and course over the window, and of nothing else."""
    heads = Family(SMALL).eval().reasoner.heads
    chance = torch.zeros(1, 8, SLOTS, len(BEHAVIOURS))
    chance[:, 4:, 2, 3] = 1
    told, calm = heads.told(chance), heads.told(torch.zeros_like(chance))
    assert (told != calm).any(-1)[0].nonzero().flatten().tolist() == [2 * len(BEHAVIOURS) + 3]


def test_an_untrained_head_can_only_write_valid_reports():
    """The form comes from the decoder, not from what was learned."""
    torch.manual_seed(5)
    model = Family(SMALL).eval()
    hidden = 3 * torch.randn(16, 8, SMALL.trunk.hidden_size)
    for report in model.reasoner.text.report(hidden):
        assert set(report.what) <= {CALM, *EVENTS} and all(1 <= w <= SLOTS for w in report.who)
        assert 0 <= report.sure <= 1 and report.when[0] <= report.when[1]
        assert type(report).model_validate_json(report.model_dump_json()) == report


def test_packed_texts_do_not_see_each_other():
    model = Family(SMALL).eval()
    words, hidden = tokenizer(), torch.randn(1, 8, SMALL.trunk.hidden_size)
    a, b = (words(t)["input_ids"] for t in ("who falls? person 2", "is someone hidden? yes"))
    both = model.reasoner.text(hidden, torch.tensor([a + b]), torch.tensor([[0] * len(a) + [1] * len(b)]))
    alone = model.reasoner.text(hidden, torch.tensor([b]), torch.zeros(1, len(b), dtype=torch.int64))
    torch.testing.assert_close(both[:, len(a) :], alone, rtol=1e-4, atol=1e-4)


def test_decoding_with_a_cache_is_what_training_saw():
    """Greedy decoding, token by token, against the packed forward pass."""
    torch.manual_seed(2)
    model = Family(SMALL).eval()
    words, hidden = tokenizer(), 2 * torch.randn(4, 8, SMALL.trunk.hidden_size)
    prompt = words("who falls?")["input_ids"]
    for row, said in enumerate(model.reasoner.text._decode(hidden, "who falls?", None, 6)[0]):
        ids = torch.tensor([prompt + said])
        logits = model.reasoner.text(hidden[row : row + 1], ids, torch.zeros_like(ids))
        assert logits[0, len(prompt) - 1 : -1].argmax(-1).tolist() == said


def test_mixed_precision_leaves_the_mapping_exact():
    mapping = Family(SMALL).mapping
    tokens = torch.randn(5, SMALL.tokens, SMALL.encoder.dim)
    exact = mapping.exact(tokens)
    for mode in True, False:
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(mapping.train(mode)(tokens).round().long(), exact)


def test_the_encoders_short_cuts_change_nothing():
    """Standardising after pooling against before it, and skipping ticks that are not there against computing all."""
    torch.manual_seed(3)
    family = Family(SMALL).eval()
    e, maps = family.encoder, 1 + 2 * torch.randn(6, family.encoder.channels, *SMALL.grid)
    e.mean.normal_()
    e.spread.uniform_(0.5, 2)
    x = (maps.flatten(2) - e.mean[:, None]) / e.spread[:, None]
    fit = e.query(x.transpose(1, 2)).transpose(1, 2) + e.bias
    pooled = torch.softmax(fit, -1) @ torch.cat([x, e.place.expand(len(x), -1, -1)], 1).transpose(1, 2)
    pooled = torch.cat([pooled, fit.exp().mean(-1, keepdim=True).log()], -1)
    plain = e.norm((pooled.transpose(0, 1) @ e.value).transpose(0, 1))
    torch.testing.assert_close(e.tokens(maps), plain, rtol=1e-4, atol=1e-4)
    exists = torch.tensor([[True, False, True], [False, True, True]])
    window = maps.unflatten(0, (2, 3))
    some, whole = family.features_of_maps(window, exists), family.features_of_maps(window)
    assert torch.equal(some[exists], whole[exists]) and not some[~exists].any() and whole[~exists].any()


def test_a_query_tells_how_much_it_found():
    """The same person twice has the same mean look as once; only the mass of the look differs."""
    torch.manual_seed(1)
    encoder = Family(SMALL).encoder.eval()
    rows, columns = SMALL.grid
    once = torch.zeros(1, encoder.channels, rows, columns)
    once[..., 0, 0] = 3
    twice = once.clone()
    twice[..., rows - 1, columns - 1] = 3
    encoder.bias.data.zero_()
    encoder.query.weight.data[:] = 1
    encoder.value.data[:, :-1] = 0
    encoder.norm = torch.nn.Identity()
    gain = (encoder.tokens(twice) - encoder.tokens(once)) / encoder.value[:, -1]
    assert torch.allclose(gain, torch.full_like(gain, math.log(2)), atol=1e-2)


def test_a_detector_of_another_kind_is_refused(tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"")
    with pytest.raises(ValueError, match="expected YOLOX-nano"):
        Family(SMALL).encoder.backbone.load_detector(tmp_path / "x.onnx")


def test_the_detectors_weights_give_the_detectors_features(shared_clips):
    """The backbone against the published network in ONNX Runtime, at the tap where the backbone ends."""
    import onnx
    import onnxruntime

    path = shared_clips / "pretrained" / "yolox_nano.onnx"
    model = Family(FamilyConfig()).encoder.backbone.eval()
    model.load_detector(path)
    graph = onnx.load(path)
    convolutions = [n for n in graph.graph.node if n.op_type == "Conv"]
    own = sum(isinstance(m, torch.nn.Conv2d) for m in model.modules())
    # The last own convolution is followed by SiLU: a sigmoid and a product.
    tap = next(n for n in graph.graph.node if n.op_type == "Mul" and convolutions[own - 1].output[0] in n.input).output[0]
    graph.graph.output.append(onnx.helper.make_tensor_value_info(tap, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    side = session.get_inputs()[0].shape[-1]
    luma = np.random.default_rng(0).integers(0, 256, (1, 1, side, side)).astype(np.float32)
    want = session.run([tap], {session.get_inputs()[0].name: np.repeat(luma, 3, 1)})[0]
    with torch.inference_mode():
        got = model(torch.from_numpy(luma) - 128).numpy()
    assert got.shape == want.shape
    assert np.abs(got - want).max() < 1e-3 * np.abs(want).max()


def test_clips_are_decoded_to_the_kernels_input(made_clip):
    config = FamilyConfig().input
    x = model_input(made_clip, config)
    assert x.shape == (20, 3, config.height, config.width) and x.dtype == np.int8
    assert not x[0].any() and x[5:].any()
    plain = reference.Preprocessor()
    fast = Preprocessor()
    frame = np.random.default_rng(0).integers(0, 256, (200, 300), dtype=np.uint8)
    assert (plain.process(frame) == fast.process(frame)).all()


def test_scores():
    s = tier_scores([0, 0, 0, 1], [0, 0, 1, 1], ("a", "b", "c"))
    assert s == {"accuracy": 0.75, "balanced_accuracy": (2 / 3 + 1) / 2, "recall": {"a": 2 / 3, "b": 1.0}}
    assert agreement([0, 1, 1], [0, 1, 0]) == 2 / 3


def test_bad_data_is_one_clear_line(tmp_path):
    with pytest.raises(RuyicamError, match="does not exist"):
        find_clips([tmp_path / "none"], ("normal",))
    with pytest.raises(RuyicamError, match="holds no clips"):
        find_clips([tmp_path], ("normal",))
    write_clip(tmp_path / "dance" / "a.mp4", frames=3)
    with pytest.raises(RuyicamError, match="label 'dance'"):
        find_clips([tmp_path], ("normal",))
    (tmp_path / "bad.mp4").write_bytes(b"not a film")
    with pytest.raises(RuyicamError, match="cannot be decoded"):
        model_input(tmp_path / "bad.mp4", FamilyConfig().input)
