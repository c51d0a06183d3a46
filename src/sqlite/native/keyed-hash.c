#include "keyed-hash.h"

#include <string.h>

/* A big-endian machine would have to turn every word around, in the hash and in its key. sqlsync supports none. */
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "sqlsync's hash is written for little-endian machines"
#endif

/* Words of 64 bits that NH takes at once. */
#define PAIR_BYTES 16

/* An unsigned integer of 128 bits. */
typedef struct {
  uint64_t low;
  uint64_t high;
} wide;

static uint64_t load(const uint8_t *bytes) {
  uint64_t word;
  memcpy(&word, bytes, sizeof word);
  return word;
}

static void store(uint8_t *bytes, uint64_t word) { memcpy(bytes, &word, sizeof word); }

#if defined(__SIZEOF_INT128__) && !defined(SQLSYNC_NO_INT128)

__extension__ typedef unsigned __int128 uint128;
typedef uint128 accumulator;

static accumulator add_product(accumulator sum, uint64_t a, uint64_t b) { return sum + (uint128)a * b; }
static accumulator add(accumulator a, accumulator b) { return a + b; }
static wide result(accumulator sum) {
  wide parts = {(uint64_t)sum, (uint64_t)(sum >> 64)};
  return parts;
}

#else

typedef wide accumulator;

static accumulator add(accumulator a, accumulator b) {
  accumulator sum = {a.low + b.low, a.high + b.high};
  if (sum.low < a.low) sum.high++;
  return sum;
}

/* The product of two words from the four products of their halves. */
static accumulator add_product(accumulator sum, uint64_t a, uint64_t b) {
  const uint64_t half = 0xffffffff;
  const uint64_t low = (a & half) * (b & half);
  const uint64_t left = (a >> 32) * (b & half);
  const uint64_t right = (a & half) * (b >> 32);
  const uint64_t middle = (low >> 32) + (left & half) + (right & half);
  accumulator product = {(middle << 32) | (low & half),
                         (a >> 32) * (b >> 32) + (left >> 32) + (right >> 32) + (middle >> 32)};
  return add(sum, product);
}

static wide result(accumulator sum) { return sum; }

#endif

/* One step of NH: two words of data and of key. */
static accumulator add_pair(accumulator sum, const uint8_t *data, const uint8_t *key) {
  return add_product(sum, load(data) + load(key), load(data + 8) + load(key + 8));
}

/* NH of `length` bytes, which zeros fill up to a multiple of 16. */
static wide nh(const uint8_t *key, const uint8_t *data, size_t length) {
  /* Two sums, so that an addition need not wait for the one before. */
  accumulator even = {0};
  accumulator odd = {0};
  size_t at = 0;
  for (; length - at >= 2 * PAIR_BYTES; at += 2 * PAIR_BYTES) {
    even = add_pair(even, data + at, key + at);
    odd = add_pair(odd, data + at + PAIR_BYTES, key + at + PAIR_BYTES);
  }
  if (length - at >= PAIR_BYTES) {
    even = add_pair(even, data + at, key + at);
    at += PAIR_BYTES;
  }
  if (at < length) {
    uint8_t padded[PAIR_BYTES] = {0};
    memcpy(padded, data + at, length - at);
    odd = add_pair(odd, padded, key + at);
  }
  return result(add(even, odd));
}

typedef struct {
  uint64_t v0, v1, v2, v3;
} sip_state;

static uint64_t rotate(uint64_t word, unsigned bits) { return (word << bits) | (word >> (64 - bits)); }

static void sip_round(sip_state *s) {
  s->v0 += s->v1;
  s->v1 = rotate(s->v1, 13) ^ s->v0;
  s->v0 = rotate(s->v0, 32);
  s->v2 += s->v3;
  s->v3 = rotate(s->v3, 16) ^ s->v2;
  s->v0 += s->v3;
  s->v3 = rotate(s->v3, 21) ^ s->v0;
  s->v2 += s->v1;
  s->v1 = rotate(s->v1, 17) ^ s->v2;
  s->v2 = rotate(s->v2, 32);
}

static sip_state sip_start(const uint8_t *key) {
  const uint64_t k0 = load(key);
  const uint64_t k1 = load(key + 8);
  sip_state s = {k0 ^ 0x736f6d6570736575, k1 ^ 0x646f72616e646f6d, k0 ^ 0x6c7967656e657261, k1 ^ 0x7465646279746573};
  return s;
}

static void sip_word(sip_state *s, uint64_t word) {
  s->v3 ^= word;
  sip_round(s);
  sip_round(s);
  s->v0 ^= word;
}

static uint64_t sip_end(sip_state *s) {
  s->v2 ^= 0xff;
  for (int i = 0; i < 4; i++) sip_round(s);
  return s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
}

size_t sqlsync_key_bytes(size_t length) {
  return SQLSYNC_SIPHASH_KEY_BYTES + (length + PAIR_BYTES - 1) / PAIR_BYTES * PAIR_BYTES;
}

uint64_t sqlsync_siphash(const uint8_t *key, const uint8_t *data, size_t length) {
  sip_state s = sip_start(key);
  size_t at = 0;
  for (; length - at >= 8; at += 8) sip_word(&s, load(data + at));
  uint64_t last = (uint64_t)length << 56;
  for (size_t i = 0; at + i < length; i++) last |= (uint64_t)data[at + i] << (8 * i);
  sip_word(&s, last);
  return sip_end(&s);
}

uint64_t sqlsync_hash(const uint8_t *key, const uint8_t *data, size_t length) {
  const wide sum = nh(key + SQLSYNC_SIPHASH_KEY_BYTES, data, length);
  uint8_t input[24];
  store(input, sum.low);
  store(input + 8, sum.high);
  store(input + 16, (uint64_t)length);
  return sqlsync_siphash(key, input, sizeof input);
}

void sqlsync_hash_each(const uint8_t *key, const uint8_t *data, size_t unit, size_t count, uint8_t *out) {
  for (size_t i = 0; i < count; i++)
    store(out + i * SQLSYNC_HASH_BYTES, sqlsync_hash(key, data + i * unit, unit));
}

void sqlsync_hash_blocks(const uint8_t *key, const uint8_t *data, size_t pairs, uint8_t *out) {
  for (size_t i = 0; i < pairs; i++, data += 2 * SQLSYNC_BLOCK_BYTES, out += 3) {
    const uint64_t even = sqlsync_hash(key, data, SQLSYNC_BLOCK_BYTES);
    const uint64_t odd = sqlsync_hash(key, data + SQLSYNC_BLOCK_BYTES, SQLSYNC_BLOCK_BYTES);
    out[0] = (uint8_t)even;
    out[1] = (uint8_t)(((even >> 8) & 0x0f) | (odd << 4));
    out[2] = (uint8_t)(odd >> 4);
  }
}
