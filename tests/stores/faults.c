/* Preloaded into an interpreter: makes the n-th change of files below a folder fail, or be short.

   It stands between every library and the operating system, HDF5 and C included, where replacing
   functions of Python's os module does not reach. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static char folder[4096];
static int left, error, for_good;
static const char *failed = "";

/* Fail the n-th call with an error of errno, once or from then on; with error 0, writes that have
   more than a byte write half of it. */
void faults_arm(const char *below, int n, int with, int on)
{
    snprintf(folder, sizeof folder, "%s", below);
    left = n, error = with, for_good = on, failed = "";
}

/* Return the name of the call that failed; empty when none did. */
const char *faults_disarm(void)
{
    folder[0] = 0;
    return failed;
}

int faults_left(void)
{
    return left;
}

static int below(const char *path)
{
    return folder[0] && strncmp(path, folder, strlen(folder)) == 0;
}

static int file_below(int descriptor)
{
    char link[64], path[4096] = "";
    if (!folder[0])
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    return readlink(link, path, sizeof path - 1) > 0 && below(path);
}

static int is_next(const char *call, int counts)
{
    if (!counts)
        return 0;
    int now = __atomic_sub_fetch(&left, 1, __ATOMIC_SEQ_CST);
    if (now > 0 || (now < 0 && !for_good))
        return 0;
    failed = now ? failed : call;
    errno = error;
    return 1;
}

#define REAL(call) ((__typeof__(&call))dlsym(RTLD_NEXT, #call))

#define FAILS(result, call, counts, parameters, ...) \
    result call parameters { return error && is_next(#call, counts) ? -1 : REAL(call)(__VA_ARGS__); }

#define WRITES(call, size, parameters, ...) \
    ssize_t call parameters \
    { \
        if (is_next(#call, file_below(file) && (error || size > 1))) { \
            if (error) \
                return -1; \
            size -= size / 2; \
        } \
        return REAL(call)(__VA_ARGS__); \
    }

#define OPENS(call, counts, parameters, ...) \
    int call parameters \
    { \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest); \
        if (error && is_next(#call, flags & O_CREAT && (counts))) \
            return -1; \
        return REAL(call)(__VA_ARGS__, mode); \
    }

WRITES(write, n, (int file, const void *from, size_t n), file, from, n)
WRITES(pwrite, n, (int file, const void *from, size_t n, off_t at), file, from, n, at)
WRITES(pwrite64, n, (int file, const void *from, size_t n, off64_t at), file, from, n, at)
WRITES(writev, n, (int file, const struct iovec *from, int n), file, from, n)
WRITES(pwritev, n, (int file, const struct iovec *from, int n, off_t at), file, from, n, at)
WRITES(pwritev64, n, (int file, const struct iovec *from, int n, off64_t at), file, from, n, at)
FAILS(int, fsync, file_below(file), (int file), file)
FAILS(int, fdatasync, file_below(file), (int file), file)
FAILS(int, ftruncate, file_below(file), (int file, off_t size), file, size)
FAILS(int, ftruncate64, file_below(file), (int file, off64_t size), file, size)
FAILS(int, fallocate, file_below(file), (int file, int mode, off_t at, off_t n), file, mode, at, n)
FAILS(int, rename, below(b), (const char *a, const char *b), a, b)
FAILS(int, renameat, below(b), (int x, const char *a, int y, const char *b), x, a, y, b)
FAILS(int, link, below(b), (const char *a, const char *b), a, b)
FAILS(int, linkat, below(b), (int x, const char *a, int y, const char *b, int f), x, a, y, b, f)
FAILS(int, unlink, error != ENOSPC && below(path), (const char *path), path)
FAILS(int, mkdir, below(path), (const char *path, mode_t mode), path, mode)
FAILS(int, chmod, below(path), (const char *path, mode_t mode), path, mode)
OPENS(open, below(path), (const char *path, int flags, ...), path, flags)
OPENS(open64, below(path), (const char *path, int flags, ...), path, flags)
OPENS(openat, below(path), (int at, const char *path, int flags, ...), at, path, flags)
OPENS(openat64, below(path), (int at, const char *path, int flags, ...), at, path, flags)
