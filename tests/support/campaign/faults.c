/* Calls that fail on order: preloaded, it stands between a process and libc, and so under every library in it.

   Nothing happens until arm(); from then on the calls of the kinds in `kinds` that concern a path below `root` are
   counted, and those numbered [first, first + times) fail with errno `error`, are carried out by half (SHORT), or kill
   the process before they are carried out (KILL). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { OPEN = 1, WRITE = 2, SYNC = 4, NAME = 8, READ = 16 };
enum { KILL = -1, SHORT = -2 };

static char root[PATH_MAX];
static int kinds, action;
static long first, times;
static atomic_long calls;

void faults_arm(const char *below, int which, int error, long from, long count) {
    strncpy(root, below, sizeof root - 1);
    action = error, first = from, times = count, kinds = which;
    atomic_store(&calls, 0);
}

long faults_calls(void) { return calls; }

static int is_below(const char *path) { return strncmp(path, root, strlen(root)) == 0; }

static int path_below(int directory, const char *path) {
    char full[PATH_MAX], link[64];
    if (path[0] == '/') return is_below(path);
    if (directory == AT_FDCWD) return getcwd(full, sizeof full) && is_below(full);
    snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
    ssize_t size = readlink(link, full, sizeof full - 1);
    return size > 0 && (full[size] = 0, is_below(full));
}

static int file_below(int file) { return path_below(file, ""); }

/* 0: carry it out; an errno: fail; SHORT: half of it. */
static int verdict(int kind, int below) {
    if (!below) return 0;
    long number = atomic_fetch_add(&calls, 1);
    if (number < first || number - first >= times) return 0;
    if (action == KILL) raise(SIGKILL);
    if (action == SHORT) return kind == WRITE ? SHORT : 0;
    return action;
}

#define REAL(name) static __typeof__(name) *real; if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)
#define FAIL(value) do { errno = told; return value; } while (0)
#define SIZED(name, kind, type, parameters, half, arguments)                                                  \
    ssize_t name parameters {                                                                                 \
        REAL(name);                                                                                           \
        int told = (kinds & kind) ? verdict(kind, file_below(file)) : 0;                                       \
        if (told > 0) FAIL(-1);                                                                               \
        if (told == SHORT && size > 1) return real half;                                                      \
        return real arguments;                                                                                \
    }

SIZED(write, WRITE, const void, (int file, const void *data, size_t size), (file, data, size / 2), (file, data, size))
SIZED(pwrite, WRITE, const void, (int file, const void *data, size_t size, off_t at), (file, data, size / 2, at),
      (file, data, size, at))
SIZED(pwrite64, WRITE, const void, (int file, const void *data, size_t size, off64_t at), (file, data, size / 2, at),
      (file, data, size, at))
SIZED(read, READ, void, (int file, void *data, size_t size), (file, data, size), (file, data, size))
SIZED(pread, READ, void, (int file, void *data, size_t size, off_t at), (file, data, size, at), (file, data, size, at))
SIZED(pread64, READ, void, (int file, void *data, size_t size, off64_t at), (file, data, size, at),
      (file, data, size, at))

size_t fwrite(const void *data, size_t size, size_t count, FILE *file) {
    REAL(fwrite);
    int told = (kinds & WRITE) ? verdict(WRITE, file_below(fileno(file))) : 0;
    if (told > 0) FAIL(0);
    return real(data, size, count, file); /* stdio carries on after a short write by itself */
}

size_t fread(void *data, size_t size, size_t count, FILE *file) {
    REAL(fread);
    int told = (kinds & READ) ? verdict(READ, file_below(fileno(file))) : 0;
    if (told > 0) FAIL(0);
    return real(data, size, count, file);
}

#define PLAIN(name, kind, parameters, below, arguments)                                                       \
    int name parameters {                                                                                     \
        REAL(name);                                                                                           \
        int told = (kinds & kind) ? verdict(kind, below) : 0;                                                 \
        if (told > 0) FAIL(-1);                                                                               \
        return real arguments;                                                                                \
    }

PLAIN(fsync, SYNC, (int file), file_below(file), (file))
PLAIN(fdatasync, SYNC, (int file), file_below(file), (file))
PLAIN(ftruncate, WRITE, (int file, off_t size), file_below(file), (file, size))
PLAIN(ftruncate64, WRITE, (int file, off64_t size), file_below(file), (file, size))
PLAIN(rename, NAME, (const char *from, const char *to), path_below(AT_FDCWD, to), (from, to))
PLAIN(link, NAME, (const char *from, const char *to), path_below(AT_FDCWD, to), (from, to))
PLAIN(mkdir, NAME, (const char *path, mode_t mode), path_below(AT_FDCWD, path), (path, mode))
PLAIN(rmdir, NAME, (const char *path), path_below(AT_FDCWD, path), (path))
PLAIN(unlink, NAME, (const char *path), path_below(AT_FDCWD, path), (path))
PLAIN(unlinkat, NAME, (int in, const char *path, int flags), path_below(in, path), (in, path, flags))

#define OPENS(name, head, tail, below)                                                                        \
    int name head {                                                                                           \
        mode_t mode = 0;                                                                                      \
        if (flags & (O_CREAT | O_TMPFILE)) {                                                                  \
            va_list more;                                                                                     \
            va_start(more, flags), mode = va_arg(more, mode_t), va_end(more);                                  \
        }                                                                                                     \
        REAL(name);                                                                                           \
        int kind = flags & (O_WRONLY | O_RDWR | O_CREAT) ? OPEN : READ;                                       \
        int told = (kinds & kind) ? verdict(kind, below) : 0;                                                 \
        if (told > 0) FAIL(-1);                                                                               \
        return real tail;                                                                                     \
    }

OPENS(open, (const char *path, int flags, ...), (path, flags, mode), path_below(AT_FDCWD, path))
OPENS(open64, (const char *path, int flags, ...), (path, flags, mode), path_below(AT_FDCWD, path))
OPENS(openat, (int in, const char *path, int flags, ...), (in, path, flags, mode), path_below(in, path))
OPENS(openat64, (int in, const char *path, int flags, ...), (in, path, flags, mode), path_below(in, path))
