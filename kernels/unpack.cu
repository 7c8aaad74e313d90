// unpack: super-pixels in disk order -> the pixel arrays of a patch.
//
// exposures  [exposure] UnpackExposure: where its super-pixels are, and its place in the patch
// places     [super-pixel of the patch][2] index of the super-pixel along x and y in its exposure
// data, ierr, xpix, ypix  [super-pixel of the patch][size][size] out, float32
// first_bad  in: NO_PIXEL; out: the first super-pixel of the patch with a value that is not finite
// max_snr    where ierr > 0 and flux * ierr > max_snr, ierr = max_snr / flux; 0: no cap
//
// Super-pixels come one after another from a staging buffer, or, when the whole exposure is resident,
// straight from their places in it. A NaN flux stays the NaN it is, and is told: looking costs no access
// of memory, as every value passes through a register.
//
// The grid is (chunks, exposures), as many chunks as the longest exposure needs: a device has its own
// way of giving blocks to multiprocessors that are free. A thread moves W words of flux and the W of
// ierr beside them, so a warp reads and writes runs of 256 bytes or more. Traffic a pixel: 8 bytes
// read, 16 written, and 8 bytes of place a super-pixel, once each, which is the floor.

#include "layout.cuh"
#include "tiles.cuh"

#define UNPACK_BLOCK 256

template <int W>
__device__ __forceinline__ void unpack_words_of(
    const UnpackExposure* exposures, const int* places, word* data, word* ierr, word* xpix, word* ypix,
    int size, word max_snr, word* first_bad)
{
    const UnpackExposure e = exposures[blockIdx.y];
    const int pixels = size * size;
    const int pieces = pixels / W;  // of W words, in the flux of one super-pixel
    const int n = blockIdx.x * UNPACK_BLOCK + threadIdx.x; // a patch has fewer than 2^31 pixels
    if (n >= e.count * pieces) return;
    const word background = to_bits(e.background);
    const int k = n / pieces;               // super-pixel of this exposure
    const int first = (n - k * pieces) * W; // pixel in the super-pixel
    const long long number = (long long)e.start + k;
    const int i = places[2 * number], j = places[2 * number + 1];
    const long long from = e.row_length ? (long long)i * e.row_length + j : k;
    const word* source = e.source + from * 2 * pixels + first;

    word flux[W], weight[W], x[W], y[W];
    load_words(source, flux);
    load_words(source + pixels, weight);
    bool bad = false;
#pragma unroll
    for (int c = 0; c < W; c++) {
        bad |= !is_finite(flux[c]) | !is_finite(weight[c]);
        if (!is_nan(flux[c])) flux[c] = subtract(flux[c], background);
        if (max_snr && greater(weight[c], 0) && greater(multiply(flux[c], weight[c]), max_snr))
            weight[c] = divide(max_snr, flux[c]);
        const int a = (first + c) / size;
        x[c] = to_bits((float)(i * size + a));
        y[c] = to_bits((float)(j * size + first + c - a * size));
    }
    if (bad) atomicMin(first_bad, (word)number);
    const long long to = number * pixels + first;
    store_words(data + to, flux);
    store_words(ierr + to, weight);
    store_words(xpix + to, x);
    store_words(ypix + to, y);
}

extern "C" __global__ void __launch_bounds__(UNPACK_BLOCK) unpack(
    const UnpackExposure* __restrict__ exposures, const int* __restrict__ places,
    word* __restrict__ data, word* __restrict__ ierr, word* __restrict__ xpix, word* __restrict__ ypix,
    int size, float max_snr, word* __restrict__ first_bad)
{
    unpack_words_of<4>(exposures, places, data, ierr, xpix, ypix, size, to_bits(max_snr), first_bad);
}

// The same where 16-byte accesses are not possible.
extern "C" __global__ void __launch_bounds__(UNPACK_BLOCK) unpack_words(
    const UnpackExposure* __restrict__ exposures, const int* __restrict__ places,
    word* __restrict__ data, word* __restrict__ ierr, word* __restrict__ xpix, word* __restrict__ ypix,
    int size, float max_snr, word* __restrict__ first_bad)
{
    unpack_words_of<1>(exposures, places, data, ierr, xpix, ypix, size, to_bits(max_snr), first_bad);
}
