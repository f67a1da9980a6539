"""The paper's data sets (Li et al., ICCV 2023) as their authors give them out: layouts, classes, words for prompts, counts.

::

    pets = diffcls.datasets.load("pets", "where/the/files/are")
    classifier = diffcls.Classifier(model, pets.prompts, **pets.options())
    diffcls.evaluate(classifier, pets.source, out="pets-results")

Nothing is downloaded: a folder without the files is answered by what is missing and where it is to be had.
"""

from __future__ import annotations

from .catalogue import Dataset, load, names
from .winoground import load_winoground

__all__ = ["Dataset", "load", "load_winoground", "names"]
