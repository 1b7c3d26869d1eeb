"""Logistic regression fitted to convergence: Newton's method on the penalised log loss.

Minimises  mean_i [log(1 + exp(z_i)) - y_i z_i] + l2/2 |w|^2,  z = x w + b, in float64; the intercept b bears no
penalty. It is scikit-learn's `LogisticRegression(C=1/(n*l2))`. Each step solves the normal equations by Cholesky
(O(n d^2 + d^3); about six steps) and is halved until the loss falls, which makes the method converge from anywhere
(Boyd and Vandenberghe, Convex Optimization, 9.5). Where all labels are of one class the intercept has no finite
optimum; it stops where the gradient is below the tolerance.
"""

import numpy as np
import torch
from torch.nn.functional import softplus

from fedcore.learner import PLAIN, Arrays, Encoded, Fit, Objective, Setting, TrainingError, refuse_objective

GRADIENT_TOLERANCE = 1e-9
STEPS = 100
HALVINGS = 40


class NewtonLearner:
    """Fits `weight` [1, d] and `bias` [1] of a linear model of the encoded array `x` float32 [n, d].

    The setting holds `l2`. Where a fit starts does not matter, so nothing here is random.

    Args:
        features: d.
        setting: the hyperparameters.
    """

    def __init__(self, features: int, setting: Setting) -> None:
        self._features = features
        self._l2 = float(setting["l2"])

    def initial(self, seed: int) -> Arrays:
        """Zeros."""
        return {"weight": np.zeros((1, self._features)), "bias": np.zeros(1)}

    def fit(
        self,
        arrays: Arrays,
        encoded: Encoded,
        label: np.ndarray,
        seed: int,
        memory: Arrays,
        objective: Objective = PLAIN,
    ) -> Fit:
        """Solve for the optimum; see `fedcore.learner.Learner`."""
        refuse_objective(objective, "Newton's method")
        x = torch.from_numpy(np.asarray(encoded["x"], dtype=np.float64))
        n = len(x)
        design = torch.cat([x, torch.ones(n, 1, dtype=torch.float64)], dim=1)
        y = torch.from_numpy(label.astype(np.float64))
        penalty = torch.full((self._features + 1,), self._l2, dtype=torch.float64)
        penalty[-1] = 0.0
        w = torch.from_numpy(np.concatenate([np.ravel(arrays["weight"]), np.ravel(arrays["bias"])]).astype(np.float64))
        penalised, data_loss, z = _penalised(design, y, penalty, w)
        for _ in range(STEPS):
            p = torch.sigmoid(z)
            gradient = design.T @ (p - y) / n + penalty * w
            if not torch.isfinite(gradient).all():
                raise TrainingError(
                    "the training loss is not a number; expected finite encoded samples; look at their largest values"
                )
            if float(gradient.abs().max()) < GRADIENT_TOLERANCE:
                break
            hessian = design.T @ (design * (p * (1 - p) / n)[:, None])
            hessian.diagonal().add_(penalty + 1e-12)
            step = torch.cholesky_solve(gradient[:, None], torch.linalg.cholesky(hessian))[:, 0]
            size = 1.0
            for _ in range(HALVINGS):
                tried = _penalised(design, y, penalty, w - size * step)
                if float(tried[0]) <= float(penalised):
                    break
                size /= 2
            else:
                break  # the loss is at its minimum to the last bit
            w = w - size * step
            penalised, data_loss, z = tried
        weights = w.numpy()
        return Fit({"weight": weights[None, :-1].copy(), "bias": weights[-1:].copy()}, float(data_loss))

    def predict(self, arrays: Arrays, encoded: Encoded) -> np.ndarray:
        """Probabilities in float64."""
        x = torch.from_numpy(np.asarray(encoded["x"], dtype=np.float64))
        weight = torch.from_numpy(np.ravel(arrays["weight"]).astype(np.float64))
        return torch.sigmoid(x @ weight + float(arrays["bias"][0])).numpy()


def _penalised(
    design: torch.Tensor, y: torch.Tensor, penalty: torch.Tensor, w: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The penalised loss, the loss alone, and the logits."""
    z = design @ w
    data_loss = (softplus(z) - y * z).mean()
    return data_loss + 0.5 * (penalty * w * w).sum(), data_loss, z
