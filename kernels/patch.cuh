// The structs that forcepho's kernels and fpgpu share, and their limits.
//
// These are forcepho's: order, size and alignment are fixed by its kernels. The NumPy dtypes in
// fpgpu/layout.py are the other side; assertions generated from them follow in layout.cuh.
//
// Sources here need no header at all, since NVRTC has none: short is 16 bits, int and float 32,
// pointers 64 on every machine that CUDA runs on.

#ifndef FPGPU_PATCH
#define FPGPU_PATCH

#define MAXBANDS 30      // bands in a patch
#define MAXSOURCES 30    // sources in a patch
#define MAXRADII 10      // Gaussians in the mixture of a Sersic profile
#define NPARAMS 7        // derivatives: flux, ra, dec, q, pa, sersic, rhalf
#define NUMACCUMS 1      // accumulators in each block of the fitting kernel
#define MAX_EXP_ARG 36.0 // exp(-0.5 * this) is taken as nothing

// One Gaussian of a PSF, already tied to one radius of the Sersic mixture.
struct PSFSourceGaussian {
    float amp;             // fraction of the flux
    float xcen, ycen;      // centre relative to the source, pixels
    float Cxx, Cyy, Cxy;   // covariance, pixels^2
    int sersic_bin;        // the radius it applies to, 0 .. n_radii - 1
};

// All pixels of all exposures that cover one region of sky, with their astrometry and PSFs.
//
// Pixels are ordered by exposure, in an exposure by super-pixel (row-major in x, y), in a
// super-pixel by x then y. Exposures are ordered by band. Everything is an array in device memory.
// Bands, exposures and sources are numbered from 0 within the patch.
struct Patch {
    // Pixels: [exposure_start[exposure] + k], k = 0 .. exposure_N[exposure] - 1
    float* data;           // flux, nJy when the store is calibrated
    float* ierr;           // 1 / sigma, same unit; 0 where masked
    float* xpix;           // zero-based column in the exposure, pixel centres at whole numbers
    float* ypix;           // zero-based row
    float* residual;       // data - model, written by the fitting kernel; may be null

    int* exposure_start;   // [exposure] first pixel
    int* exposure_N;       // [exposure] number of pixels
    short* band_start;     // [band] first exposure
    short* band_N;         // [band] number of exposures

    int n_sources;
    int n_radii;

    float* rad2;           // [n_radii] squared radii of the Sersic mixture, arcsec^2

    // Astrometry, linear about each source in each exposure, sky relative to the patch's reference
    float* D;              // [exposure][source][2][2] d(x, y) / d(sky), pixels per arcsec
    float* crpix;          // [exposure][source][2] x, y of the source's reference place, pixels
    float* crval;          // [exposure][source][2] ra, dec of that place, degrees
    float* CW;             // [exposure][source][2][2] d(x, y) / d(ra, dec), pixels per degree
    float* G;              // [exposure] flux scale of the exposure, 1 unless tweaked

    // PSFs: exposure e, source s, Gaussian g of band b is
    // psfgauss[psfgauss_start[e] + s * n_psf_per_source[b] + g]
    int* n_psf_per_source; // [band]
    PSFSourceGaussian* psfgauss;
    int* psfgauss_start;   // [exposure]
};

// One source of a proposal.
struct Source {
    float ra, dec;         // degrees, relative to the patch's reference
    float q;               // sqrt(b / a)
    float pa;              // position angle, radians
    float nsersic;         // Sersic index
    float rh;              // half-light radius, arcsec

    float fluxes[MAXBANDS];             // [band]

    float mixture_amplitudes[MAXRADII]; // [radius]
    float damplitude_drh[MAXRADII];
    float damplitude_dnsersic[MAXRADII];
};

// What the fitting kernel returns for one band.
struct Response {
    float dchi2_dparam[NPARAMS * MAXSOURCES]; // [source][parameter]
};

#endif
