"""Errors a user can meet. Every message says what happened, where, what was found and expected, and the remedy."""

from __future__ import annotations


class QExportError(Exception):
    """Base of every error qexport raises on purpose.

    Args:
        what: one sentence, what went wrong.
        where: the file, layer, tensor or option concerned.
        got: what was found there.
        expected: what would have been right.
        remedy: what the user can do about it.
    """

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        got: object = None,
        expected: object = None,
        remedy: str | None = None,
    ) -> None:
        self.what = what
        self.where = where
        self.got = got
        self.expected = expected
        self.remedy = remedy
        lines = [what if where is None else f"{where}: {what}"]
        if got is not None:
            lines.append(f"  got:      {got}")
        if expected is not None:
            lines.append(f"  expected: {expected}")
        if remedy is not None:
            lines.append(f"  remedy:   {remedy}")
        super().__init__("\n".join(lines))


class CheckpointError(QExportError):
    """The checkpoint file is unreadable, unsafe, or does not fit the network it is loaded into."""


class FreezeError(QExportError):
    """A quantizer is no scalar monotone step function, or a weight tensor cannot become integer levels."""


class UnsupportedOperatorError(QExportError):
    """The network uses an operator, or an operator setting, that has no integer form here."""


class GraphError(QExportError):
    """An IR graph breaks a rule of the verifier; always a bug of qexport, never of the user."""


class AccumulatorError(QExportError):
    """A proven bound leaves int32: the integer network could overflow, so it is not written."""


class OptionError(QExportError):
    """An option does not fit the checkpoint, or two options contradict each other."""


class DataError(QExportError):
    """Images or labels are missing, empty, or of the wrong shape or type."""


class ArtifactError(QExportError):
    """An artifact cannot be read, is not what its name says, or breaks a promise (such as integer only)."""


class OutputError(QExportError):
    """The output directory or file cannot be written; nothing partial was left behind."""


class ProofError(QExportError):
    """A folded threshold disagrees with the exact real chain it stands for; the artifact is not written."""
