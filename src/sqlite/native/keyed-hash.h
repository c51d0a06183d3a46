#ifndef SQLSYNC_KEYED_HASH_H
#define SQLSYNC_KEYED_HASH_H

#include <stddef.h>
#include <stdint.h>

/*
 * The hash of pages, nodes and blocks (protocol/SPEC.md, "Keyed hash"): NH with 64-bit words, whose result SipHash-2-4
 * makes pseudorandom. Both keys stand in one expanded key:
 *
 *     16 bytes: the key of SipHash │ the key of NH: as many bytes as the longest input, rounded up to 16
 *
 * No function reads or writes outside of the ranges that its comment names.
 */

#define SQLSYNC_SIPHASH_KEY_BYTES 16
#define SQLSYNC_HASH_BYTES 8
#define SQLSYNC_BLOCK_BYTES 128

/* Bytes of the expanded key that inputs of `length` bytes take. `length` must be below SIZE_MAX - 32. */
size_t sqlsync_key_bytes(size_t length);

/* SipHash-2-4 of `length` bytes under the 16 bytes of `key`. */
uint64_t sqlsync_siphash(const uint8_t *key, const uint8_t *data, size_t length);

/* The hash of `length` bytes. `key` has at least sqlsync_key_bytes(length) bytes. */
uint64_t sqlsync_hash(const uint8_t *key, const uint8_t *data, size_t length);

/* The hashes of `count` runs of `unit` bytes that follow each other, 8 bytes each, little-endian. */
void sqlsync_hash_each(const uint8_t *key, const uint8_t *data, size_t unit, size_t count, uint8_t *out);

/* The 12-bit hashes of 2 * `pairs` blocks of 128 bytes, two in three bytes. */
void sqlsync_hash_blocks(const uint8_t *key, const uint8_t *data, size_t pairs, uint8_t *out);

#endif
