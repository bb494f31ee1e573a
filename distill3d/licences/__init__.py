"""What the parts of a run may be used for."""

from distill3d.licences.known import (
    LICENCES,
    MODELS,
    UNKNOWN,
    Licence,
    known_licence,
    licence_of,
    licence_of_model,
    source_of,
)
from distill3d.licences.metrics import parts_of_metric
from distill3d.licences.part import EMBEDDED, Part
from distill3d.licences.verdict import (
    PackLicence,
    check_commercial,
    commercial_use,
    is_open,
    licence_in_words,
    not_open,
    pack_licence,
    verdict,
)
from distill3d.licences.written import JUDGES, parts_of_run, parts_to_json, with_parts

__all__ = [
    "EMBEDDED",
    "JUDGES",
    "LICENCES",
    "MODELS",
    "UNKNOWN",
    "Licence",
    "PackLicence",
    "Part",
    "check_commercial",
    "commercial_use",
    "is_open",
    "known_licence",
    "licence_in_words",
    "licence_of",
    "licence_of_model",
    "not_open",
    "pack_licence",
    "parts_of_metric",
    "parts_of_run",
    "parts_to_json",
    "source_of",
    "verdict",
    "with_parts",
]
