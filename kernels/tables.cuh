// The argument tables of fpgpu's own kernels: one row an exposure, so that one launch serves many.
//
// "word" is 32 bits of a pixel moved without asking what they mean.

#ifndef FPGPU_TABLES
#define FPGPU_TABLES

typedef unsigned int word;

// How image planes are stored. A set of these is an int argument.
#define FITS_ORDER 1        // x contiguous, as in a FITS file; else im[x, y] with y contiguous
#define SWAP_IMAGE 2        // this plane has the other byte order than the machine
#define SWAP_ERROR 4
#define SWAP_MASK 8
#define SWAP_BACKGROUND 16
#define SWAP_AREA 32

#define NO_PIXEL 0xFFFFFFFFu

// One exposure for `calibrate`: planes of nx * ny elements, each 16-byte aligned or null.
struct CalibrateExposure {
    const word* image;        // float32
    const word* error;        // float32, 1 / sigma
    const void* mask;         // integers of 1, 2 or 4 bytes; null: nothing is flagged
    const word* background;   // float32, subtracted; null: none
    const word* area;         // float32, relative pixel area; null: 1 everywhere
    word* superpixels;        // out: [nx / size][ny / size][2][size][size]
    float factor;             // flux unit per image unit
    float inverse_factor;     // 1 / factor, rounded once from double
};

// What `calibrate` counted in one exposure. Causes overlap: a flagged NaN counts under both.
struct CalibrateCounts {
    unsigned int masked;         // pixels given no weight
    unsigned int nonfinite_flux; // NaN or infinite after the background is subtracted
    unsigned int bad_error;      // inverse uncertainty NaN, infinite or negative
    unsigned int flagged;        // by the mask
    unsigned int bad_area;       // area NaN, infinite, zero or negative
    unsigned int overflowed;     // pixels in which a stored value is still not finite
    unsigned int first_overflow; // smallest x * ny + y of those, else NO_PIXEL
};

// One exposure for `unpack`.
struct UnpackExposure {
    const word* source;  // super-pixels: staged ones in order, or the exposure's whole grid
    int start;           // its first super-pixel in the patch
    int count;           // its number of super-pixels in the patch
    int row_length;      // 0: staged in order; else a whole grid, super-pixels in a row of it
    float background;    // subtracted from every flux, in the store's unit
};

// One Gaussian on one exposure for `evaluate_patch`; 48 bytes, read 16 at a time.
struct alignas(16) ImageGaussian {
    float x, y, x_rest, y_rest;         // centre, pixels: what float32 holds of it, and the rest
    float ax, ay, bx, by;               // a = ax dx + ay dy and b = bx dx + by dy from the centre
    float bend, bend_a, bend_b, peak;   // peak 2^-(a^2 + b^2) (bend + bend_a a^2 + bend_b b^2)
};

// One run of pixels for `evaluate_patch`, all of one exposure.
struct alignas(16) EvaluateWork {
    int exposure;
    int band;
    int first_pixel;     // in the patch
    int n_pixels;
};

// What `check_layout` saw in one field of a patch.
struct Seen {
    unsigned long long value;     // the address or the number itself
    unsigned long long count;     // elements read
    unsigned long long checksum;  // sum of word[i] * (2 i + 1) modulo 2^64
    unsigned int first, last;     // bits of the first and the last word
};

#endif
