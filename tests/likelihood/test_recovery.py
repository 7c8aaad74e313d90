"""Sources that were put into a survey come back, as near as their errors say and no nearer."""

from pathlib import Path

import numpy as np
import pytest

import fpgpu
from tests.likelihood.injected import (
    BANDS,
    Fit,
    draw_pairs,
    nearby,
    pair_alone,
    smooth_mixture,
    write_survey,
)


@pytest.mark.timeout(1200)
def test_pulls_of_fluxes_have_no_mean_and_a_width_of_one(tmp_path: Path, long_form: bool) -> None:
    n_pairs, most_mean, most_width = (500, 0.1, 0.07) if long_form else (20, 0.45, 0.3)
    rng, mixture = np.random.default_rng(1), smooth_mixture()
    truth = draw_pairs(rng, n_pairs)
    write_survey(tmp_path, truth, mixture, rng)
    start = nearby(truth, rng)
    pulls, are_counted = [], []
    with fpgpu.open(tmp_path, backend="cpu") as survey:
        for rows in (slice(k, k + 2) for k in range(0, 2 * n_pairs, 2)):
            with pair_alone(survey, truth, start, rows, mixture) as patch:
                fit = Fit(patch, mixture, start[rows])
                values, covariance = fit.run()
                true = fit.values_of(truth[rows])
                (best, at_truth), _ = fit.evaluate(np.stack([values.ravel(), true.ravel()]))
            assert best < at_truth, f"pair at row {rows.start}: the fit ended elsewhere"
            errors = np.sqrt(np.diag(covariance)).reshape(values.shape)
            fluxes = slice(len(BANDS))
            pulls.append(((values - true) / errors)[:, fluxes])
            # By the truth: by what was found, sources would be chosen by their noise.
            are_free = np.minimum(true - fit.low, fit.high - true) > 3 * errors
            are_bright = (true > 20 * errors)[:, fluxes]
            are_counted.append(are_bright & are_free.all(axis=1, keepdims=True))
    for band, found, counted in zip(
        BANDS, np.concatenate(pulls).T, np.concatenate(are_counted).T, strict=True
    ):
        assert counted.mean() > 0.9, "most are bright and away from bounds"
        assert abs(np.mean(found[counted])) < most_mean, band
        assert abs(np.std(found[counted]) - 1) < most_width, band
