"""What HDF5 needs to read compressed datasets.

gzip and lzf come with h5py. The others are plugins of HDF5 that the package ``hdf5plugin`` (extra
``compress``) brings; importing it makes them known to HDF5 in this process.
"""

import h5py

from fpgpu.errors import MissingExtraError

__all__ = ["require_filters"]

INSTALL = 'pip install "fpgpu[compress]"'


def require_filters(dataset: h5py.Dataset) -> None:
    """Make HDF5 able to read a dataset."""
    plist = dataset.id.get_create_plist()
    for i in range(plist.get_nfilters()):
        code, _, _, name = plist.get_filter(i)
        if not h5py.h5z.filter_avail(code):
            what = name.decode("utf-8", "replace") or f"filter {code}"
            place = f"{dataset.file.filename}: {dataset.name}"
            try:
                import hdf5plugin  # noqa: F401 (registers its filters with HDF5)
            except ImportError as exc:
                raise MissingExtraError(
                    f"compression {what} ({place} is stored with it) needs the package hdf5plugin, "
                    f"which is not installed: {INSTALL}"
                ) from exc
            if not h5py.h5z.filter_avail(code):
                raise MissingExtraError(
                    f"{place} is stored with {what}, HDF5 filter {code}, which neither h5py nor "
                    "hdf5plugin brings"
                )
