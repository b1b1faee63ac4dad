#include "sha256.h"

#include "quantgru_port.h"

#include <string.h>

/* clang-format off */
static const uint32_t round_constants[64] QG_CONSTANT = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};
/* clang-format on */

static uint32_t rotate_right(uint32_t x, uint8_t n)
{
    return x >> n | x << (32 - n);
}

/* Word i + 16 of the schedule, in place of word i. */
static void extend_schedule(uint32_t words[16], uint8_t i)
{
    const uint32_t w1 = words[(i + 1) & 15];
    const uint32_t w14 = words[(i + 14) & 15];
    const uint32_t s0 = rotate_right(w1, 7) ^ rotate_right(w1, 18) ^ w1 >> 3;
    const uint32_t s1 = rotate_right(w14, 17) ^ rotate_right(w14, 19) ^ w14 >> 10;
    words[i] += s0 + words[(i + 9) & 15] + s1;
}

static void hash_block(sha256 *hash)
{
    uint32_t s[8]; /* a ... h */
    memcpy(s, hash->state, sizeof s);
    for (uint8_t round = 0; round < 64; ++round) {
        const uint8_t i = round & 15;
        const uint32_t constant = (uint32_t)QG_READ_S32((const int32_t *)(round_constants + round));
        const uint32_t choice = (s[4] & s[5]) ^ (~s[4] & s[6]);
        const uint32_t majority = (s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]);
        const uint32_t sum1 = rotate_right(s[4], 6) ^ rotate_right(s[4], 11) ^ rotate_right(s[4], 25);
        const uint32_t sum0 = rotate_right(s[0], 2) ^ rotate_right(s[0], 13) ^ rotate_right(s[0], 22);
        const uint32_t t1 = s[7] + sum1 + choice + constant + hash->words[i];
        memmove(s + 1, s, 7 * sizeof *s);
        s[4] += t1;
        s[0] = t1 + sum0 + majority;
        extend_schedule(hash->words, i);
    }
    for (uint8_t i = 0; i < 8; ++i) {
        hash->state[i] += s[i];
    }
}

void sha256_begin(sha256 *hash)
{
    static const uint32_t start[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    memcpy(hash->state, start, sizeof start);
    hash->n_bytes = 0;
}

void sha256_add(sha256 *hash, uint8_t byte)
{
    uint32_t *const word = hash->words + (hash->n_bytes >> 2 & 15);
    *word = *word << 8 | byte; /* four bytes push out what the word held before */
    ++hash->n_bytes;
    if ((hash->n_bytes & 63) == 0) {
        hash_block(hash);
    }
}

void sha256_end(sha256 *hash, uint8_t digest[SHA256_BYTES])
{
    const uint32_t n_bytes = hash->n_bytes;
    sha256_add(hash, 0x80);
    while ((hash->n_bytes & 63) != 56) {
        sha256_add(hash, 0);
    }
    hash->words[14] = n_bytes >> 29; /* the length in bits */
    hash->words[15] = n_bytes << 3;
    hash_block(hash);
    for (uint8_t i = 0; i < SHA256_BYTES; ++i) {
        digest[i] = (uint8_t)(hash->state[i >> 2] >> (24 - 8 * (i & 3)) & 0xff);
    }
}
