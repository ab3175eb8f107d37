/* Counts the system calls of a process that change a watched folder, and lets the n-th of them go wrong.
 *
 * Preloaded (LD_PRELOAD), so that Python, C++ (torch, pyarrow) and Rust (safetensors, tokenizers) are all seen. Nothing is
 * counted before `faults_arm`. What is counted and what went wrong stands in memory that forks share.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum kind { NOTHING, FAIL, FAIL_ON, SHORT, KILL_BEFORE, KILL_AFTER, KILL_HALF, SIGNAL };

struct shared {
    long count;      /* writing calls so far */
    long hit;        /* those that went wrong */
    char call[32];   /* the first of these, and where */
    char path[256];
};

static struct shared *shared;
static char watched[PATH_MAX];
static size_t watched_length;
static volatile int armed;
static long wanted;
static int kind, number; /* number: errno, or the signal */

#define REAL(name) ((__typeof__(&name))real(#name))

static void *real(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) abort();
    return found;
}

struct shared *faults_share(void) {
    if (!shared)
        shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return shared;
}

void faults_arm(const char *folder, long n, int what, int value) {
    faults_share();
    memset(shared, 0, sizeof *shared);
    strncpy(watched, folder, sizeof watched - 1);
    watched_length = strlen(watched);
    wanted = n, kind = what, number = value;
    armed = 1;
}

void faults_disarm(void) { armed = 0; }

static int below(const char *path) {
    return strncmp(path, watched, watched_length) == 0 && (path[watched_length] == '/' || !path[watched_length]);
}

/* Where an open file lies; whether that is watched. */
static int of_fd(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return below(path);
}

/* The whole path of a name relative to an open folder; whether that is watched. */
static int of_name(int folder, const char *name, char *path) {
    if (!name) return 0;
    if (name[0] == '/') {
        snprintf(path, PATH_MAX, "%s", name);
        return below(path);
    }
    char start[PATH_MAX];
    if (folder == AT_FDCWD) {
        if (syscall(SYS_getcwd, start, sizeof start) <= 0) return 0;
    } else {
        of_fd(folder, start);
    }
    if ((size_t)snprintf(path, PATH_MAX, "%.2000s/%.2000s", start, name) >= PATH_MAX) return 0;
    return below(path);
}

static void die(void) {
    kill(0, SIGKILL); /* the whole group: workers, too */
    for (;;) pause();
}

/* Whether this call has its turn; `room` tells whether it takes disk space, `much` whether it has bytes to halve. */
static int turn(const char *call, const char *path, int room, int much) {
    long at = __sync_add_and_fetch(&shared->count, 1);
    int fits = kind == SHORT || kind == KILL_HALF ? much : room || !(number == ENOSPC || number == EINTR) || kind == SIGNAL;
    int struck = fits && at >= wanted && (kind == FAIL_ON || !shared->hit); /* the next one that it can happen to */
    if (!struck || kind == NOTHING) return NOTHING;
    if (__sync_fetch_and_add(&shared->hit, 1) == 0) {
        strncpy(shared->call, call, sizeof shared->call - 1);
        const char *shown = path + (below(path) ? watched_length : 0);
        strncpy(shared->path, shown, sizeof shared->path - 1);
    }
    if (kind == KILL_BEFORE) die();
    if (kind == SIGNAL) {
        kill(getpid(), number);
        return NOTHING;
    }
    if (kind == FAIL || kind == FAIL_ON) errno = number;
    return kind;
}

#define BEGIN(call, is_watched, room, much, failed)                         \
    int saved = errno, what = NOTHING;                                      \
    char path[PATH_MAX];                                                    \
    if (armed && (is_watched)) {                                            \
        errno = saved;                                                      \
        what = turn(call, path, room, much);                                \
        if (what == FAIL || what == FAIL_ON) return failed;                 \
    }                                                                       \
    errno = saved;

#define END                                                                 \
    if (what == KILL_AFTER) die();                                          \
    return result;

/* --- opening --- */

static int opens_to_write(int flags) { return (flags & O_ACCMODE) != O_RDONLY || flags & (O_CREAT | O_TRUNC); }

#define MODE                                                                \
    mode_t mode = 0;                                                        \
    if (flags & (O_CREAT | O_TMPFILE)) {                                    \
        va_list rest;                                                       \
        va_start(rest, flags);                                              \
        mode = va_arg(rest, mode_t);                                        \
        va_end(rest);                                                       \
    }

#define OPEN(name)                                                                                       \
    int name(const char *file, int flags, ...) {                                                         \
        MODE                                                                                             \
        BEGIN("open", opens_to_write(flags) && of_name(AT_FDCWD, file, path), flags & O_CREAT, 0, -1)    \
        int result = REAL(name)(file, flags, mode);                                                      \
        END                                                                                              \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                                                     \
    int name(int folder, const char *file, int flags, ...) {                                             \
        MODE                                                                                             \
        BEGIN("open", opens_to_write(flags) && of_name(folder, file, path), flags & O_CREAT, 0, -1)      \
        int result = REAL(name)(folder, file, flags, mode);                                              \
        END                                                                                              \
    }
OPENAT(openat)
OPENAT(openat64)

#define OPEN_2(name)                                                                                     \
    int name(const char *file, int flags);                                                               \
    int name(const char *file, int flags) {                                                              \
        BEGIN("open", opens_to_write(flags) && of_name(AT_FDCWD, file, path), 0, 0, -1)                  \
        int result = REAL(name)(file, flags);                                                            \
        END                                                                                              \
    }
OPEN_2(__open_2)
OPEN_2(__open64_2)

#define CREAT(name)                                                                                      \
    int name(const char *file, mode_t mode) {                                                            \
        BEGIN("open", of_name(AT_FDCWD, file, path), 1, 0, -1)                                           \
        int result = REAL(name)(file, mode);                                                             \
        END                                                                                              \
    }
CREAT(creat)
CREAT(creat64)

#define FOPEN(name)                                                                                      \
    FILE *name(const char *file, const char *mode) {                                                     \
        BEGIN("open", strpbrk(mode, "wa+") && of_name(AT_FDCWD, file, path), 1, 0, NULL)                 \
        FILE *result = REAL(name)(file, mode);                                                           \
        END                                                                                              \
    }
FOPEN(fopen)
FOPEN(fopen64)

/* --- bytes --- */

ssize_t write(int fd, const void *bytes, size_t size) {
    BEGIN("write", of_fd(fd, path), 1, size > 1, -1)
    ssize_t result = REAL(write)(fd, bytes, what == SHORT || what == KILL_HALF ? size / 2 : size);
    if (what == KILL_HALF) die();
    END
}

#define PWRITE(name, offset_type)                                                                        \
    ssize_t name(int fd, const void *bytes, size_t size, offset_type offset) {                           \
        BEGIN("pwrite", of_fd(fd, path), 1, size > 1, -1)                                                \
        ssize_t result = REAL(name)(fd, bytes, what == SHORT || what == KILL_HALF ? size / 2 : size, offset); \
        if (what == KILL_HALF) die();                                                                    \
        END                                                                                              \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

ssize_t writev(int fd, const struct iovec *parts, int count) {
    BEGIN("writev", of_fd(fd, path), 1, count > 1 || (count && parts[0].iov_len > 1), -1)
    ssize_t result;
    if (what == SHORT || what == KILL_HALF) { /* a part of it */
        struct iovec first = parts[0];
        if (count == 1) first.iov_len /= 2;
        result = REAL(writev)(fd, &first, 1);
    } else {
        result = REAL(writev)(fd, parts, count);
    }
    if (what == KILL_HALF) die();
    END
}

size_t fwrite(const void *bytes, size_t size, size_t count, FILE *file) {
    BEGIN("fwrite", of_fd(fileno(file), path), 1, 0, 0)
    size_t result = REAL(fwrite)(bytes, size, count, file);
    END
}

#define SENDFILE(name, offset_type)                                                                      \
    ssize_t name(int to, int from, offset_type *offset, size_t size) {                                   \
        BEGIN("sendfile", of_fd(to, path), 1, size > 1, -1)                                              \
        ssize_t result = REAL(name)(to, from, offset, what == SHORT || what == KILL_HALF ? 1 : size);    \
        if (what == KILL_HALF) die();                                                                    \
        END                                                                                              \
    }
SENDFILE(sendfile, off_t)
SENDFILE(sendfile64, off64_t)

ssize_t copy_file_range(int from, off64_t *start, int to, off64_t *end, size_t size, unsigned int flags) {
    BEGIN("copy_file_range", of_fd(to, path), 1, size > 1, -1)
    ssize_t result = REAL(copy_file_range)(from, start, to, end, what == SHORT || what == KILL_HALF ? 1 : size, flags);
    if (what == KILL_HALF) die();
    END
}

void *mmap(void *where, size_t size, int protection, int flags, int fd, off_t offset) {
    BEGIN("mmap", fd >= 0 && flags & MAP_SHARED && protection & PROT_WRITE && of_fd(fd, path), 1, 0, MAP_FAILED)
    void *result = (void *)syscall(SYS_mmap, where, size, protection, flags, fd, offset);
    END
}

void *mmap64(void *where, size_t size, int protection, int flags, int fd, off64_t offset) {
    return mmap(where, size, protection, flags, fd, offset);
}

/* --- calls on an open file --- */

#define ON_FD(call, name, declared, given, room)                                                         \
    int name declared {                                                                                  \
        BEGIN(call, of_fd(fd, path), room, 0, -1)                                                        \
        int result = REAL(name) given;                                                                   \
        END                                                                                              \
    }
ON_FD("fsync", fsync, (int fd), (fd), 1)
ON_FD("fsync", fdatasync, (int fd), (fd), 1)
ON_FD("truncate", ftruncate, (int fd, off_t size), (fd, size), 1)
ON_FD("truncate", ftruncate64, (int fd, off64_t size), (fd, size), 1)
ON_FD("fallocate", fallocate, (int fd, int mode, off_t offset, off_t size), (fd, mode, offset, size), 1)
ON_FD("fallocate", fallocate64, (int fd, int mode, off64_t offset, off64_t size), (fd, mode, offset, size), 1)
ON_FD("chmod", fchmod, (int fd, mode_t mode), (fd, mode), 0)
ON_FD("utime", futimens, (int fd, const struct timespec times[2]), (fd, times), 0)

#define ALLOCATE(name, offset_type)                                                                      \
    int name(int fd, offset_type offset, offset_type size) {                                             \
        BEGIN("fallocate", of_fd(fd, path), 1, 0, errno)                                                 \
        int result = REAL(name)(fd, offset, size);                                                       \
        END                                                                                              \
    }
ALLOCATE(posix_fallocate, off_t)
ALLOCATE(posix_fallocate64, off64_t)

/* --- calls on names --- */

#define ON_NAME(call, name, declared, given, folder, file, room)                                         \
    int name declared {                                                                                  \
        BEGIN(call, of_name(folder, file, path), room, 0, -1)                                            \
        int result = REAL(name) given;                                                                   \
        END                                                                                              \
    }
ON_NAME("mkdir", mkdir, (const char *file, mode_t mode), (file, mode), AT_FDCWD, file, 1)
ON_NAME("mkdir", mkdirat, (int folder, const char *file, mode_t mode), (folder, file, mode), folder, file, 1)
ON_NAME("rmdir", rmdir, (const char *file), (file), AT_FDCWD, file, 0)
ON_NAME("unlink", unlink, (const char *file), (file), AT_FDCWD, file, 0)
ON_NAME("unlink", unlinkat, (int folder, const char *file, int flags), (folder, file, flags), folder, file, 0)
ON_NAME("unlink", remove, (const char *file), (file), AT_FDCWD, file, 0)
ON_NAME("rename", rename, (const char *from, const char *file), (from, file), AT_FDCWD, file, 0)
ON_NAME("rename", renameat, (int there, const char *from, int folder, const char *file), (there, from, folder, file), folder,
        file, 0)
ON_NAME("rename", renameat2, (int there, const char *from, int folder, const char *file, unsigned int flags),
        (there, from, folder, file, flags), folder, file, 0)
ON_NAME("link", link, (const char *from, const char *file), (from, file), AT_FDCWD, file, 1)
ON_NAME("link", linkat, (int there, const char *from, int folder, const char *file, int flags),
        (there, from, folder, file, flags), folder, file, 1)
ON_NAME("symlink", symlink, (const char *from, const char *file), (from, file), AT_FDCWD, file, 1)
ON_NAME("symlink", symlinkat, (const char *from, int folder, const char *file), (from, folder, file), folder, file, 1)
ON_NAME("truncate", truncate, (const char *file, off_t size), (file, size), AT_FDCWD, file, 1)
ON_NAME("truncate", truncate64, (const char *file, off64_t size), (file, size), AT_FDCWD, file, 1)
ON_NAME("chmod", chmod, (const char *file, mode_t mode), (file, mode), AT_FDCWD, file, 0)
ON_NAME("chmod", fchmodat, (int folder, const char *file, mode_t mode, int flags), (folder, file, mode, flags), folder, file,
        0)
ON_NAME("utime", utimensat, (int folder, const char *file, const struct timespec times[2], int flags),
        (folder, file, times, flags), folder, file, 0)
