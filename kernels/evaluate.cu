// evaluate: the likelihood of proposed scenes given a patch: chi2, derivatives and residuals.
//
// The same as fpgpu/likelihood/reference.py, in three kernels, each over a batch of proposals:
//
//   project_gaussians  every Gaussian of every source on every exposure, in double
//   evaluate_patch     compares pixels with Gaussians: residuals, chi2, six moments a Gaussian
//   sum_evaluation     sums both in a fixed order, in double, and turns moments into derivatives
//
// patch          one Patch in device memory; its residual is written only when `residual` says so
// sources        [proposal][source]
// gauss_start    [n_exp + 1] first Gaussian of each exposure; Gaussian g of source s is s * n_psf + g
// exposure_band  [exposure] its band
// gaussians      [proposal][gauss_start[n_exp]]
// work           [n_work] EvaluateWork: runs of pixels of one exposure, in order of exposure
// work_start     [n_exp + 1] first work of each exposure
// widest         most Gaussians of an exposure
// moments        [proposal][work][widest][6], scratch; null when no derivatives are wanted
// work_chi2      [proposal][work], scratch
// chi2           [proposal][band] out
// derivatives    [proposal][band][source][7] out; may be null
// psf_per_source 0: the first PSF of an exposure serves all its sources, as in forcepho's kernel
//
// Along the axes of its ellipse, a and b, a Gaussian with the inverse variances A and B is
// peak * 2^-(a^2 + b^2), with lengths in units that make it so, and its mean over a pixel is that
// times bend + bend_a a^2 + bend_b b^2 (one more 24th of the Laplacian). Both a and b are linear in
// the place of a pixel relative to the centre of its tile, where they are small: so float32 is
// enough for them, however long and thin the ellipse.
//
// A warp takes one work, tile by tile, and no warp waits for another. First a lane has two pixels
// and goes through the Gaussians that reach the tile, a list in shared memory made piece by piece.
// Then a lane has a Gaussian and goes through the pixels, which lie in shared memory: so that the
// moments are sums in registers. Where the list is short, rows of lanes share the pixels and add
// what they have by shuffles. No atomics: the same bits from run to run and in a batch of any size.
//
// Not yet run on a GPU. Traffic a pixel: 16 bytes read, 4 written with residuals; arithmetic is what
// takes the time: see tests/kernels/test_evaluate_compiled.py for instructions a pixel and Gaussian.

#include "layout.cuh"

#define WARP 32
#define ALL_LANES 0xffffffffu
#define PROJECT_BLOCK 128
#define EVALUATE_BLOCK 128
#define SUM_BLOCK 256
#define TILE 64 // pixels
#define LIST 64 // Gaussians in a piece of the list
#define N_MOMENTS 6

#define PI 3.14159265358979323846
#define UNIT2 0.72134752044448170368       // log2(e) / 2: exp(-s / 2) = 2^-(UNIT2 s)
#define CUTOFF ((float)(MAX_EXP_ARG * UNIT2))

#ifdef __CUDACC__
__device__ __forceinline__ float power_of_two(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
#else
inline float power_of_two(float x) { return exp2f(x); }
#endif

// A symmetric matrix.
struct Symmetric {
    double xx, xy, yy;
};

// One Gaussian on one exposure, and how it follows the parameters of its source.
struct Projection {
    double x, y;                     // centre, pixels
    double counts;
    double d_flux, d_sersic, d_rhalf; // of the counts
    double A, B;                     // inverse variances along the axes of the ellipse
    double c, s;                     // direction of axis a: (c, s); axis b is (-s, c)
    Symmetric d_q, d_pa;             // of the covariance

    __device__ double height() const { return sqrt(A * B) / (2 * PI); } // at the centre, of one count
};

// half + half^t, where half = dT T^t
__device__ __forceinline__ Symmetric both_halves(const double (&dT)[4], const double (&T)[4]) {
    return {2 * (dT[0] * T[0] + dT[1] * T[1]),
            dT[0] * T[2] + dT[1] * T[3] + T[0] * dT[2] + T[1] * dT[3],
            2 * (dT[2] * T[2] + dT[3] * T[3])};
}

__device__ __forceinline__ void find_axes(const Symmetric& covariance, Projection& to) {
    const double xx = covariance.xx, xy = covariance.xy, yy = covariance.yy;
    const double half = (xx - yy) / 2, root = sqrt(half * half + xy * xy);
    const double large = (xx + yy) / 2 + root;
    to.A = 1 / large;
    to.B = large / (xx * yy - xy * xy);
    // The double angle is known: cos 2t = half / root, sin 2t = xy / root. A circle has any axes.
    const double along = root > 0 ? sqrt((1 + fabs(half) / root) / 2) : 1;
    const double across = root > 0 ? fabs(xy) / root / (2 * along) : 0;
    to.c = half < 0 ? across : along;
    to.s = half < 0 ? along : across;
    if (xy < 0) to.s = -to.s;
}

__device__ __forceinline__ Projection project(
    const Patch& patch, const Source& source, int band, int exposure, int s, int g, bool psf_per_source)
{
    const int n_psf = patch.n_psf_per_source[band];
    const PSFSourceGaussian& psf =
        patch.psfgauss[patch.psfgauss_start[exposure] + (psf_per_source ? (long long)s * n_psf : 0) + g];
    const long long pair = (long long)exposure * patch.n_sources + s;
    const float *D = patch.D + 4 * pair, *CW = patch.CW + 4 * pair;
    const float *crpix = patch.crpix + 2 * pair, *crval = patch.crval + 2 * pair;
    const double ra = (double)source.ra - crval[0], dec = (double)source.dec - crval[1];
    Projection p;
    p.x = crpix[0] + CW[0] * ra + CW[1] * dec + psf.xcen;
    p.y = crpix[1] + CW[2] * ra + CW[3] * dec + psf.ycen;

    // T = D R(pa) S with S = diag(1 / q, q); sincospi needs no table for large angles
    const double q = source.q;
    double sine, cosine;
    sincospi((double)source.pa / PI, &sine, &cosine);
    const double xx = D[0] * cosine + D[1] * sine, xy = D[1] * cosine - D[0] * sine;
    const double yx = D[2] * cosine + D[3] * sine, yy = D[3] * cosine - D[2] * sine;
    const double T[4] = {xx / q, xy * q, yx / q, yy * q};
    const double T_q[4] = {-xx / (q * q), xy, -yx / (q * q), yy};
    const double T_pa[4] = {xy / q, -xx * q, yy / q, -yx * q};
    const double rad2 = patch.rad2[psf.sersic_bin];
    const Symmetric covariance = {psf.Cxx + rad2 * (T[0] * T[0] + T[1] * T[1]),
                                  psf.Cxy + rad2 * (T[0] * T[2] + T[1] * T[3]),
                                  psf.Cyy + rad2 * (T[2] * T[2] + T[3] * T[3])};
    find_axes(covariance, p);
    p.d_q = both_halves(T_q, T);
    p.d_pa = both_halves(T_pa, T);
    p.d_q = {rad2 * p.d_q.xx, rad2 * p.d_q.xy, rad2 * p.d_q.yy};
    p.d_pa = {rad2 * p.d_pa.xx, rad2 * p.d_pa.xy, rad2 * p.d_pa.yy};

    const double scale = (double)patch.G[exposure] * psf.amp, flux = source.fluxes[band];
    p.d_flux = scale * source.mixture_amplitudes[psf.sersic_bin];
    p.d_sersic = scale * flux * source.damplitude_dnsersic[psf.sersic_bin];
    p.d_rhalf = scale * flux * source.damplitude_drh[psf.sersic_bin];
    p.counts = flux * p.d_flux;
    return p;
}

// A thread a Gaussian; grid (chunks, proposals).
extern "C" __global__ void __launch_bounds__(PROJECT_BLOCK) project_gaussians(
    const Patch* __restrict__ patch, const Source* __restrict__ sources,
    const int* __restrict__ gauss_start, const int* __restrict__ exposure_band,
    int n_exp, int psf_per_source, ImageGaussian* __restrict__ gaussians)
{
    const int number = blockIdx.x * PROJECT_BLOCK + threadIdx.x;
    if (number >= gauss_start[n_exp]) return;
    int exposure = 0; // the last one that starts at or before this Gaussian
    for (int stop = n_exp; stop - exposure > 1;) {
        const int middle = (exposure + stop) / 2;
        if (gauss_start[middle] <= number) exposure = middle;
        else stop = middle;
    }
    const int band = exposure_band[exposure], n_psf = patch->n_psf_per_source[band];
    const int s = (number - gauss_start[exposure]) / n_psf, g = (number - gauss_start[exposure]) % n_psf;
    const Source& source = sources[(long long)blockIdx.y * patch->n_sources + s];
    const Projection p = project(*patch, source, band, exposure, s, g, psf_per_source);

    const double a = sqrt(UNIT2 * p.A), b = sqrt(UNIT2 * p.B);
    ImageGaussian to;
    to.x = (float)p.x;
    to.y = (float)p.y;
    to.x_rest = (float)(p.x - to.x);
    to.y_rest = (float)(p.y - to.y);
    to.ax = (float)(a * p.c);
    to.ay = (float)(a * p.s);
    to.bx = (float)(-b * p.s);
    to.by = (float)(b * p.c);
    to.bend = (float)(1 - (p.A + p.B) / 24);
    to.bend_a = (float)(p.A / (24 * UNIT2));
    to.bend_b = (float)(p.B / (24 * UNIT2));
    to.peak = (float)(p.counts * p.height());
    gaussians[(long long)blockIdx.y * gauss_start[n_exp] + number] = to;
}

// A Gaussian that reaches a tile.
struct alignas(16) Near {
    float a, ax, ay, b;   // at the tile's centre, and how much more a pixel further along x and y
    float bx, by, bend, bend_b;
    float bend_ab, peak;  // bend_a - bend_b
    int number;           // among those of its exposure
    int unused;
};

// Some pixels of an exposure, close together; places relative to their middle.
struct Tile {
    float x, y, half_x, half_y;
};

struct alignas(16) Pixel {
    float x, y, slope, unused; // slope: of chi2 with respect to the counts in it
};

__device__ __forceinline__ float least_of_warp(float value) {
#pragma unroll
    for (int half = WARP / 2; half > 0; half /= 2) value = fminf(value, __shfl_xor_sync(ALL_LANES, value, half));
    return value;
}

// What a Gaussian is in a pixel, over its peak, without and with the mean over the pixel.
struct Value {
    float a, b, aa, density, correction;
};

__device__ __forceinline__ Value value_at(const Near& near, float x, float y) {
    Value v;
    v.a = fmaf(near.ax, x, fmaf(near.ay, y, near.a));
    v.b = fmaf(near.bx, x, fmaf(near.by, y, near.b));
    v.aa = v.a * v.a;
    const float argument = fmaf(v.b, v.b, v.aa);
    v.correction = fmaf(near.bend_ab, v.aa, fmaf(near.bend_b, argument, near.bend));
    const float density = power_of_two(-argument);
    v.density = argument > CUTOFF ? 0 : density; // not "<=": what is not a number is not left out
    return v;
}

// Lists the Gaussians from number `next` on that reach a tile, while the list has room for 32 more.
__device__ __forceinline__ int list_reaching(
    const ImageGaussian* __restrict__ gaussians, int n, int& next, const Tile& tile, Near* list)
{
    const int lane = threadIdx.x % WARP;
    int count = 0;
    __syncwarp(); // nobody reads the last piece any more
    for (; next < n && count <= LIST - WARP; next += WARP) {
        const int number = min(next + lane, n - 1);
        const ImageGaussian& g = gaussians[number];
        const float x = (tile.x - g.x) - g.x_rest, y = (tile.y - g.y) - g.y_rest;
        const float a = fmaf(g.ax, x, g.ay * y), b = fmaf(g.bx, x, g.by * y);
        // how close a and b can come to 0 in the tile, and a little for rounding
        const float a_least = fmaxf(fabsf(a) - fmaf(fabsf(g.ax), tile.half_x, fabsf(g.ay) * tile.half_y), 0);
        const float b_least = fmaxf(fabsf(b) - fmaf(fabsf(g.bx), tile.half_x, fabsf(g.by) * tile.half_y), 0);
        const bool reaches =
            next + lane < n && !(fmaf(a_least, a_least, b_least * b_least) > 1.0001f * CUTOFF);
        const unsigned int reaching = __ballot_sync(ALL_LANES, reaches);
        if (reaches)
            list[count + __popc(reaching & ((1u << lane) - 1))] = {
                a, g.ax, g.ay, b, g.bx, g.by, g.bend, g.bend_b, g.bend_a - g.bend_b, g.peak, number, 0};
        count += __popc(reaching);
    }
    __syncwarp();
    return count;
}

// Adds to the moments of the Gaussians in a list what the pixels of a tile give, a lane a Gaussian.
__device__ __forceinline__ void pull_back(const Near* list, int count, const Pixel* pixels, float* moments) {
    const int lane = threadIdx.x % WARP;
    for (int first = 0; first < count; first += WARP) {
        const int left = min(count - first, WARP);
        int width = WARP; // lanes in a row, a Gaussian each; all rows have the same Gaussians
        while (width > 2 && width / 2 >= left) width /= 2;
        const int rows = WARP / width, place = lane % width;
        const Near near = list[first + min(place, left - 1)];
        // Laplacian's part in the slopes: A / 12, as bend_a = A / (24 UNIT2)
        const float h_b = (float)(2 * UNIT2) * near.bend_b, h_a = fmaf((float)(2 * UNIT2), near.bend_ab, h_b);
        const float h_aa = 2 * h_a, h_bb = 2 * h_b, h_ab = h_a + h_b;
        float plain = 0, mean = 0, a = 0, b = 0, aa = 0, ab = 0, bb = 0;

        for (int k = lane / width; k < TILE; k += 2 * rows) {
#pragma unroll
            for (int m = 0; m < 2; m++) {
                const Pixel pixel = pixels[k + m * rows];
                const Value v = value_at(near, pixel.x, pixel.y);
                const float f = pixel.slope * v.density, fc = f * v.correction;
                plain += f;
                mean += fc;
                a = fmaf(fmaf(-h_a, f, fc), v.a, a);
                b = fmaf(fmaf(-h_b, f, fc), v.b, b);
                aa = fmaf(fmaf(-h_aa, f, fc), v.aa, aa);
                ab = fmaf(fmaf(-h_ab, f, fc), v.a * v.b, ab);
                bb = fmaf(fmaf(-h_bb, f, fc), v.b * v.b, bb);
            }
        }
        aa = fmaf((float)UNIT2, fmaf(h_a, plain, -mean), aa);
        bb = fmaf((float)UNIT2, fmaf(h_b, plain, -mean), bb);

        float sums[N_MOMENTS] = {mean, a, b, aa, ab, bb};
        for (int row = width; row < WARP; row *= 2) {
#pragma unroll
            for (int m = 0; m < N_MOMENTS; m++) sums[m] += __shfl_xor_sync(ALL_LANES, sums[m], row);
        }
        if (lane < left) {
            float* to = moments + (long long)N_MOMENTS * near.number;
#pragma unroll
            for (int m = 0; m < N_MOMENTS; m++) to[m] += sums[m];
        }
    }
}

// A warp a work; grid (chunks, proposals).
extern "C" __global__ void __launch_bounds__(EVALUATE_BLOCK, 7) evaluate_patch(
    const Patch* __restrict__ patch, const ImageGaussian* __restrict__ gaussians,
    const int* __restrict__ gauss_start, int n_exp, const EvaluateWork* __restrict__ work, int n_work,
    int widest, int residual, float* __restrict__ moments, double* __restrict__ work_chi2)
{
    __shared__ Near lists[EVALUATE_BLOCK / WARP][LIST];
    __shared__ Pixel tiles[EVALUATE_BLOCK / WARP][TILE];
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int number = blockIdx.x * (EVALUATE_BLOCK / WARP) + warp;
    if (number >= n_work) return;
    Near* list = lists[warp];
    Pixel* pixels = tiles[warp];

    const EvaluateWork w = work[number];
    const int n = gauss_start[w.exposure + 1] - gauss_start[w.exposure];
    gaussians += (long long)blockIdx.y * gauss_start[n_exp] + gauss_start[w.exposure];
    const int place = blockIdx.y * n_work + number;
    if (moments) {
        moments += (long long)place * widest * N_MOMENTS;
        for (int m = lane; m < n * N_MOMENTS; m += WARP) moments[m] = 0;
    }

    double chi2 = 0;
    for (int start = w.first_pixel; start < w.first_pixel + w.n_pixels; start += TILE) {
        // A lane's pixels are WARP apart; those beyond the end repeat the last one, without weight.
        const int last = w.first_pixel + w.n_pixels - 1;
        float x[2], y[2];
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int at = min(start + lane + i * WARP, last);
            x[i] = patch->xpix[at];
            y[i] = patch->ypix[at];
        }
        const float x_least = least_of_warp(fminf(x[0], x[1])), x_most = -least_of_warp(fminf(-x[0], -x[1]));
        const float y_least = least_of_warp(fminf(y[0], y[1])), y_most = -least_of_warp(fminf(-y[0], -y[1]));
        const Tile tile = {(x_least + x_most) / 2, (y_least + y_most) / 2,
                           (x_most - x_least) / 2, (y_most - y_least) / 2};
        float model[2] = {0, 0};
#pragma unroll
        for (int i = 0; i < 2; i++) {
            x[i] -= tile.x;
            y[i] -= tile.y;
        }
        for (int next = 0; next < n;) {
            const int count = list_reaching(gaussians, n, next, tile, list);
#pragma unroll 2
            for (int k = 0; k < count; k++) {
                const Near near = list[k];
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    const Value v = value_at(near, x[i], y[i]);
                    model[i] = fmaf(near.peak * v.density, v.correction, model[i]);
                }
            }
        }
        __syncwarp(); // nobody reads the last tile any more
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int at = start + lane + i * WARP;
            const float data = patch->data[min(at, last)], ierr = at <= last ? patch->ierr[at] : 0;
            const float r = data - model[i];
            if (residual && at <= last) patch->residual[at] = r;
            // (r^2 - d^2) as a product: r and d are nearly equal in most pixels
            chi2 += (double)(-model[i] * ierr) * (double)((r + data) * ierr);
            pixels[lane + i * WARP] = {x[i], y[i], -2 * r * ierr * ierr, 0};
        }
        if (moments) {
            for (int next = 0; next < n;) {
                const int count = list_reaching(gaussians, n, next, tile, list);
                pull_back(list, count, pixels, moments);
            }
        }
    }
#pragma unroll
    for (int half = WARP / 2; half > 0; half /= 2) chi2 += __shfl_xor_sync(ALL_LANES, chi2, half);
    if (lane == 0) work_chi2[place] = chi2;
}

// Sum over the block of each thread's value, in a fixed order; in thread 0.
__device__ __forceinline__ double block_sum(double value, double* sums) {
    const int thread = threadIdx.x;
    __syncthreads();
    sums[thread] = value;
    __syncthreads();
    for (int half = SUM_BLOCK / 2; half > 0; half /= 2) {
        if (thread < half) sums[thread] += sums[thread + half];
        __syncthreads();
    }
    return sums[0];
}

// The chain rule: from the moments of a Gaussian to the derivatives of its source.
__device__ __forceinline__ void source_derivatives(
    const Projection& p, const float* CW, const double (&moments)[N_MOMENTS], double (&to)[NPARAMS])
{
    const double height = p.height(), peak = p.counts * height;
    const double counts = height * moments[0];
    const double along = peak * sqrt(p.A / UNIT2) * moments[1], across = peak * sqrt(p.B / UNIT2) * moments[2];
    const double x = p.c * along - p.s * across, y = p.s * along + p.c * across;
    const double aa = peak * p.A / (2 * UNIT2) * moments[3];
    const double ab = peak * sqrt(p.A * p.B) / (2 * UNIT2) * moments[4];
    const double bb = peak * p.B / (2 * UNIT2) * moments[5];
    const Symmetric covariance = {p.c * p.c * aa - 2 * p.c * p.s * ab + p.s * p.s * bb,
                                  p.c * p.s * (aa - bb) + (p.c * p.c - p.s * p.s) * ab,
                                  p.s * p.s * aa + 2 * p.c * p.s * ab + p.c * p.c * bb};
    to[0] += counts * p.d_flux;
    to[1] += x * CW[0] + y * CW[2];
    to[2] += x * CW[1] + y * CW[3];
    to[3] += covariance.xx * p.d_q.xx + 2 * covariance.xy * p.d_q.xy + covariance.yy * p.d_q.yy;
    to[4] += covariance.xx * p.d_pa.xx + 2 * covariance.xy * p.d_pa.xy + covariance.yy * p.d_pa.yy;
    to[5] += counts * p.d_sersic;
    to[6] += counts * p.d_rhalf;
}

// A block a source, and one more for chi2; grid (n_sources + 1, n_bands, proposals).
extern "C" __global__ void __launch_bounds__(SUM_BLOCK) sum_evaluation(
    const Patch* __restrict__ patch, const Source* __restrict__ sources,
    const int* __restrict__ gauss_start, const int* __restrict__ work_start,
    int n_exp, int n_work, int widest, int n_bands, int psf_per_source,
    const float* __restrict__ moments, const double* __restrict__ work_chi2,
    double* __restrict__ chi2, float* __restrict__ derivatives)
{
    __shared__ double sums[SUM_BLOCK];
    const int s = blockIdx.x, band = blockIdx.y, proposal = blockIdx.z;
    const int first = patch->band_start[band], n = patch->band_N[band];
    const long long answer = (long long)proposal * n_bands + band;
    if (s == (int)gridDim.x - 1) {
        work_chi2 += (long long)proposal * n_work;
        double sum = 0;
        for (int w = work_start[first] + threadIdx.x; w < work_start[first + n]; w += SUM_BLOCK) sum += work_chi2[w];
        sum = block_sum(sum, sums);
        if (threadIdx.x == 0) chi2[answer] = sum;
        return;
    }

    const int n_psf = patch->n_psf_per_source[band], n_sources = patch->n_sources;
    const Source& source = sources[(long long)proposal * n_sources + s];
    moments += (long long)proposal * n_work * widest * N_MOMENTS;
    double slopes[NPARAMS] = {0, 0, 0, 0, 0, 0, 0};
    for (long long k = threadIdx.x; k < (long long)n * n_psf; k += SUM_BLOCK) {
        const int exposure = first + (int)(k / n_psf), g = (int)(k % n_psf);
        double sum[N_MOMENTS] = {0, 0, 0, 0, 0, 0};
        for (int w = work_start[exposure]; w < work_start[exposure + 1]; w++) {
            const float* from = moments + ((long long)w * widest + (long long)s * n_psf + g) * N_MOMENTS;
#pragma unroll
            for (int m = 0; m < N_MOMENTS; m++) sum[m] += from[m];
        }
        const Projection p = project(*patch, source, band, exposure, s, g, psf_per_source);
        source_derivatives(p, patch->CW + 4 * ((long long)exposure * n_sources + s), sum, slopes);
    }
#pragma unroll
    for (int m = 0; m < NPARAMS; m++) {
        const double sum = block_sum(slopes[m], sums);
        if (threadIdx.x == 0) derivatives[(answer * n_sources + s) * NPARAMS + m] = (float)sum;
    }
}
