// Runs CUDA kernel sources on the CPU, one thread after another, so that they can be tested anywhere.
//
// A block is a set of fibers in one OS thread. A fiber runs until its kernel ends or it reaches
// __syncthreads; when every fiber of the block has reached it, all go on. A barrier that only some
// threads of a block reach, which hangs or worse on a GPU, is an error here. Blocks run one after
// another; shared memory is poisoned between them, so that reading it before writing shows.

#pragma once

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
#define __launch_bounds__(n)
#define __shared__ static __attribute__((section("host_shared")))

struct uint3 { unsigned int x, y, z; };
struct alignas(16) uint4 { unsigned int x, y, z, w; };
inline uint4 make_uint4(unsigned int x, unsigned int y, unsigned int z, unsigned int w) { return {x, y, z, w}; }

static uint3 threadIdx, blockIdx, blockDim, gridDim;

template <class T> inline T min(T a, T b) { return b < a ? b : a; }
inline unsigned int atomicAdd(unsigned int* at, unsigned int n) { const unsigned int old = *at; *at += n; return old; }
inline unsigned int atomicMin(unsigned int* at, unsigned int n) { const unsigned int old = *at; *at = min(old, n); return old; }

namespace host {

enum State { running, waiting, finished };
struct Fiber { ucontext_t context; uint3 thread; State state; std::vector<char> stack; };

static ucontext_t scheduler;
static Fiber* current;
static void (*body)(void* call);
static void* call;

static void enter() {
    body(call);
    current->state = finished;
    swapcontext(&current->context, &scheduler);
}

static void reach_barrier() {
    current->state = waiting;
    swapcontext(&current->context, &scheduler);
}

// Bounds of the section that holds all shared variables; absent when a source has none.
extern "C" char __start_host_shared[] __attribute__((weak));
extern "C" char __stop_host_shared[] __attribute__((weak));

static void poison_shared() {
    if (__start_host_shared) std::memset(__start_host_shared, 0xA5, __stop_host_shared - __start_host_shared);
}

static void run_block(std::vector<Fiber>& fibers) {
    poison_shared();
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
    for (size_t ended = 0; ended < fibers.size();) {
        size_t at_barrier = 0;
        ended = 0;
        for (Fiber& f : fibers) {
            if (f.state != finished) {
                f.state = running;
                current = &f;
                threadIdx = f.thread;
                swapcontext(&scheduler, &f.context);
            }
            at_barrier += f.state == waiting;
            ended += f.state == finished;
        }
        if (at_barrier && ended) throw std::runtime_error("only some threads of a block reach a barrier");
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
static void __syncthreads() {
    host::reach_barrier();
    threadIdx = host::current->thread;
}

#define HOST_EXPORT(kernel)                                                                            \
    extern "C" int host_##kernel(const unsigned* grid, const unsigned* block, void** arguments, char* message) { \
        return host::launch(kernel, grid, block, arguments, message);                                  \
    }
