// pack_psf: the PSF Gaussians at each source's place -> psfgauss of a patch.
//
// exposures  [exposure] PackPsfExposure: the table of its band and its place in psfgauss
// rows       [exposure][source] row of that table
// psfgauss   [exposure][source][Gaussian] out, PSFSourceGaussian
//
// The Gaussians of one source are contiguous on both sides, so the 28-byte structs move as words,
// consecutive threads moving consecutive words. The grid is (chunks, exposures). Traffic: 28 bytes
// read and 28 written a Gaussian, some hundred kilobytes a patch: the launch costs more than the bytes.

#include "layout.cuh"

#define PACK_PSF_BLOCK 256
#define GAUSSIAN_WORDS (int)(sizeof(PSFSourceGaussian) / sizeof(word))

extern "C" __global__ void __launch_bounds__(PACK_PSF_BLOCK) pack_psf(
    const PackPsfExposure* __restrict__ exposures, const int* __restrict__ rows,
    word* __restrict__ psfgauss, int n_sources)
{
    const PackPsfExposure e = exposures[blockIdx.y];
    const int length = e.n_psf * GAUSSIAN_WORDS; // words of one source
    const long long total = (long long)length * n_sources;
    const long long step = (long long)gridDim.x * PACK_PSF_BLOCK;
    word* to = psfgauss + (long long)e.start * GAUSSIAN_WORDS;

    for (long long n = (long long)blockIdx.x * PACK_PSF_BLOCK + threadIdx.x; n < total; n += step) {
        const int source = (int)(n / length);
        const long long row = rows[(long long)blockIdx.y * n_sources + source];
        to[n] = e.table[row * length + (n - (long long)source * length)];
    }
}
