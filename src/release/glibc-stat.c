/*
 * stat and its kind for a binding that also runs with glibc older than 2.33, where they are static functions of each
 * program. Zig's own set errno within the binding, and SQLite reads the errno of the C library: a file that does not
 * exist yet would be an error of its own kind, and no new database could be made.
 */
#if defined(__x86_64__)
#define STAT_VERSION 1
#elif defined(__aarch64__)
#define STAT_VERSION 0
#else
#error "the version of glibc's struct stat is not known here"
#endif

struct stat;
struct stat64;

#define HIDDEN __attribute__((visibility("hidden")))
#define BY_NAME(name, versioned, type)                               \
  extern int versioned(int version, const char *path, struct type *to); \
  HIDDEN int name(const char *path, struct type *to) { return versioned(STAT_VERSION, path, to); }
#define BY_DESCRIPTOR(name, versioned, type)                       \
  extern int versioned(int version, int descriptor, struct type *to); \
  HIDDEN int name(int descriptor, struct type *to) { return versioned(STAT_VERSION, descriptor, to); }

BY_NAME(stat, __xstat, stat)
BY_NAME(lstat, __lxstat, stat)
BY_DESCRIPTOR(fstat, __fxstat, stat)
BY_NAME(stat64, __xstat64, stat64)
BY_NAME(lstat64, __lxstat64, stat64)
BY_DESCRIPTOR(fstat64, __fxstat64, stat64)
