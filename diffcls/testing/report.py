"""What `check_denoiser` found."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes
    ----------
    name : str
        Such as "prediction_type": see `check_denoiser`.
    seen : str
        What was observed, with numbers.
    advice : str
        What to do.
    """

    name: str
    """Such as "prediction_type": see `check_denoiser`."""
    seen: str
    """What was observed, with numbers."""
    advice: str
    """What to do."""

    def __str__(self) -> str:
        return f"{self.name}: {self.seen}\n    {self.advice}"


@dataclass
class DenoiserReport:
    """Findings of one denoiser; ``print(report)`` is for people.

    Attributes
    ----------
    denoiser : str
        Its name.
    findings : list of Finding
    passed : list of str
        Checks that found nothing.
    skipped : dict of str to str
        Checks that were not made, and why.
    n_evals : int
        Denoiser evaluations spent.
    """

    denoiser: str
    findings: list[Finding] = field(default_factory=list)
    passed: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    n_evals: int = 0

    @property
    def ok(self) -> bool:
        """Nothing was found; what was skipped is not known."""
        return not self.findings

    def __str__(self) -> str:
        verdict = "nothing wrong was found" if self.ok else f"{len(self.findings)} found to be wrong"
        lines = [f"{self.denoiser}: {verdict} ({self.n_evals} evaluations)"]
        lines += [f"  {line}" for finding in self.findings for line in str(finding).splitlines()]
        lines += [f"  passed: {', '.join(self.passed)}"] if self.passed else []
        lines += [f"  not checked: {name}, {why}" for name, why in self.skipped.items()]
        return "\n".join(lines)

    def add(self, name: str, finding: Finding | None) -> None:
        """Keep a check's outcome.

        Parameters
        ----------
        name : str
            The check's.
        finding : Finding or None
            None: the check passed.
        """
        if finding is None:
            self.passed.append(name)
        else:
            self.findings.append(finding)
