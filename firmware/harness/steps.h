/* Steps of the model under test: inputs from the line or from a generator, results one by one or digested. */
#ifndef STEPS_H
#define STEPS_H

#include "requests.h"

/* STEP, DIGEST and SEED of PROTOCOL.md: as request_check and request_execute. */
verdict steps_check(const harness *self, const request *asked);
verdict digest_check(const harness *self, const request *asked);
verdict seed_check(const request *asked);
uint16_t steps_execute(harness *self, const request *asked, uint8_t *payload);
uint16_t digest_execute(harness *self, const request *asked, uint8_t *payload);
uint16_t seed_execute(harness *self, const request *asked, uint8_t *payload);

/* One step on zeros and its outputs: a step's deepest stack is used, and the state is not as it was. */
void steps_try(held_model *model);

#endif
