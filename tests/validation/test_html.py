"""The HTML page of a validation: complete, self-contained, well-formed."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from qexport.validation.html import html_report
from qexport.validation.report import ArtifactResult, FixedPointResult, LayerResult, LevelResult, Report

REPORT = Report(
    images=1234,
    labelled=True,
    levels=[
        LevelResult("float", 91.0, None, None, 97.5, 0.25),
        LevelResult("frozen", 90.5, None, 97.5, 100.0),
        LevelResult("integer", 90.0, None, 99.0, 99.0, 0.75),
    ],
    layers=[LayerResult("layer<1>", 1000, 7, 4, 3, 0, 1e-4, 5e-5)],
    fixed_points=[FixedPointResult("add", 2.0**-12, 16, 1e-4, 2e-4, 0, 3, 60.5, 0.999)],
    artifacts=[ArtifactResult("model.onnx", True, 12, 64, 1234, {}, ["optimized"])],
    changed=[("cat", "dog & fox", 2)],
    proof={},
)


def test_a_page_says_what_the_report_says() -> None:
    page = html_report(REPORT)
    assert "PASS" in page and "1,234" in page and "97.50 %" in page and "0.75" in page
    assert "layer&lt;1&gt;" in page and "dog &amp; fox" in page
    assert page == html_report(REPORT)


def test_a_failure_names_its_reasons() -> None:
    page = html_report(replace(REPORT, failures=["add: 3 fixed-point values lie beyond their bound"]))
    assert "FAIL" in page and "PASS" not in page and "3 fixed-point values" in page


def test_nothing_is_loaded_from_elsewhere() -> None:
    page = html_report(REPORT)
    assert not re.search(r"""(src|href)=["'](?!#)""", page.replace('xlink:href="#', ""))
    assert not re.search(r"url\((?!#)", page)


@pytest.mark.parametrize(
    "report",
    [
        REPORT,
        replace(REPORT, layers=[], fixed_points=[], changed=[]),
        replace(REPORT, layers=[replace(REPORT.layers[0], differing=0, ties=0, propagated=0)]),
        replace(REPORT, labelled=False),
    ],
    ids=["whole", "no layers", "equal codes", "no labels"],
)
def test_plots_are_well_formed(report: Report) -> None:
    plots = re.findall(r"<svg.*?</svg>", html_report(report), re.DOTALL)
    assert len(plots) == 1 + any(layer.differing for layer in report.layers) + bool(report.fixed_points)
    for plot in plots:
        ET.fromstring(plot)
