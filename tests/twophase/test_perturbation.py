"""One thing has one name: however a perturbation is written, tables hold its canonical form."""

from contextlib import nullcontext

import pytest
from samples import small_setting

from twophase.directions import PERTURBATIONS
from twophase.errors import BadInput
from twophase.models import MODELS
from twophase.perturbation import EVERY, check_setting, parse
from twophase.subject import setting_facts

WRITTEN = {
    "gaussian": ["gaussian", " gaussian() ", "gaussian(norm=parameters)", {"kind": "gaussian", "momentum": False}],
    "gaussian(include=head.*, norm=init)": [
        "gaussian(norm=init,include=head.*)",
        "gaussian( include = head.* , norm = init )",
        {"kind": "gaussian", "norm": "init", "include": ["head.*"]},
    ],
    "gaussian(exclude=*.bias|norms.[01].*, momentum=true)": [
        "gaussian(exclude=norms.[01].*|*.bias|*.bias, momentum=true, include=*|head.*)",
        {"kind": "gaussian", "exclude": ["*.bias", "norms.[01].*"], "momentum": "true"},
    ],
    "sparse": ["sparse(fraction=1e-2)", {"kind": "sparse", "fraction": 0.01}],
    "sparse(fraction=0.333333)": ["sparse(fraction=0.33333333)", {"kind": "sparse", "fraction": 1 / 3}],
    "layerwise": ["layerwise(norm=pushed)"],
    "layerwise(norm=parameters)": ["layerwise(norm=parameters)"],
}


@pytest.mark.parametrize("text", WRITTEN)
def test_the_canonical_form(text):
    for raw in [text, *WRITTEN[text]]:
        assert parse(raw).text == text
        assert parse(raw) == parse(text)


@pytest.mark.parametrize("kind", PERTURBATIONS)
def test_every_kind_goes_with_every_model(kind):
    asked = parse(kind)
    assert asked.text == kind
    assert (asked.include, asked.exclude, asked.momentum) == (EVERY, (), False)
    for model in MODELS:
        setting = small_setting(model)
        facts = setting_facts(setting)
        says = set(facts.draws) == set(facts.sizes)
        assert says or model == "custom"
        for text in (kind, f"{kind}(exclude={next(iter(facts.sizes))})"):
            with nullcontext() if says or kind != "init_scaled" else pytest.raises(BadInput, match="doesn't say of"):
                check_setting(text, setting)


def test_magnitudes_mean_something_but_to_an_ulp():
    assert not parse("ulp").has_magnitude
    assert parse("gaussian").has_magnitude
    assert not parse("gaussian_absolute").is_relative
    assert not parse("gaussian(norm=absolute)").is_relative
    assert parse("gaussian(norm=init)").is_relative


@pytest.mark.parametrize("raw", ["gaussian(norm=init))", "(norm=init)", "gaussian norm=init", "", 5, None, ["a"]])
def test_what_is_no_perturbation(raw):
    with pytest.raises(BadInput, match="perturbation"):
        parse(raw)
