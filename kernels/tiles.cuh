// Tiles: how image planes are read and written in super-pixel order, 16 bytes at a time.
//
// A thread owns a tile of W x W pixels inside one super-pixel: W rows of W consecutive words, both in
// the image and in the super-pixel. In FITS order the rows run along x and the super-pixel's along y,
// so the tile is transposed, in registers. With W = 4 every access is 16 bytes; W = 1 is the way for
// a super-pixel size that is no multiple of 4, and for planes that are not 16-byte aligned.
//
// A block of 16 x 16 threads covers 16 W x 16 W pixels, threadIdx.x along the plane's contiguous
// axis. A warp is 16 tiles along it and 2 across: it reads whole 256-byte runs of image rows, and
// writes whole 32-byte sectors of super-pixels (the two tiles across complete them in FITS order).
// All four rows of a tile are asked for before the first is used. tests/kernels/test_widths.py holds
// PTX and machine code against this.
//
// Not yet run on a GPU: what these patterns reach of a device's bandwidth,
// `python -m benchmarks --backend cuda` tells.

#ifndef FPGPU_TILES
#define FPGPU_TILES

#include "exact.cuh"

#define TILE_BLOCK 16

template <int W>
struct Tile {
    word row[W][W];
};

__device__ __forceinline__ void load_words(const word* from, word (&to)[4]) {
    const uint4 v = *reinterpret_cast<const uint4*>(from);
    to[0] = v.x; to[1] = v.y; to[2] = v.z; to[3] = v.w;
}
__device__ __forceinline__ void load_words(const word* from, word (&to)[1]) { to[0] = *from; }

// One instruction by its name: of an assignment to a uint4 some compilers make four stores.
__device__ __forceinline__ void store_words(word* to, const word (&from)[4]) {
#ifdef __CUDACC__
    asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};"
        : : "l"(__cvta_generic_to_global(to)), "r"(from[0]), "r"(from[1]), "r"(from[2]), "r"(from[3])
        : "memory");
#else
    *reinterpret_cast<uint4*>(to) = make_uint4(from[0], from[1], from[2], from[3]);
#endif
}
__device__ __forceinline__ void store_words(word* to, const word (&from)[1]) { *to = from[0]; }

template <int W>
__device__ __forceinline__ void swap_bytes(word (&row)[W]) {
#pragma unroll
    for (int k = 0; k < W; k++) row[k] = swap_bytes(row[k]);
}

template <int W>
__device__ __forceinline__ void load_tile(const word* from, long long pitch, bool swap, Tile<W>& tile) {
#pragma unroll
    for (int r = 0; r < W; r++) load_words(from + r * pitch, tile.row[r]);
    if (swap) {
#pragma unroll
        for (int r = 0; r < W; r++) swap_bytes(tile.row[r]);
    }
}

template <int W>
__device__ __forceinline__ void store_tile(word* to, long long pitch, const Tile<W>& tile) {
#pragma unroll
    for (int r = 0; r < W; r++) store_words(to + r * pitch, tile.row[r]);
}

template <int W>
__device__ __forceinline__ void transpose(Tile<W>& tile) {
#pragma unroll
    for (int r = 0; r < W; r++) {
#pragma unroll
        for (int k = r + 1; k < W; k++) {
            const word w = tile.row[r][k];
            tile.row[r][k] = tile.row[k][r];
            tile.row[k][r] = w;
        }
    }
}

// Where this thread's tile lies in a plane of nx * ny pixels and in its super-pixels.
struct Place {
    bool inside;
    int x, y;             // its first pixel
    long long pixel;      // index of that pixel in the plane
    long long pitch;      // words from one row of the plane to the next
    long long superpixel; // index of that pixel's flux in the super-pixels; ierr is size^2 further
};

template <int W>
__device__ __forceinline__ Place place_tile(int nx, int ny, int size, bool fits) {
    const int along = (blockIdx.x * TILE_BLOCK + threadIdx.x) * W;
    const int across = (blockIdx.y * TILE_BLOCK + threadIdx.y) * W;
    Place p;
    p.x = fits ? along : across;
    p.y = fits ? across : along;
    p.inside = p.x < nx && p.y < ny;
    p.pitch = fits ? nx : ny;
    p.pixel = across * p.pitch + along;
    const int i = p.x / size, j = p.y / size;
    const long long number = (long long)i * (ny / size) + j;
    p.superpixel = number * 2 * size * size + (p.x - i * size) * size + (p.y - j * size);
    return p;
}

#endif
