"""What the Hub's /api/validate-yaml finds wrong with a model card, by its documentation.

Sources: hub-docs, modelcard.md (the fields) and repositories-licenses.md (the names of licences); the sentences are
worded as the Hub words its own.
"""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from huggingface_hub.repocard_data import model_index_to_eval_results

_LICENCES = """
    apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m
    afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5
    cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0
    cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0
    cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0
    lgpl lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c ms-pl apple-ascl apple-amlr mpl-2.0 odc-by odbl
    openmdw-1.0 openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr deepfloyd-if-license
    fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 grok2-community gemma unknown
    other
"""
LICENCES = frozenset(_LICENCES.split())

_PIPELINES = """
    text-to-3d image-to-3d unconditional-image-generation text-to-image image-to-image image-to-video text-to-video
    image-text-to-image image-text-to-video video-to-video depth-estimation image-classification object-detection
    image-segmentation image-feature-extraction mask-generation keypoint-detection zero-shot-image-classification
    zero-shot-object-detection video-classification image-to-text image-text-to-text visual-question-answering
    document-question-answering visual-document-retrieval video-text-to-text audio-text-to-text any-to-any
    text-classification token-classification table-question-answering question-answering zero-shot-classification
    translation summarization feature-extraction text-generation fill-mask sentence-similarity text-ranking
    text-to-speech text-to-audio automatic-speech-recognition audio-to-audio audio-classification
    voice-activity-detection tabular-classification tabular-regression time-series-forecasting reinforcement-learning
    robotics graph-ml other
"""
PIPELINES = frozenset(_PIPELINES.split())

NAME = r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9_])?"
LINK = r"https?://\S+|LICENSE(?:\.md|\.txt)?"


def front_matter(text: str) -> dict[str, Any] | None:
    """The values between the two lines of dashes that a card begins with; None without them.

    Raises:
        ValueError: if they are no YAML, or no table.
    """
    block = re.match(r"---[ ]*\r?\n(.*?)\r?\n---[ ]*(?:\r?\n|$)", text, re.DOTALL)
    if block is None:
        return None
    try:
        values = yaml.safe_load(block[1])
    except yaml.YAMLError as error:
        raise ValueError(f"invalid YAML metadata: {error}") from error
    if values is not None and not isinstance(values, dict):
        raise ValueError("invalid YAML metadata: it must be a table")
    return values or None


def validate_card(text: str) -> list[str]:
    """What is wrong with a model card, a sentence each; [] for one that the Hub takes."""
    try:
        values = front_matter(text)
    except ValueError as error:
        return [str(error)]
    if values is None:
        return []
    checks = (_texts, _licence, _pipeline, _base_model, _model_index)
    return [error for check in checks for error in check(values)]


def warnings_of_card(text: str) -> list[str]:
    """What the Hub takes, but thinks a pity."""
    try:
        return [] if front_matter(text) else ["empty or missing yaml metadata in repo card"]
    except ValueError:
        return []


def _texts(card: Mapping[str, Any]) -> Iterator[str]:
    """Fields that are one text, and fields that are texts."""
    if "library_name" in card and not isinstance(card["library_name"], str):
        yield '"library_name" must be a string'
    for name in ("tags", "datasets", "metrics"):
        if not all(isinstance(entry, str) for entry in _listed(card.get(name))):
            yield f'"{name}" must be an array of strings'


def _licence(card: Mapping[str, Any]) -> Iterator[str]:
    licences = _listed(card.get("license"))
    for licence in licences:
        if licence not in LICENCES:
            yield f'"license" must be one of the licenses of the Hub, {licence!r} is none'
    name, link = card.get("license_name"), card.get("license_link")
    if "other" in licences and not name:
        yield '"license_name" is required if "license" is "other"'
    if "other" in licences and not link:
        yield '"license_link" is required if "license" is "other"'
    if name and not re.fullmatch(r"[a-z0-9.-]+", str(name)):
        yield f'"license_name" with value {name!r} fails to match the required pattern: /^[a-z0-9-.]+$/'
    if link and not re.fullmatch(LINK, str(link)):
        yield '"license_link" must be an address or one of [LICENSE, LICENSE.md]'


def _pipeline(card: Mapping[str, Any]) -> Iterator[str]:
    tag = card.get("pipeline_tag")
    if tag is not None and tag not in PIPELINES:
        yield f'"pipeline_tag" must be one of the tasks of the Hub, {tag!r} is none'


def _base_model(card: Mapping[str, Any]) -> Iterator[str]:
    for base in _listed(card.get("base_model")):
        if not isinstance(base, str) or not re.fullmatch(f"(?:{NAME}/)?{NAME}", base):
            yield f'"base_model" with value {base!r} is not valid. Use a model id from https://hf.co/models.'
    if card.get("base_model_relation", "adapter") not in ("adapter", "finetune", "merge", "quantized"):
        yield '"base_model_relation" must be one of [adapter, finetune, merge, quantized]'


def _model_index(card: Mapping[str, Any]) -> Iterator[str]:
    """The two ends of it: the shape that the client reads back, and values that are numbers or texts."""
    if "model-index" not in card:
        return
    try:
        name, results = model_index_to_eval_results(card["model-index"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        yield f'"model-index" is not well-formed: {error!r}'
        return
    if not isinstance(name, str):
        yield '"model-index[0].name" must be a string'
    for i, result in enumerate(results):
        texts = (result.task_type, result.dataset_type, result.dataset_name, result.metric_type)
        if not all(isinstance(text, str) and text for text in texts):
            yield f'"model-index[0].results[{i}]" needs texts for the types of task, dataset and metric'
        value = result.metric_value
        if not isinstance(value, int | float | str) or value in (math.inf, -math.inf) or value != value:
            yield f'"model-index[0].results[{i}].metrics.value" must be a number or a string, not {value!r}'


def _listed(value: Any) -> list[Any]:
    """A field that may hold one or several."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
