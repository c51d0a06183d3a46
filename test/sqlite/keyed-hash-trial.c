/*
 * The native hash by itself, for a compiler with sanitizers: inputs of every length up to 700 bytes, in memory of just their
 * size and the key's, at places that are no multiple of anything. Prints a line for each; the test compares it with big integers.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "keyed-hash.h"

/* The i-th byte of everything, so that the test can make the same. */
static uint8_t byte_at(size_t i) { return (uint8_t)(i * 167 + (i >> 8) * 13 + 5); }

/* `length` bytes that end where their memory ends. */
static uint8_t *filled(size_t length, size_t from) {
  uint8_t *bytes = malloc(length == 0 ? 1 : length);
  if (bytes == NULL) exit(2);
  for (size_t i = 0; i < length; i++) bytes[i] = byte_at(from + i);
  return bytes;
}

static void print(const uint8_t *bytes, size_t length) {
  for (size_t i = 0; i < length; i++) printf("%02x", bytes[i]);
  printf("\n");
}

int main(void) {
  for (size_t length = 0; length <= 700; length++) {
    uint8_t *key = filled(sqlsync_key_bytes(length), 0);
    uint8_t *data = filled(length, length);
    uint8_t *out = filled(SQLSYNC_HASH_BYTES, 0);
    sqlsync_hash_each(key, data, length, 1, out);
    print(out, SQLSYNC_HASH_BYTES);
    free(key);
    free(data);
    free(out);
  }
  uint8_t *key = filled(sqlsync_key_bytes(SQLSYNC_BLOCK_BYTES), 0);
  uint8_t *blocks = filled(4 * SQLSYNC_BLOCK_BYTES, 0);
  uint8_t *out = filled(6, 0);
  sqlsync_hash_blocks(key, blocks, 2, out);
  print(out, 6);
  free(key);
  free(blocks);
  free(out);
  return 0;
}
