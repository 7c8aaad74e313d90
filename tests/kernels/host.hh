// Runs CUDA kernel sources on the CPU, one thread after another, so that they can be tested anywhere.
//
// A block is a set of fibers in one OS thread. A fiber runs until its kernel ends or it reaches
// __syncthreads or a barrier of its warp; when every fiber of the block, or of the warp, has reached
// it, all go on. A barrier that only some of them reach, which hangs or worse on a GPU, is an error
// here. Votes and shuffles are barriers that leave a value. Blocks run one after another; shared
// memory is poisoned between them, so that reading it before writing shows.

#pragma once

#include <cmath>
#include <cstring>
#include <stdexcept>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>
#include <ucontext.h>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static __attribute__((section("host_shared")))

struct uint3 { unsigned int x, y, z; };
struct alignas(8) uint2 { unsigned int x, y; };
struct alignas(16) uint4 { unsigned int x, y, z, w; };
inline uint4 make_uint4(unsigned int x, unsigned int y, unsigned int z, unsigned int w) { return {x, y, z, w}; }

static uint3 threadIdx, blockIdx, blockDim, gridDim;

template <class T> inline T min(T a, T b) { return b < a ? b : a; }
inline int __popc(unsigned int n) { return __builtin_popcount(n); }
inline void sincospi(double x, double* sine, double* cosine) {
    *sine = std::sin(M_PI * x);
    *cosine = std::cos(M_PI * x);
}
inline unsigned int atomicAdd(unsigned int* at, unsigned int n) { const unsigned int old = *at; *at += n; return old; }
inline unsigned int atomicMin(unsigned int* at, unsigned int n) { const unsigned int old = *at; *at = min(old, n); return old; }

namespace host {

enum State { running, at_block, at_warp, finished };
struct Fiber {
    ucontext_t context;
    uint3 thread;
    State state;
    std::vector<char> stack;
    double left; // in a vote or a shuffle, for the others of the warp
};

const size_t warp_size = 32;

static ucontext_t scheduler;
static Fiber* fibers; // of the block
static Fiber* current;
static void (*body)(void* call);
static void* call;

static void enter() {
    body(call);
    current->state = finished;
    swapcontext(&current->context, &scheduler);
}

static void reach_barrier(State where) {
    current->state = where;
    swapcontext(&current->context, &scheduler);
    threadIdx = current->thread;
}

// Lets fibers go on that all wait at one barrier; says whether they do, or have all finished.
static bool release(Fiber* first, size_t n, State where) {
    size_t waiting = 0, ended = 0;
    for (size_t k = 0; k < n; k++) {
        waiting += first[k].state == where;
        ended += first[k].state == finished;
    }
    if (waiting == n)
        for (size_t k = 0; k < n; k++) first[k].state = running;
    return waiting == n || ended == n;
}

// What the fiber `lane` of the current one's warp leaves, once all have left theirs.
static Fiber* leave(double value) {
    const size_t number = current - fibers;
    current->left = value;
    reach_barrier(at_warp);
    return fibers + number / warp_size * warp_size;
}

// Bounds of the section that holds all shared variables; absent when a source has none.
extern "C" char __start_host_shared[] __attribute__((weak));
extern "C" char __stop_host_shared[] __attribute__((weak));

static void poison_shared() {
    if (__start_host_shared) std::memset(__start_host_shared, 0xA5, __stop_host_shared - __start_host_shared);
}

static void run_block(std::vector<Fiber>& all) {
    poison_shared();
    fibers = all.data();
    size_t n = 0;
    for (unsigned z = 0; z < blockDim.z; z++)
        for (unsigned y = 0; y < blockDim.y; y++)
            for (unsigned x = 0; x < blockDim.x; x++, n++) {
                Fiber& f = fibers[n];
                f.thread = {x, y, z};
                f.state = running;
                getcontext(&f.context);
                f.context.uc_stack.ss_sp = f.stack.data();
                f.context.uc_stack.ss_size = f.stack.size();
                f.context.uc_link = nullptr;
                makecontext(&f.context, enter, 0);
            }
    for (bool ended = false; !ended;) {
        for (size_t k = 0; k < n; k++) {
            if (fibers[k].state != running) continue;
            current = fibers + k;
            threadIdx = current->thread;
            swapcontext(&scheduler, &current->context);
        }
        bool together = release(fibers, n, at_block);
        ended = together && fibers[0].state == finished;
        for (size_t k = 0; k < n && !together; k += warp_size)
            together |= release(fibers + k, min(warp_size, n - k), at_warp) && fibers[k].state == running;
        if (!together) throw std::runtime_error("only some threads of a block or a warp reach a barrier");
    }
}

template <class... A, size_t... I>
void invoke(void (*kernel)(A...), void** arguments, std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_cv_t<A>*>(arguments[I])...);
}

// Runs a kernel over a grid; arguments as cuLaunchKernel takes them. Returns 0, or 1 with a message.
template <class... A>
int launch(void (*kernel)(A...), const unsigned* grid, const unsigned* block, void** arguments, char* message) {
    using Call = std::pair<void (*)(A...), void**>;
    Call this_call(kernel, arguments);
    call = &this_call;
    body = [](void* c) {
        const Call& k = *static_cast<Call*>(c);
        invoke(k.first, k.second, std::index_sequence_for<A...>());
    };
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {block[0], block[1], block[2]};
    try {
        std::vector<Fiber> fibers(size_t(block[0]) * block[1] * block[2]);
        for (Fiber& f : fibers) f.stack.resize(32768);
        for (unsigned z = 0; z < grid[2]; z++)
            for (unsigned y = 0; y < grid[1]; y++)
                for (unsigned x = 0; x < grid[0]; x++) {
                    blockIdx = {x, y, z};
                    run_block(fibers);
                }
    } catch (const std::exception& error) {
        std::strncpy(message, error.what(), 255);
        return 1;
    }
    return 0;
}

} // namespace host

// Every thread of a block comes here before any goes on.
static void __syncthreads() { host::reach_barrier(host::at_block); }

// The same for the 32 threads of a warp, all of which must take part.
static void __syncwarp() { host::reach_barrier(host::at_warp); }

static unsigned int __ballot_sync(unsigned int, bool vote) {
    const host::Fiber* warp = host::leave(vote);
    unsigned int votes = 0;
    for (size_t lane = 0; lane < host::warp_size; lane++) votes |= (warp[lane].left != 0 ? 1u : 0u) << lane;
    __syncwarp();
    return votes;
}

template <class T> T __shfl_xor_sync(unsigned int, T value, int lanes) {
    const host::Fiber* warp = host::leave(value);
    const T found = warp[(host::current - warp) ^ lanes].left;
    __syncwarp();
    return found;
}

#define HOST_EXPORT(kernel)                                                                            \
    extern "C" int host_##kernel(const unsigned* grid, const unsigned* block, void** arguments, char* message) { \
        return host::launch(kernel, grid, block, arguments, message);                                  \
    }
