"""The stand-in Hub finds in cards what the Hub documents as wrong."""

import pytest
from huggingface_hub import ModelCardData

from tests.packs.fakehub import validate_card

INDEX = (
    "model-index:\n- name: m\n  results:\n  - task: {type: text-to-3d}\n    dataset: {type: a, name: b}\n    metrics:\n"
)


@pytest.mark.parametrize(
    ("field", "fault"),
    [
        ("license: mine", '"license" must be'),
        ("license: other\nlicense_link: LICENSE", '"license_name" is required'),
        ("license: other\nlicense_name: mine", '"license_link" is required'),
        ("license: other\nlicense_name: My Own\nlicense_link: LICENSE", '"license_name" with value'),
        ("license: other\nlicense_name: mine\nlicense_link: ask me", '"license_link" must be'),
        ("pipeline_tag: styling", '"pipeline_tag" must be'),
        ("base_model: /home/me/weights", '"base_model" with value'),
        ("base_model: [a/b, a b]", '"base_model" with value'),
        ("base_model_relation: child", '"base_model_relation" must be'),
        ("tags: [1]", '"tags" must be'),
        ("library_name: [distill3d]", '"library_name" must be'),
        ("model-index: []", '"model-index" is not'),
        ("model-index:\n- name: m\n  results:\n  - task: {type: x}", '"model-index" is not'),
        (INDEX + "    - {type: id, value: .nan}", "metrics.value"),
        (INDEX + "    - {type: id, value: [1]}", "metrics.value"),
        ("a: [", "invalid YAML"),
        ("- a", "invalid YAML"),
    ],
)
def test_a_field_of_a_card_that_is_wrong_is_the_only_one_that_is_said(field, fault):
    (said,) = validate_card(f"---\n{field}\n---\n# x")
    assert fault in said


def test_cards_as_the_client_writes_them_are_right():
    data = ModelCardData(
        license="other", license_name="a-b.1", license_link="https://a.b/c", base_model=["a/b", "gpt2"]
    )
    assert validate_card(f"---\n{data.to_yaml()}\n---\n") == []
    assert validate_card(f"---\n{INDEX}    - {{type: id, value: 0.5}}\n---\n") == []
    assert validate_card("no front matter") == []
