"""The contracts that every backbone and every scorer keeps, as checks that their authors run.

from distill3d.testing import check_renderer

def test_my_backbone_keeps_the_contract():
    check_renderer(load_mine())
"""

from distill3d.testing.contract import Check, ContractError, Report
from distill3d.testing.renderer import check_renderer
from distill3d.testing.scorer import check_scorer

__all__ = ["Check", "ContractError", "Report", "check_renderer", "check_scorer"]
