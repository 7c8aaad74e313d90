// images_from_superpixels: the inverse of superpixelize, out to either order of the image.
//
// superpixels  [exposure][nx / size][ny / size][2][size][size]
// im, ierr     [exposure][nx * ny], in the order and byte order that `flags` says
//
// Traffic: 8 bytes read and 8 written a pixel, once each, which is the floor. See tiles.cuh.

#include "layout.cuh"
#include "tiles.cuh"

template <int W>
__device__ __forceinline__ void image_tile(
    const word* superpixels, word* im, word* ierr, int nx, int ny, int size, int flags)
{
    const Place p = place_tile<W>(nx, ny, size, flags & FITS_ORDER);
    if (!p.inside) return;
    const long long plane = (long long)nx * ny * blockIdx.z;

    Tile<W> flux, weight;
    const word* from = superpixels + 2 * plane + p.superpixel;
    load_tile(from, size, flags & SWAP_IMAGE, flux);
    load_tile(from + size * size, size, flags & SWAP_ERROR, weight);
    if (flags & FITS_ORDER) {
        transpose(flux);
        transpose(weight);
    }
    store_tile(im + plane + p.pixel, p.pitch, flux);
    store_tile(ierr + plane + p.pixel, p.pitch, weight);
}

extern "C" __global__ void __launch_bounds__(TILE_BLOCK * TILE_BLOCK) images_from_superpixels(
    const word* __restrict__ superpixels, word* __restrict__ im, word* __restrict__ ierr,
    int nx, int ny, int size, int flags)
{
    image_tile<4>(superpixels, im, ierr, nx, ny, size, flags);
}

// The same where 16-byte accesses are not possible.
extern "C" __global__ void __launch_bounds__(TILE_BLOCK * TILE_BLOCK) images_from_superpixels_words(
    const word* __restrict__ superpixels, word* __restrict__ im, word* __restrict__ ierr,
    int nx, int ny, int size, int flags)
{
    image_tile<1>(superpixels, im, ierr, nx, ny, size, flags);
}
