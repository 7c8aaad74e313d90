// superpixelize: image and inverse uncertainty -> super-pixels, [x, y] or FITS order, any byte order.
//
// im, ierr     [exposure][nx * ny], in the order that `flags` says (FITS_ORDER, SWAP_IMAGE, SWAP_ERROR)
// superpixels  [exposure][nx / size][ny / size][2][size][size]
//
// Words are moved, never computed with: NaN payloads, denormals and signed zeros stay what they are.
// Traffic: 8 bytes read and 8 written a pixel, once each, which is the floor. See tiles.cuh.

#include "layout.cuh"
#include "tiles.cuh"

template <int W>
__device__ __forceinline__ void superpixelize_tile(
    const word* im, const word* ierr, word* superpixels, int nx, int ny, int size, int flags)
{
    const Place p = place_tile<W>(nx, ny, size, flags & FITS_ORDER);
    if (!p.inside) return;
    const long long plane = (long long)nx * ny * blockIdx.z;

    Tile<W> flux, weight;
    load_tile(im + plane + p.pixel, p.pitch, flags & SWAP_IMAGE, flux);
    load_tile(ierr + plane + p.pixel, p.pitch, flags & SWAP_ERROR, weight);
    if (flags & FITS_ORDER) {
        transpose(flux);
        transpose(weight);
    }
    word* to = superpixels + 2 * plane + p.superpixel;
    store_tile(to, size, flux);
    store_tile(to + size * size, size, weight);
}

extern "C" __global__ void __launch_bounds__(TILE_BLOCK * TILE_BLOCK) superpixelize(
    const word* __restrict__ im, const word* __restrict__ ierr, word* __restrict__ superpixels,
    int nx, int ny, int size, int flags)
{
    superpixelize_tile<4>(im, ierr, superpixels, nx, ny, size, flags);
}

// The same where 16-byte accesses are not possible.
extern "C" __global__ void __launch_bounds__(TILE_BLOCK * TILE_BLOCK) superpixelize_words(
    const word* __restrict__ im, const word* __restrict__ ierr, word* __restrict__ superpixels,
    int nx, int ny, int size, int flags)
{
    superpixelize_tile<1>(im, ierr, superpixels, nx, ny, size, flags);
}
