"""A diffusion model as a scikit-learn estimator (extra ``sklearn``).

from diffcls.sklearn import DiffusionClassifier
cross_val_score(DiffusionClassifier(image_shape=(28, 28)), X, y)
"""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .classifier import Classifier, Progress
from .denoiser import Denoiser
from .errors import DTypeError, InputError, MissingExtraError, ShapeError
from .models.registry import load
from .policies import Policy
from .prompts import Templates
from .result import Floats, Result, logits
from .results import Results
from .schedule import Schedule
from .temperature import Calibration, fit_temperature

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d, validate_data
except ImportError:
    raise MissingExtraError("diffcls.sklearn needs scikit-learn 1.6 or newer: pip install 'diffcls[sklearn]'") from None


__all__ = ["DiffusionClassifier", "gaussian_denoiser"]


class DiffusionClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Classifier by the lowest conditional denoising error, with scikit-learn's manners.

    The model is trained already, so `fit` learns little: which classes occur in `y`, what the model is to be asked for each
    of them and, with ``temperature="fit"``, the temperature of the probabilities.  Only a factory is trained by `fit`.

    Parameters
    ----------
    model : None, str, Denoiser or function
        A name or a `Denoiser`, as in `classify`.  A function (or a class, or a partial) is a factory: `fit` calls
        ``model(X, y)``, `y` being positions in `classes_`, and it returns a `Denoiser` whose class k is ``classes_[k]``.
        None: the embedded model for pictures, `gaussian_denoiser` for a table of features.
    prompts : None or mapping of label to prompt, class id or a list of those
        What to ask the model for each label of `y`.  None: the labels themselves, text as prompts and integers as class ids.
    image_shape : tuple of int or None
        `X` is a table of pixels, (N, n_pixels), and its rows are pictures of this shape.  None: `X` has either pictures (a
        list of paths, PIL images or arrays; an array (N, H, W) or (N, H, W, C)), or rows of features.
    temperature : None, float, Calibration or "fit"
        "fit": of greatest likelihood on the pictures given to `fit`, which costs their classification.  They are held out
        for a model that is trained already; a factory's model has seen them, so calibrate that one by scikit-learn's
        ``CalibratedClassifierCV``.
    bias : bool
        With ``temperature="fit"``: a bias for each class too.
    priors : None, (K,) array in the order of `classes_`, or mapping of label to number
    policy, templates, pool, loss, weighting, noise, seed, batch_size, device, dtype, progress
        As in `classify`.

    Attributes
    ----------
    classes_ : (K,) array
        Labels that occur in `y`, sorted.
    denoiser_ : Denoiser
    classifier_ : Classifier
    calibration_ : Calibration or None
        What ``temperature="fit"`` found.
    n_features_in_, feature_names_in_
        Of a table.
    """

    def __init__(
        self,
        model: Any = None,
        prompts: Mapping[Any, Any] | None = None,
        *,
        image_shape: tuple[int, ...] | None = None,
        policy: Policy | None = None,
        templates: Templates = None,
        pool: str = "min",
        loss: str = "l2",
        weighting: Any = None,
        priors: Any = None,
        temperature: Any = None,
        bias: bool = False,
        noise: Any = None,
        seed: int = 0,
        batch_size: int | None = None,
        device: Any = None,
        dtype: Any = None,
        progress: Progress = None,
    ) -> None:
        self.model = model
        self.prompts = prompts
        self.image_shape = image_shape
        self.policy = policy
        self.templates = templates
        self.pool = pool
        self.loss = loss
        self.weighting = weighting
        self.priors = priors
        self.temperature = temperature
        self.bias = bias
        self.noise = noise
        self.seed = seed
        self.batch_size = batch_size
        self.device = device
        self.dtype = dtype
        self.progress = progress

    def fit(self, X: Any, y: Any) -> DiffusionClassifier:
        """Settle classes, prompts and, where asked for, the temperature.

        Parameters
        ----------
        X : pictures or (N, n_features) array
        y : (N,) array of labels

        Returns
        -------
        DiffusionClassifier
            Itself.

        Raises
        ------
        ValueError
            A label that the model does not know and `prompts` does not explain; pictures that the model does not take.
        """
        X, y = self._check(X, y)
        check_classification_targets(y)
        self.classes_, position = np.unique(y, return_inverse=True)
        fits = isinstance(self.temperature, str)
        if fits and self.temperature != "fit":
            raise InputError(f"temperature is {self.temperature!r}, must be a number, a Calibration or 'fit'")
        if self.bias and not fits:
            raise InputError("bias is fitted with temperature='fit' only")
        self.denoiser_, prompts = self._make_denoiser(X, position.astype(np.int64))
        self.classifier_ = self._make_classifier(prompts, None if fits else self.temperature)
        self.calibration_ = self._fit_temperature(X, position) if fits else None
        if self.calibration_ is not None:
            self.classifier_ = self._make_classifier(prompts, self.calibration_)
        self.classifier_.encode(self._x_starts(X[:1])[0], 0)  # pictures of the wrong kind are told now, not at predict
        return self

    def classify(self, X: Any) -> Results:
        """Everything that is known of each picture: losses, evaluations spent, `Result` by `Result`.

        Parameters
        ----------
        X : pictures or (N, n_features) array
            As of `fit`.

        Returns
        -------
        Results

        Raises
        ------
        ValueError, TypeError
            `fit` was not called (scikit-learn's NotFittedError), or pictures that the model does not take.
        """
        check_is_fitted(self)
        X, _ = self._check(X)
        results = self.classifier_(list(self._x_starts(X)))
        assert not isinstance(results, Result)
        return results

    def decision_function(self, X: Any) -> Floats:
        """``log prior - excess / temperature``.

        Parameters
        ----------
        X : pictures or (N, n_features) array
            As of `fit`.

        Returns
        -------
        (N, K) float64, or (N,)
            Columns in the order of `classes_`; with two classes the second less the first.

        Raises
        ------
        ValueError, TypeError
            `fit` was not called (scikit-learn's NotFittedError), or pictures that the model does not take.
        """
        scores = self._scores(X)
        return scores[:, 1] - scores[:, 0] if scores.shape[1] == 2 else scores

    def predict_proba(self, X: Any) -> Floats:
        """The softmax of `decision_function`.

        Parameters
        ----------
        X : pictures or (N, n_features) array
            As of `fit`.

        Returns
        -------
        (N, K) float64
            Columns in the order of `classes_`.

        Raises
        ------
        ValueError, TypeError
            `fit` was not called (scikit-learn's NotFittedError), or pictures that the model does not take.
        """
        return self.classify(X).probabilities

    def predict(self, X: Any) -> NDArray[Any]:
        """The most probable label of each picture: the race's winner unless priors or biases say otherwise.

        Parameters
        ----------
        X : pictures or (N, n_features) array
            As of `fit`.

        Returns
        -------
        (N,) array
            Of the dtype of `classes_`.

        Raises
        ------
        ValueError, TypeError
            `fit` was not called (scikit-learn's NotFittedError), or pictures that the model does not take.
        """
        best = self._scores(X).argmax(axis=1)
        return np.asarray(self.classes_[best])

    # ---- below the surface -------------------------------------------------------------------------------------------

    def _check(self, X: Any, *y: Any) -> tuple[Any, Any]:
        """(X, y) as scikit-learn checks them: a table, or a list of pictures.  After a table nothing else is taken."""
        if not self._is_table(X) and (y or not hasattr(self, "n_features_in_")):
            if y:
                if y[0] is None:
                    raise InputError("y is None, must have one label a picture")
                check_consistent_length(X, y[0])
                for name in ("n_features_in_", "feature_names_in_"):  # of an earlier fit
                    self.__dict__.pop(name, None)
            if len(X) == 0:
                raise InputError("X is empty, must have one picture or more")
            return list(X), column_or_1d(y[0], warn=True) if y else None
        kinds = "numeric" if self.image_shape is not None else (np.float64, np.float32)
        if y:
            X, labels = validate_data(self, X, y[0], dtype=kinds)
            return X, labels
        return validate_data(self, X, reset=False, dtype=kinds), None

    def _is_table(self, X: Any) -> bool:
        """Rows of numbers, or nothing that is known: scikit-learn says what is wrong with it."""
        if isinstance(X, (list, tuple)):
            return not X or not (_is_path_or_pil(X[0]) or np.ndim(X[0]) >= 2)
        shape: tuple[int, ...] = getattr(X, "shape", ())
        is_list = len(shape) == 1 and len(X) > 0
        return not (len(shape) >= 3 or (is_list and _is_path_or_pil(next(iter(X)))))

    def _make_denoiser(self, X: Any, position: NDArray[np.int64]) -> tuple[Denoiser, dict[str, Any]]:
        """The model, and what it is asked for each label."""
        model, labels = self.model, self.classes_.tolist()
        if model is None and isinstance(X, np.ndarray) and self.image_shape is None:
            model = gaussian_denoiser
        if not (
            inspect.isroutine(model) or isinstance(model, (type, partial))
        ):  # pipelines and modules are callable too
            return load(model), {str(label): self._prompt(label) for label in labels}
        if self.prompts is not None:
            raise InputError("prompts were given for a model that is made from the labels themselves")
        denoiser = model(X, position)
        if not isinstance(denoiser, Denoiser):
            raise DTypeError(f"model(X, y) returned {type(denoiser).__name__}, must return a diffcls.Denoiser")
        if denoiser.n_classes != len(self.classes_):
            raise InputError(f"model(X, y) knows {denoiser.n_classes} classes, y has {len(self.classes_)}")
        return denoiser, {str(label): k for k, label in enumerate(labels)}

    def _make_classifier(self, prompts: dict[str, Any], temperature: float | Calibration | None) -> Classifier:
        priors = self.priors
        if isinstance(priors, Mapping):
            priors = {str(label): number for label, number in priors.items()}
        return Classifier(
            self.denoiser_,
            prompts,
            policy=self.policy,
            templates=self.templates,
            pool=self.pool,
            loss=self.loss,
            weighting=self.weighting,
            priors=priors,
            temperature=temperature,
            noise=self.noise,
            seed=self.seed,
            batch_size=self.batch_size,
            device=self.device,
            dtype=self.dtype,
            progress=self.progress,
        )

    def _prompt(self, label: Any) -> Any:
        if self.prompts is None:
            return label
        if not isinstance(self.prompts, Mapping):
            raise DTypeError(f"prompts is {type(self.prompts).__name__}, must be a mapping of label to prompt")
        if label not in self.prompts:
            raise InputError(f"prompts has nothing for label {label!r} of y")
        return self.prompts[label]

    def _fit_temperature(self, X: Any, position: NDArray[np.int64]) -> Calibration | None:
        try:
            return fit_temperature(self.classifier_(list(self._x_starts(X))), position, bias=self.bias)
        except InputError as error:
            warnings.warn(f"{error}; the probabilities stay as they are", UserWarning, stacklevel=3)
            return None

    def _x_starts(self, X: Any) -> Any:
        """What the classifier is given for `X`, one a row."""
        if not isinstance(X, np.ndarray):
            return X
        shape = self.image_shape
        if shape is None:
            if self.denoiser_.encode is not None:
                return X
            shape = self.denoiser_.shape
        if X.shape[1] != np.prod(shape):
            raise ShapeError(f"X has {X.shape[1]} columns, pictures of shape {tuple(shape)} have {np.prod(shape)}")
        return X.reshape(len(X), *shape)

    def _scores(self, X: Any) -> Floats:
        excess = self.classify(X).excess
        return logits(excess, self.classifier_.log_prior, self.classifier_.temperature)


def _is_path_or_pil(item: Any) -> bool:
    return isinstance(item, (str, os.PathLike)) or type(item).__module__.startswith("PIL.")


# ---- a model for rows of features ------------------------------------------------------------------------------------

RIDGE = 1e-4
"""Added to the variances of standardised features, so that redundant ones do not divide by zero."""


def gaussian_denoiser(X: NDArray[Any], y: NDArray[np.int64]) -> Denoiser:
    """Classes are Gaussians with one covariance (linear discriminant analysis), and their denoiser a closed form.

    Features are whitened by the covariance within classes; there ``E[eps | x_t, k] = sigma (x_t - alpha mean_k)``, and the
    expected excess loss is ``mean_t(alpha^2 sigma^2) / d`` times the difference of the squared distances to the means.  Twice
    that factor is the temperature at which the softmax is the exact posterior.

    Parameters
    ----------
    X : (N, d) array
    y : (N,) int64
        0 to K - 1, each at least once.

    Returns
    -------
    Denoiser
        Its `encode` takes a row of `X`.
    """
    gaussians = _Gaussians(np.asarray(X, np.float64), y)
    schedule = gaussians.schedule
    denoiser = Denoiser(
        gaussians.predict,
        shape=(X.shape[1],),
        schedule=schedule,
        n_classes=len(gaussians.means),
        encode=gaussians.encode,
        name="class-conditional Gaussians",
    )
    denoiser.temperature = 2.0 * float(np.mean(schedule.alpha**2 * schedule.sigma**2)) / X.shape[1]
    return denoiser


class _Gaussians:
    def __init__(self, X: Floats, y: NDArray[np.int64]) -> None:
        self.schedule = Schedule.linear(1000)
        self.centre = X.mean(axis=0)
        scale = np.where(np.ptp(X, axis=0) > 0, X.std(axis=0), 1.0)
        standard = (X - self.centre) / scale
        means = np.stack([standard[y == k].mean(axis=0) for k in range(y.max() + 1)])
        within = standard - means[y]
        variances, axes = np.linalg.eigh(within.T @ within / len(X))
        whiten = axes / np.sqrt(np.maximum(variances, 0.0) + RIDGE)
        self.whiten = whiten / scale[:, None]
        self.means = (means @ whiten).astype(np.float32)

    def encode(self, row: NDArray[Any]) -> NDArray[np.float32]:
        return np.asarray((row - self.centre) @ self.whiten, np.float32)

    def predict(self, x_t: NDArray[np.float32], t: NDArray[np.int64], cond: NDArray[np.int64]) -> NDArray[np.float32]:
        alpha, sigma = self.schedule.alpha[t, None], self.schedule.sigma[t, None]
        return np.asarray(sigma * (x_t - alpha * self.means[cond]), np.float32)
