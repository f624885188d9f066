"""The report of a validation as one HTML page with plots, readable without a network."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from qexport.errors import OptionError
from qexport.validation.report import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {"top-1": "#1d4ed8", "same": "#94a3b8", "ties": "#f59e0b", "propagated": "#94a3b8", "unexplained": "#b91c1c"}
ROW_INCHES = 0.24
PLOT_INCHES = 9.5


def html_report(report: Report) -> str:
    """The page; styles and plots (SVG) are inside.

    Raises:
        OptionError: Jinja2 or matplotlib is not installed.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
        from markupsafe import Markup
        from matplotlib import rc_context
    except ImportError as error:
        raise OptionError(
            "the HTML report needs more packages",
            where="--html",
            got=f"no {error.name}",
            expected="Jinja2 and matplotlib",
            remedy="pip install 'qexport[html]'",
        ) from error
    # Equal reports give equal pages: matplotlib names its clip paths with this salt instead of a random one.
    with rc_context({"svg.hashsalt": "qexport", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        plots = {
            "levels": Markup(_levels(report)),
            "codes": Markup(_codes(report) if any(layer.differing for layer in report.layers) else ""),
            "fixed_points": Markup(_fixed_points(report) if report.fixed_points else ""),
        }
    environment = Environment(
        loader=PackageLoader("qexport.validation"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["percent"] = lambda value: "-" if value is None else f"{value:.2f} %"
    return environment.get_template("report.html.j2").render(report=report, plots=plots)


def _figure(rows: int) -> tuple[Figure, Axes]:
    """A figure with one horizontal bar a row, the first on top."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(PLOT_INCHES, 0.9 + ROW_INCHES * rows), layout="constrained")
    axes = figure.subplots()
    axes.invert_yaxis()
    return figure, axes


def _svg(figure: Figure) -> str:
    """The figure as an SVG element, without the XML prologue and the date."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]


def _levels(report: Report) -> str:
    """Accuracy and agreement of every level."""
    figure, axes = _figure(2 * len(report.levels))
    place = np.arange(len(report.levels))
    if report.labelled:
        figures = [level.mean_ap.voc if level.mean_ap else level.top1 or 0.0 for level in report.levels]
        name = "mAP@0.5" if report.detects else "top-1"
        axes.barh(place - 0.2, figures, 0.36, color=COLOURS["top-1"], label=name)
    what = "boxes" if report.detects else "prediction"
    same = [level.agreement_frozen or 0.0 for level in report.levels]
    axes.barh(place + 0.2, same, 0.36, color=COLOURS["same"], label=f"same {what} as the frozen network")
    axes.set_yticks(place, [level.name for level in report.levels])
    axes.set_xlim(0, 100)
    axes.set_xlabel("percent" if report.detects else "percent of images")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.2), ncols=2, frameon=False)
    return _svg(figure)


def _codes(report: Report) -> str:
    """Differing codes of every quantizer by cause."""
    figure, axes = _figure(len(report.layers))
    names = [layer.name for layer in report.layers]
    left = np.zeros(len(names))
    for cause in ("ties", "propagated", "unexplained"):
        share = np.array([100.0 * getattr(layer, cause) / max(1, layer.codes) for layer in report.layers])
        axes.barh(names, share, 0.7, left=left, color=COLOURS[cause], label=cause)
        left += share
    axes.set_xlim(0, max(left.max() * 1.05, 0.01))
    axes.set_xlabel("percent of codes that differ")
    axes.legend(frameon=False, loc="lower right")
    return _svg(figure)


def _fixed_points(report: Report) -> str:
    """Largest error of every fixed-point tensor as a share of its proven bound."""
    figure, axes = _figure(len(report.fixed_points))
    names = [point.name for point in report.fixed_points]
    shares = [100.0 * point.largest_error / point.bound if point.bound else 0.0 for point in report.fixed_points]
    colours = [COLOURS["unexplained" if point.unexplained else "same"] for point in report.fixed_points]
    axes.barh(names, shares, 0.7, color=colours)
    axes.axvline(100.0, color="black", linewidth=0.8)
    axes.set_xlabel("largest error, percent of the proven bound")
    return _svg(figure)
