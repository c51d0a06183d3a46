/*
 * What Node.js loads: better-sqlite3's addon, with the functions of keyed-hash.c and one system call beside its classes.
 * Node.js itself clones files by their paths only, and closing what it opens drops the locks of SQLite. Every argument is
 * checked here, so that no call from JavaScript reads or writes outside of the arrays that it passes.
 */
#include <errno.h>
#include <node_api.h>
#ifdef __linux__
#include <sys/ioctl.h>
/* linux/fs.h has it too, where the headers of Linux are installed. */
#ifndef FICLONE
#define FICLONE _IOW(0x94, 9, int)
#endif
#endif

#include "keyed-hash.h"

/* better-sqlite3's own initializer: build-binding.ts compiles it under this name. */
napi_value sqlsync_better_sqlite3_init(napi_env env, napi_value exports);

typedef struct {
  uint8_t *data;
  size_t length;
} byte_array;

static int get_bytes(napi_env env, napi_value value, byte_array *bytes) {
  bool is_typed_array = false;
  if (napi_is_typedarray(env, value, &is_typed_array) != napi_ok || !is_typed_array) return 0;
  napi_typedarray_type type;
  void *data = NULL;
  if (napi_get_typedarray_info(env, value, &type, &bytes->length, &data, NULL, NULL) != napi_ok) return 0;
  /* An empty array has no address, and none may be added to. */
  static uint8_t nothing[1];
  bytes->data = data == NULL ? nothing : data;
  return type == napi_uint8_array;
}

/* A whole number from 0 to 2^53 that fits a size_t. */
static int get_size(napi_env env, napi_value value, size_t *size) {
  double number;
  if (napi_get_value_double(env, value, &number) != napi_ok) return 0;
  if (!(number >= 0 && number <= 9007199254740992.0 && number <= (double)(SIZE_MAX / 2))) return 0;
  *size = (size_t)number;
  return (double)*size == number;
}

static napi_value refuse(napi_env env, const char *message) {
  napi_throw_range_error(env, NULL, message);
  return NULL;
}

/* keyedHashEach(key, bytes, unit, count, out, offset): 8 bytes to `out` for each run of `unit` bytes. */
static napi_value hash_each(napi_env env, napi_callback_info info) {
  napi_value arg[6];
  size_t argc = 6;
  byte_array key, bytes, out;
  size_t unit, count, offset;
  if (napi_get_cb_info(env, info, &argc, arg, NULL, NULL) != napi_ok || argc < 6 ||
      !get_bytes(env, arg[0], &key) || !get_bytes(env, arg[1], &bytes) || !get_size(env, arg[2], &unit) ||
      !get_size(env, arg[3], &count) || !get_bytes(env, arg[4], &out) || !get_size(env, arg[5], &offset))
    return refuse(env, "keyedHashEach: key, bytes, unit, count, out and offset are expected");
  if (unit > 0 && count > bytes.length / unit)
    return refuse(env, "keyedHashEach: fewer bytes than count times unit");
  /* A unit within the key is bounded by memory: rounding it up cannot overflow. */
  if (unit > key.length || sqlsync_key_bytes(unit) > key.length) return refuse(env, "keyedHashEach: the key is too short");
  if (offset > out.length || count > (out.length - offset) / SQLSYNC_HASH_BYTES)
    return refuse(env, "keyedHashEach: out has no room for the hashes");
  if (count > 0) sqlsync_hash_each(key.data, bytes.data, unit, count, out.data + offset);
  return NULL;
}

/* keyedHashBlocks(key, bytes, out, offset): 3 bytes to `out` for each 256 bytes. */
static napi_value hash_blocks(napi_env env, napi_callback_info info) {
  napi_value arg[4];
  size_t argc = 4;
  byte_array key, bytes, out;
  size_t offset;
  if (napi_get_cb_info(env, info, &argc, arg, NULL, NULL) != napi_ok || argc < 4 ||
      !get_bytes(env, arg[0], &key) || !get_bytes(env, arg[1], &bytes) || !get_bytes(env, arg[2], &out) ||
      !get_size(env, arg[3], &offset))
    return refuse(env, "keyedHashBlocks: key, bytes, out and offset are expected");
  if (bytes.length % (2 * SQLSYNC_BLOCK_BYTES) != 0)
    return refuse(env, "keyedHashBlocks: bytes are no whole pairs of blocks");
  const size_t pairs = bytes.length / (2 * SQLSYNC_BLOCK_BYTES);
  if (sqlsync_key_bytes(SQLSYNC_BLOCK_BYTES) > key.length)
    return refuse(env, "keyedHashBlocks: the key is too short");
  if (offset > out.length || pairs > (out.length - offset) / 3)
    return refuse(env, "keyedHashBlocks: out has no room for the hashes");
  if (pairs > 0) sqlsync_hash_blocks(key.data, bytes.data, pairs, out.data + offset);
  return NULL;
}

/* cloneFile(to, from): the file of one descriptor shares the blocks of another's from now on. Returns 0, or an errno. */
static napi_value clone_file(napi_env env, napi_callback_info info) {
  napi_value arg[2], result;
  size_t argc = 2;
  int32_t to, from;
  if (napi_get_cb_info(env, info, &argc, arg, NULL, NULL) != napi_ok || argc < 2 ||
      napi_get_value_int32(env, arg[0], &to) != napi_ok || napi_get_value_int32(env, arg[1], &from) != napi_ok)
    return refuse(env, "cloneFile: two descriptors are expected");
#ifdef FICLONE
  const int32_t error = ioctl(to, FICLONE, from) == 0 ? 0 : errno;
#else
  const int32_t error = ENOTSUP;
#endif
  if (napi_create_int32(env, error, &result) != napi_ok) return NULL;
  return result;
}

NAPI_MODULE_INIT() {
  const napi_property_descriptor functions[] = {
      {"keyedHashEach", NULL, hash_each, NULL, NULL, NULL, napi_default, NULL},
      {"keyedHashBlocks", NULL, hash_blocks, NULL, NULL, NULL, napi_default, NULL},
      {"cloneFile", NULL, clone_file, NULL, NULL, NULL, napi_default, NULL},
  };
  napi_value initialized = sqlsync_better_sqlite3_init(env, exports);
  if (initialized == NULL) return NULL;
  if (napi_define_properties(env, initialized, 3, functions) != napi_ok) return NULL;
  return initialized;
}
