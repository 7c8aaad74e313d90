// calibrate: an exposure as it lies in a file -> calibrated, masked super-pixels, in one pass.
//
// exposures  [exposure] CalibrateExposure: the planes and factors
// counts     [exposure] CalibrateCounts, set to 0 (first_overflow to NO_PIXEL) before the launch
// mask_bytes, bitmask: a pixel is flagged when (mask & bitmask) != 0; a bitmask of all ones means
//            "anything but zero".
//
// For each pixel, every step rounded to float32:
//     flux = image - background                weight = error
//     masked when flux is not finite, or weight is not finite or below 0, or flagged, or area is not
//     a finite positive number; then weight = 0, flux = background where that is finite, else 0
//     flux = (flux * factor) * area            weight = (weight * inverse_factor) / area
// A bad area is taken as 1.
//
// Traffic: 8 bytes of image and error, 4 each of background and area where given, and mask_bytes of
// mask read, 8 written a pixel, once each, which is the floor. See tiles.cuh.

#include "layout.cuh"
#include "tiles.cuh"

#define ONE 0x3f800000u

#define N_COUNTS 6 // causes, in the order of CalibrateCounts

__device__ __forceinline__ void load_shorts(const unsigned short* from, word (&to)[4]) {
    const uint2 v = *reinterpret_cast<const uint2*>(from);
    to[0] = v.x & 0xffff; to[1] = v.x >> 16; to[2] = v.y & 0xffff; to[3] = v.y >> 16;
}
__device__ __forceinline__ void load_shorts(const unsigned short* from, word (&to)[1]) { to[0] = *from; }

__device__ __forceinline__ void load_bytes(const unsigned char* from, word (&to)[4]) {
    const word v = *reinterpret_cast<const word*>(from);
#pragma unroll
    for (int k = 0; k < 4; k++) to[k] = v >> (8 * k) & 0xff;
}
__device__ __forceinline__ void load_bytes(const unsigned char* from, word (&to)[1]) { to[0] = *from; }

template <int W>
__device__ __forceinline__ void load_mask(
    const void* mask, int bytes, long long at, bool swap, word (&to)[W])
{
    if (!mask) {
#pragma unroll
        for (int k = 0; k < W; k++) to[k] = 0;
    } else if (bytes == 4) {
        load_words((const word*)mask + at, to);
        if (swap) swap_bytes(to);
    } else if (bytes == 2) {
        load_shorts((const unsigned short*)mask + at, to);
        if (swap) {
#pragma unroll
            for (int k = 0; k < W; k++) to[k] = swap_bytes(to[k]) >> 16;
        }
    } else {
        load_bytes((const unsigned char*)mask + at, to);
    }
}

template <int W>
__device__ __forceinline__ void load_plane(const word* plane, long long at, bool swap, word fill, word (&to)[W]) {
    if (plane) {
        load_words(plane + at, to);
        if (swap) swap_bytes(to);
    } else {
#pragma unroll
        for (int k = 0; k < W; k++) to[k] = fill;
    }
}

// Calibrate one pixel in place; returns 1 << (5 * cause) for every cause that it counts under.
__device__ __forceinline__ unsigned int calibrate_pixel(
    const CalibrateExposure& e, bool flagged, word background, word area, word& flux, word& weight)
{
    if (e.background) flux = subtract(flux, background);

    const bool bad_flux = !is_finite(flux);
    const bool bad_error = !is_finite(weight) || is_negative(weight);
    const bool bad_area = !is_finite(area) || is_negative(area) || is_zero(area);
    const bool masked = bad_flux || bad_error || flagged || bad_area;
    if (masked) {
        weight = 0;
        flux = is_finite(background) ? background : 0;
    }
    flux = multiply(flux, to_bits(e.factor));
    weight = multiply(weight, to_bits(e.inverse_factor));
    if (e.area && !bad_area) {
        flux = multiply(flux, area);
        weight = divide(weight, area);
    }
    const bool overflowed = !is_finite(flux) || !is_finite(weight);
    return masked | bad_flux << 5 | bad_error << 10 | flagged << 15 | bad_area << 20 | overflowed << 25;
}

template <int W>
__device__ __forceinline__ void calibrate_tile(
    const CalibrateExposure* exposures, CalibrateCounts* counts, int nx, int ny, int size,
    int mask_bytes, word bitmask, int flags)
{
    __shared__ unsigned int block_counts[N_COUNTS];
    const int thread = threadIdx.y * TILE_BLOCK + threadIdx.x;
    if (thread < N_COUNTS) block_counts[thread] = 0;
    __syncthreads();

    const CalibrateExposure e = exposures[blockIdx.z];
    CalibrateCounts* total = counts + blockIdx.z;
    const bool fits = flags & FITS_ORDER;
    const Place p = place_tile<W>(nx, ny, size, fits);
    if (p.inside) {
        unsigned int tally = 0, first_overflow = NO_PIXEL; // tally: 5 bits a cause, at most 16 pixels
        Tile<W> flux, weight; // 32 registers: with 70 to 80 in all, three blocks fit, whose loads
                              // in flight (128 bytes a thread, 98 kB) are enough for any memory
        load_tile(e.image + p.pixel, p.pitch, flags & SWAP_IMAGE, flux);
        load_tile(e.error + p.pixel, p.pitch, flags & SWAP_ERROR, weight);
#pragma unroll
        for (int r = 0; r < W; r++) {
            const long long at = p.pixel + r * p.pitch;
            word mask[W], background[W], area[W];
            load_plane(e.background, at, flags & SWAP_BACKGROUND, 0, background);
            load_plane(e.area, at, flags & SWAP_AREA, ONE, area);
            load_mask(e.mask, mask_bytes, at, flags & SWAP_MASK, mask);
#pragma unroll
            for (int k = 0; k < W; k++) {
                const bool flagged = (mask[k] & bitmask) != 0;
                const unsigned int causes = calibrate_pixel(
                    e, flagged, background[k], area[k], flux.row[r][k], weight.row[r][k]);
                tally += causes;
                if (causes >> 25) {
                    const unsigned int x = p.x + (fits ? k : r), y = p.y + (fits ? r : k);
                    first_overflow = min(first_overflow, x * ny + y);
                }
            }
        }
        if (fits) {
            transpose(flux);
            transpose(weight);
        }
        store_tile(e.superpixels + p.superpixel, size, flux);
        store_tile(e.superpixels + p.superpixel + size * size, size, weight);

        if (tally) {
#pragma unroll
            for (int c = 0; c < N_COUNTS; c++)
                atomicAdd(&block_counts[c], tally >> (5 * c) & 31);
        }
        if (first_overflow != NO_PIXEL) atomicMin(&total->first_overflow, first_overflow);
    }
    __syncthreads();
    if (thread < N_COUNTS && block_counts[thread])
        atomicAdd(&total->masked + thread, block_counts[thread]);
}

extern "C" __global__ void __launch_bounds__(TILE_BLOCK * TILE_BLOCK, 3) calibrate(
    const CalibrateExposure* __restrict__ exposures, CalibrateCounts* counts,
    int nx, int ny, int size, int mask_bytes, word bitmask, int flags)
{
    calibrate_tile<4>(exposures, counts, nx, ny, size, mask_bytes, bitmask, flags);
}

// The same where 16-byte accesses are not possible.
extern "C" __global__ void __launch_bounds__(TILE_BLOCK * TILE_BLOCK) calibrate_words(
    const CalibrateExposure* __restrict__ exposures, CalibrateCounts* counts,
    int nx, int ny, int size, int mask_bytes, word bitmask, int flags)
{
    calibrate_tile<1>(exposures, counts, nx, ny, size, mask_bytes, bitmask, flags);
}
