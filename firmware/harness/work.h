/* Requests to the model under test: of one that runs step by step in steps.c, of one that needs whole sequences in
 * runs.c. HELD_STEPS of held_model.h says which of the two files is used. */
#ifndef WORK_H
#define WORK_H

#include "requests.h"

/* Whether it is the type of such a request. */
uint8_t work_knows(uint8_t type);

/* As request_check and request_execute, where there is a model and it knows the type. */
verdict work_check(const harness *self, const request *asked);
uint16_t work_execute(harness *self, const request *asked, uint8_t *payload);

/* One step on zeros and its outputs: the deepest stack is used, and the model is not as it was. */
void work_try(held_model *model);

#endif
