"""Inverse uncertainties, from whatever an exposure says about its noise.

``err`` is the standard deviation, or what its card UTYPE says, as `astropy.nddata.CCDData.write`
leaves it: the variance, or the inverse variance. ``wht`` is either the inverse variance (``ivm``)
or an exposure time (``exptime``), which gives noise only up to a factor: the variance of the sky in
an image of exposure time t goes as 1/t, and the factor is measured from the image itself, as the
squared median absolute deviation of ``image * sqrt(wht)``. To it comes, in images of electrons, the
Poisson noise of the light of the sources.

Drizzling correlates the noise of neighbours and makes it look smaller than it is in sums; a factor
on the uncertainties (``err_scale``) can make up for it (Casertano et al. 2000, AJ 120, 2747,
appendix A).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fpgpu.errors import UnusableExposureError
from fpgpu.ingest.exposure import inverse_of
from fpgpu.ingest.fitsfile import FitsImage
from fpgpu.ingest.frame import EXTENSIONS, Frame
from fpgpu.ingest.tiles import Box

__all__ = ["Weigher"]

# Rows that are looked at to measure the noise of the sky, and pixels at most.
_ROWS, _SAMPLE = 256, 1 << 20
# What UTYPE calls what is no standard deviation.
_UTYPES = {"VARIANCEUNCERTAINTY": "variance", "INVERSEVARIANCE": "ivm"}
_POWERS = {"err": 1, "variance": 2, "ivm": -2, "exptime": 0}

_WORDS = {"variance": "variance", "ivm": "inverse variance", "exptime": "exposure time"}

_MAD_TO_SIGMA = 1.482602218505602


@dataclass
class Weigher:
    """Gives the inverse uncertainties of an image, part by part.

    Attributes
    ----------
    kind : str
        ``"err"``, ``"variance"``, ``"ivm"`` or ``"exptime"``.
    noise : FitsImage
        The image of errors or weights.
    wht : FitsImage or None
        Weights: where they are zero, there are no data.
    scale : float
        Factor on the uncertainties.
    unit : float
        The unit in which they are in the file, in that of the image.
    sky : float
        For ``exptime``, the variance of the sky times the exposure time.
    poisson : float
        For ``exptime``, the variance times the exposure time that one unit of flux adds.
    """

    kind: str
    noise: FitsImage
    wht: FitsImage | None = None
    scale: float = 1.0
    unit: float = 1.0
    sky: float = 0.0
    poisson: float = 0.0

    @classmethod
    def choose(cls, frame: Frame) -> "Weigher":
        """Choose what uncertainties come from."""
        layers, kind = frame.layers, frame.options.weight
        if kind == "auto":
            kind = "err" if "err" in layers or "wht" not in layers else frame.weights_are
        role = "err" if kind == "err" else "wht"
        if role not in layers:
            raise UnusableExposureError(
                f"{frame.path}: has no extension {EXTENSIONS[role]} (found "
                f"{frame.file.content()}); an exposure without uncertainties cannot be fitted; if "
                f"another extension or file holds them, name it (--{role})"
            )
        if role == "err":
            stated = str(layers[role].header.get("UTYPE", "")).strip().upper()
            kind = _UTYPES.get(stated, kind)
        return cls(kind, layers[role], layers.get("wht"), frame.options.err_scale)

    @property
    def power(self) -> int:
        """Power of the standard deviation that the image of noise has; 0 for exposure times."""
        return _POWERS[self.kind]

    def measure_sky(self, science: FitsImage, electrons: float | None) -> None:
        """Measure the noise of the sky, which an exposure time does not say."""
        if self.kind != "exptime":
            return
        scaled = []
        n_rows = max(1, min(_ROWS, _SAMPLE // science.shape[0]))
        for row in np.unique(np.linspace(0, science.shape[1] - 1, n_rows).astype(int)):
            box = Box(0, science.shape[0], int(row), int(row) + 1)
            wht = self.noise.read_numbers(box).astype(np.float64)
            im = science.read_numbers(box).astype(np.float64)
            good = np.isfinite(wht) & (wht > 0) & np.isfinite(im)
            scaled.append(np.sqrt(wht[good]) * im[good])
        values = np.concatenate(scaled)
        if not values.size and not np.any(self.noise.read_numbers() > 0):
            self.sky = 1.0  # of no pixel
            return
        deviation = np.nan
        if values.size:
            deviation = _MAD_TO_SIGMA * float(np.median(np.abs(values - np.median(values))))
        if not deviation > 0:
            raise UnusableExposureError(
                f"{self.noise.where}: the noise of the sky cannot be measured ({values.size} "
                "pixels with weight looked at); if the weights are inverse variances, say so "
                "(weight: ivm)"
            )
        self.sky = deviation**2
        # rate / wht is the variance of the rate; in units of 1/electrons that each unit is.
        self.poisson = 0.0 if electrons is None else 1.0 / electrons

    def read(self, box: Box, im: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Give the inverse uncertainties of a part of the image, whose pixels are `im` ``[x, y]``.

        Returns
        -------
        ndarray of float32 or float64, shape (nx, ny)
            NaN where there are no data.
        """
        noise = self.noise.read_numbers(box)
        if self.kind in ("err", "variance"):
            with np.errstate(invalid="ignore"):
                ierr = inverse_of(noise)
                if self.kind == "variance":
                    ierr = np.sqrt(ierr)
            if self.scale * self.unit != 1:
                ierr = ierr / ierr.dtype.type(self.scale * self.unit)
            return self._with_data(ierr, box)
        wht = noise.astype(np.float64)
        with np.errstate(all="ignore"):
            if self.kind == "exptime":
                wht = wht / (self.sky + self.poisson * np.maximum(im, 0).astype(np.float64))
            ierr = np.where(wht > 0, np.sqrt(wht) / (self.scale * self.unit), np.nan)
            return self._with_data(ierr.astype(np.float32), box)

    def notes(self) -> list[str]:
        """Tell where uncertainties come from, unless they are standard deviations."""
        if self.kind == "err":
            return []
        if self.noise is not self.wht:
            stated = self.noise.header["UTYPE"]
            return [f"{self.noise.where}: UTYPE is {stated}: taken as {_WORDS[self.kind]}"]
        return [f"uncertainties from weights, taken as {_WORDS[self.kind]} (option weight)"]

    def provenance(self) -> dict[str, str | float | int]:
        """What is stored beside the pixels about the uncertainties."""
        known: dict[str, str | float | int] = {"uncertainties": self.kind}
        if self.kind == "exptime":
            known["sky_variance_times_exptime"] = self.sky
        return known if self.scale == 1 else {**known, "err_scale": self.scale}

    def _with_data(self, ierr: npt.NDArray[Any], box: Box) -> npt.NDArray[Any]:
        """Make the inverse uncertainties NaN where weights beside them are zero."""
        if self.wht is not None and self.wht is not self.noise:
            wht = self.wht.read_numbers(box)
            ierr[~(np.isfinite(wht) & (wht > 0))] = np.nan
        return ierr
