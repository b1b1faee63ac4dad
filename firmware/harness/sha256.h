/* SHA-256 (FIPS 180-4) of bytes that come one after the other. */
#ifndef SHA256_H
#define SHA256_H

#include <stdint.h>

#define SHA256_BYTES 32

typedef struct sha256 {
    uint32_t state[8];
    uint32_t words[16]; /* the block that is being filled */
    uint32_t n_bytes;   /* below 2^32 */
} sha256;

void sha256_begin(sha256 *hash);
void sha256_add(sha256 *hash, uint8_t byte);
void sha256_end(sha256 *hash, uint8_t digest[SHA256_BYTES]);

#endif
