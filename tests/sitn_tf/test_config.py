import dataclasses
import json
import re

import pytest

from sitn_tf import config, sections
from sitn_tf.errors import InputError


@pytest.mark.parametrize("name", sorted(config.PRESETS))
def test_presets_survive_json(name):
    made = config.preset(name)
    assert config.Config.from_json(made.to_json()) == made


def test_override_coerces_by_type():
    made = config.override(
        config.default(),
        [
            "seed=3",
            "contrast.temperature=0.2",
            "contrast.granularities=16,32",
            "model.use_source=false",
            "sitn.target_attention=din",
            "model.request_features=hour,user",
        ],
    )
    assert made.seed == 3
    assert made.contrast.temperature == 0.2
    assert made.contrast.granularities == (16, 32)
    assert made.model.use_source is False
    assert made.sitn.target_attention == "din"
    assert made.model.request_features == ("hour", "user")
    assert config.Config.from_json(made.to_json()) == made


def test_a_model_of_one_domain_sees_no_source_unless_asked_to():
    assert {*config.SECTIONS} > {*sections.SINGLE_DOMAIN}
    for name in config.SECTIONS:
        made = config.override(config.default(), [f"model.name={name}"])
        assert made.model.use_source == (name not in sections.SINGLE_DOMAIN)
        assert sections.ModelConfig(name=name) == made.model
        assert config.Config.from_json(made.to_json()) == made
    din = config.override(config.default(), ["model.name=din", "model.use_source=true"])
    assert din.model.use_source is True
    assert config.override(din, ["model.name=din", "seed=1"]).model.use_source is True
    assert config.override(din, ["model.name=fm"]).model.use_source is False


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("contrast.temprature=1", "no such field; did you mean contrast.temperature"),
        ("temperature", "set=temperature is not of the form section.field=value"),
        ("contrast.temperature=hot", "contrast.temperature=hot is not of type float"),
        ("contrast.temperature=0", "contrast.temperature=0.0 is not above 0.0"),
        ("contrast.similarity=l1", "contrast.similarity=l1 is not one of: cosine, dot"),
        ("contrast.cluster_norm=mean", "cluster_norm=mean leaves new clusters of any length, of"),
        ("contrast.cluster_norm=none", "give contrast.cluster_norm=l2, or contrast.similarity=dot"),
        ("model.use_source=2", "model.use_source=2 is not one of: true, false"),
        ("encoder.heads=5", "model.embedding_dim=32 is not a multiple of encoder.heads=5"),
        ("items.side_features=colour", "'colour' is not one of: title_words, brand"),
        ("model.request_features=minute", "'minute' is not one of: hour, weekday, user, idle,"),
        ("model.request_features=hour,hour", "request_features=hour,hour names one twice: name"),
        ("model.user_buckets=0", "model.user_buckets=0 is not at least 1"),
        ("contrast.top_k=33", "contrast.top_k=33 is not between 1 and K=32"),
        ("stage1.batch_size=0", "stage1.batch_size=0 is not at least 1"),
        ("stage1.item_mask=1", "stage1.item_mask=1.0 is not between 0.0 and 0.95"),
        ("model=sitn", "no such field"),
        ("mlp.widths=-3", "mlp.widths=(-3,) has a width below 1"),
        ("deep.widths=4", "deep.widths=(4,): model.name=sitn has no section deep"),
        ("model.name=esmm", "model.name=esmm is not one of: sitn, din, dien, clsr, mean_pool,"),
        ("model.heads=4", "model.heads: no such field; did you mean encoder.heads?"),
        ("model.mlp=8", "model.mlp: no such field; did you mean mlp.widths, mlp.products?"),
        ("xyz=3", "xyz: no such field; the sections are: model, items, mlp,"),
        ("stage2.learning_rate=inf", "stage2.learning_rate=inf is not finite"),
    ],
)
def test_bad_settings(setting, message):
    with pytest.raises(InputError, match=re.escape(message)):
        config.override(config.default(), [setting])


def test_unknown_preset():
    with pytest.raises(InputError, match="preset=big is not one of: default, paper, tiny"):
        config.preset("big")


def test_differences_name_the_fields():
    ours = config.default()
    theirs = dataclasses.replace(ours, seed=4)
    assert config.differences(ours, theirs) == ["seed: 0, 4"]
    assert config.differences(ours, ours) == []


def test_unknown_fields_of_a_stored_configuration_are_refused():
    with pytest.raises(InputError, match="unknown fields: colour"):
        config.Config.from_json('{"colour": 1}')


@pytest.mark.parametrize(
    ("setting", "section"),
    [
        ("encoder.heads=8", "encoder"),
        ("encoder.heads=4", "encoder"),  # the default, and still not what din has
        ("sitn.target_attention=multi_head", "sitn"),
        ("encoder.layer_norm=True", "encoder"),
    ],
)
def test_what_the_model_does_not_use_is_refused_by_name(setting, section):
    message = (
        f"{setting}: model.name=din has no section {section}; it uses the sections "
        "model, items, contrast, stage1, stage2, mlp, din"
    )
    for settings in (["model.name=din", setting], [setting, "model.name=din"]):
        with pytest.raises(InputError, match=re.escape(message)):
            config.override(config.default(), settings)


@pytest.mark.parametrize(
    "wrong",
    [
        {"model": {"embedding_dim": True}},
        {"model": {"dropout": "0.1"}},
        {"model": {"use_source": 1}},
        {"model": {"request_features": "hour"}},
        {"mlp": {"widths": [16, "8"]}},
        {"contrast": {"view": "max"}},
        {"items": []},
    ],
)
def test_json_of_another_type_is_refused(wrong):
    [(section, fields)] = wrong.items()
    path = f"{section}.{next(iter(fields))}" if fields else section
    with pytest.raises(InputError, match=rf"^{path} cannot be "):
        config.Config.from_dict(wrong)
    assert config.Config.from_dict({"model": {"dropout": 0}}).model.dropout == 0


@pytest.mark.parametrize("name", sorted(config.SECTIONS))
def test_settings_of_the_stages_go_with_every_model(name):
    stages = ["stage1.epochs=3", "contrast.temperature=0.3", "stage2.epochs=4"]
    for settings in ([f"model.name={name}", *stages], [*stages, f"model.name={name}"]):
        made = config.override(config.default(), settings)
        assert (made.stage1.epochs, made.contrast.temperature, made.stage2.epochs) == (3, 0.3, 4)
        assert config.Config.from_json(made.to_json()) == made


def test_a_contrast_in_stage_2_needs_sequence_encoders():
    message = (
        "stage2.contrast_weight=0.1 needs sequence encoders, model.name=din has none: "
        "give stage2.contrast_weight=0"
    )
    with pytest.raises(InputError, match=re.escape(message)):
        config.override(config.default(), ["model.name=din", "stage2.contrast_weight=0.1"])


def test_a_section_that_the_model_does_not_use_has_its_defaults():
    din = sections.ModelConfig(name="din")
    assert config.Config(model=din).encoder == sections.EncoderConfig()
    with pytest.raises(InputError, match=r"encoder\.blocks=2: model\.name=din has no section"):
        config.Config(model=din, encoder=sections.EncoderConfig(blocks=2))


@pytest.mark.parametrize("preset", sorted(config.PRESETS))
@pytest.mark.parametrize("name", sorted(config.SECTIONS))
def test_every_preset_takes_every_model(preset, name):
    made = config.override(config.preset(preset), [f"model.name={name}"])
    spaces = ["contrast.i2c_weight=0"] if name in config.WITHOUT_SPACES else []
    expected = config.override(config.preset(preset), spaces)
    for section in {*config.sections_of(name)} - {"model"}:
        assert getattr(made, section) == getattr(expected, section)
    assert set(json.loads(made.to_json())) == {"seed", *config.sections_of(name)}
    assert config.Config.from_json(made.to_json()) == made


@pytest.mark.parametrize("preset", sorted(config.PRESETS))
@pytest.mark.parametrize("name", ["sitn", "semi", "din"])
def test_a_configuration_as_settings_of_the_nearest_preset_is_the_same_again(preset, name):
    changes = [f"model.name={name}", "model.dropout=0.35", "items.side_features=brand,title_words"]
    changes += ["stage2.clip_norm=1e-05", "model.use_source=true", "model.request_features="]
    chosen = config.override(config.preset(preset), [*changes, "seed=7"])
    nearest, settings = config.as_settings(chosen)
    assert config.override(config.preset(nearest), [*settings, "seed=7"]) == chosen
    assert nearest == preset
    assert len(settings) <= len(changes)


def test_the_paper_has_two_views_of_a_user_as_in_its_figure_2():
    assert config.paper().contrast.top_k == 2


def test_the_paper_has_nothing_that_keeps_a_stage_from_stopping():
    paper = config.paper()
    assert (paper.stage1.min_steps, paper.stage2.min_steps) == (0, 0)
