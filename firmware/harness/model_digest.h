/* The digest of the model that is compiled in [R17], computed over its constants as they lie in memory. */
#ifndef MODEL_DIGEST_H
#define MODEL_DIGEST_H

#include "quantgru.h"

void model_digest(const qg_model *model, uint8_t digest[QG_DIGEST_BYTES]);

#endif
