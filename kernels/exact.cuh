// float32 arithmetic that gives NumPy's bits whatever the compiler is told.
//
// CuPy compiles with -ftz=true, which flushes denormals in ordinary expressions, and a compiler may
// contract a * b + c into one rounding. PTX instructions with an explicit .rn and no .ftz are immune
// to both. Questions about a value are asked of its bits for the same reason. The plain branch is for
// a C++ compiler for the CPU, which must be told -ffp-contract=off.
//
// The bits of a NaN that comes out of arithmetic are each processor's own, so no kernel computes
// with one: NaNs are masked or passed through.

#ifndef FPGPU_EXACT
#define FPGPU_EXACT

#include "tables.cuh"

#ifdef __CUDACC__

__device__ __forceinline__ float from_bits(word w) { return __uint_as_float(w); }
__device__ __forceinline__ word to_bits(float f) { return __float_as_uint(f); }
__device__ __forceinline__ word swap_bytes(word w) { return __byte_perm(w, 0, 0x0123); }

#define FPGPU_EXACT_OPERATION(name, instruction)                              \
    __device__ __forceinline__ word name(word a, word b) {                    \
        float r;                                                              \
        asm(instruction " %0, %1, %2;" : "=f"(r)                              \
            : "f"(from_bits(a)), "f"(from_bits(b)));                          \
        return to_bits(r);                                                    \
    }
FPGPU_EXACT_OPERATION(subtract, "sub.rn.f32")
FPGPU_EXACT_OPERATION(multiply, "mul.rn.f32")
FPGPU_EXACT_OPERATION(divide, "div.rn.f32")

// a > b; false when either is NaN
__device__ __forceinline__ bool greater(word a, word b) {
    int r;
    asm("{ .reg .pred p; setp.gt.f32 p, %1, %2; selp.s32 %0, 1, 0, p; }"
        : "=r"(r) : "f"(from_bits(a)), "f"(from_bits(b)));
    return r;
}

#else

__device__ __forceinline__ float from_bits(word w) { float f; __builtin_memcpy(&f, &w, 4); return f; }
__device__ __forceinline__ word to_bits(float f) { word w; __builtin_memcpy(&w, &f, 4); return w; }
__device__ __forceinline__ word swap_bytes(word w) { return __builtin_bswap32(w); }
__device__ __forceinline__ word subtract(word a, word b) { return to_bits(from_bits(a) - from_bits(b)); }
__device__ __forceinline__ word multiply(word a, word b) { return to_bits(from_bits(a) * from_bits(b)); }
__device__ __forceinline__ word divide(word a, word b) { return to_bits(from_bits(a) / from_bits(b)); }
__device__ __forceinline__ bool greater(word a, word b) { return from_bits(a) > from_bits(b); }

#endif

__device__ __forceinline__ bool is_finite(word w) { return (w & 0x7f800000u) != 0x7f800000u; }
__device__ __forceinline__ bool is_nan(word w) { return (w & 0x7fffffffu) > 0x7f800000u; }

// below zero, which -0.0 is not; only for values that are no NaN
__device__ __forceinline__ bool is_negative(word w) { return w > 0x80000000u; }
__device__ __forceinline__ bool is_zero(word w) { return (w & 0x7fffffffu) == 0; }

#endif
