// check_layout: reads every field and every array of a device Patch and writes what it saw.
//
// patch    one Patch in device memory, its pointers device pointers
// n_bands  as the fitting kernel knows it, from outside the struct
// seen     [field in the order of the struct] Seen, out
//
// One block a field (grid PATCH_FIELDS). Lengths come from the patch itself, as a kernel that uses it
// would derive them, so a wrong index array shows as a wrong count. A null array counts 0 elements.
// Structs are read by member, so that a moved member shows too. The checksum depends on the order of
// the words yet can be summed in any order. For tests and diagnosis: traffic is one read of the patch.

#include "layout.cuh"
#include "exact.cuh"

#define CHECK_BLOCK 256
#define PATCH_FIELDS 20

typedef unsigned long long u64;

__device__ __forceinline__ int words_of(float) { return 1; }
__device__ __forceinline__ int words_of(int) { return 1; }
__device__ __forceinline__ int words_of(short) { return 1; }
__device__ __forceinline__ int words_of(const PSFSourceGaussian&) { return 7; }

__device__ __forceinline__ word word_of(float f, int) { return to_bits(f); }
__device__ __forceinline__ word word_of(int i, int) { return (word)i; }
__device__ __forceinline__ word word_of(short s, int) { return (word)(unsigned short)s; }
__device__ __forceinline__ word word_of(const PSFSourceGaussian& g, int k) {
    const word words[7] = {to_bits(g.amp), to_bits(g.xcen), to_bits(g.ycen), to_bits(g.Cxx),
                           to_bits(g.Cyy), to_bits(g.Cxy), (word)g.sersic_bin};
    word w = words[0];
#pragma unroll
    for (int m = 1; m < 7; m++) w = k == m ? words[m] : w;
    return w;
}

// Sum over the block of each thread's value; in thread 0.
__device__ u64 block_sum(u64 value) {
    __shared__ u64 sums[CHECK_BLOCK];
    const int thread = threadIdx.x;
    sums[thread] = value;
    __syncthreads();
    for (int half = CHECK_BLOCK / 2; half > 0; half /= 2) {
        if (thread < half) sums[thread] += sums[thread + half];
        __syncthreads();
    }
    return sums[0];
}

template <class T>
__device__ void look_at(const T* array, long long count, Seen* seen) {
    if (!array) count = 0;
    u64 sum = 0;
    for (long long n = threadIdx.x; n < count; n += CHECK_BLOCK) {
        const int words = words_of(array[n]);
        for (int k = 0; k < words; k++) sum += (u64)word_of(array[n], k) * (2 * (n * words + k) + 1);
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) {
        seen->value = (u64)array;
        seen->count = (u64)count;
        seen->checksum = sum;
        seen->first = count ? word_of(array[0], 0) : 0;
        seen->last = count ? word_of(array[count - 1], words_of(array[0]) - 1) : 0;
    }
}

__device__ void look_at_number(int number, Seen* seen) {
    if (threadIdx.x == 0) {
        const word w = (word)number;
        *seen = Seen{(u64)(long long)number, 1, w, w, w};
    }
}

extern "C" __global__ void __launch_bounds__(CHECK_BLOCK) check_layout(
    const Patch* __restrict__ patch, int n_bands, Seen* __restrict__ seen)
{
    const Patch& p = *patch;
    const int last_band = n_bands - 1;
    const long long n_exp = p.band_start[last_band] + p.band_N[last_band];
    const long long n_pix = (long long)p.exposure_start[n_exp - 1] + p.exposure_N[n_exp - 1];
    const long long n_pair = n_exp * p.n_sources;
    const long long n_psf =
        p.psfgauss_start[n_exp - 1] + (long long)p.n_psf_per_source[last_band] * p.n_sources;

    seen += blockIdx.x;
    switch (blockIdx.x) {
    case 0: look_at(p.data, n_pix, seen); break;
    case 1: look_at(p.ierr, n_pix, seen); break;
    case 2: look_at(p.xpix, n_pix, seen); break;
    case 3: look_at(p.ypix, n_pix, seen); break;
    case 4: look_at(p.residual, n_pix, seen); break;
    case 5: look_at(p.exposure_start, n_exp, seen); break;
    case 6: look_at(p.exposure_N, n_exp, seen); break;
    case 7: look_at(p.band_start, n_bands, seen); break;
    case 8: look_at(p.band_N, n_bands, seen); break;
    case 9: look_at_number(p.n_sources, seen); break;
    case 10: look_at_number(p.n_radii, seen); break;
    case 11: look_at(p.rad2, p.n_radii, seen); break;
    case 12: look_at(p.D, 4 * n_pair, seen); break;
    case 13: look_at(p.crpix, 2 * n_pair, seen); break;
    case 14: look_at(p.crval, 2 * n_pair, seen); break;
    case 15: look_at(p.CW, 4 * n_pair, seen); break;
    case 16: look_at(p.G, n_exp, seen); break;
    case 17: look_at(p.n_psf_per_source, n_bands, seen); break;
    case 18: look_at(p.psfgauss, n_psf, seen); break;
    case 19: look_at(p.psfgauss_start, n_exp, seen); break;
    }
}
