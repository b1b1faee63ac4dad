/* Runs of whole sequences, layer after layer [R22 ... R24]. */
#include "quantgru.h"

#include <string.h>

/* What the next layer reads and where it writes, in its own order of steps: step t is at x + t x_stride, and goes to
 * y + t y_stride. The first layer that writes reads the inputs; all others read the rows, and write where they read. */
typedef struct run {
    const qg_work *work;
    const qg_embedding *embedding; /* what is read are its tokens; NULL: what is read are the values themselves */
    const int16_t *initial_states; /* of the layers still to run; NULL: their own */
    const int16_t *x;
    int16_t *y;
    ptrdiff_t x_stride;
    ptrdiff_t y_stride;
    uint16_t n_steps;
} run;

static const int16_t *read_step(const run *self, uint16_t t)
{
    const int16_t *const x = self->x + (ptrdiff_t)t * self->x_stride;
    int16_t *const vector = self->work->scratch.vectors[0];
    if (self->embedding == NULL) {
        return x;
    }
    qg_look_up(self->embedding, x, vector);
    return vector;
}

static int16_t *written_step(const run *self, uint16_t t)
{
    return self->y + (ptrdiff_t)t * self->y_stride;
}

static void go_on_with_what_was_written(run *self)
{
    self->x = self->y;
    self->x_stride = self->y_stride;
    self->embedding = NULL;
}

static uint8_t reads_rows(const run *self)
{
    return self->x == self->y;
}

static void reverse(run *self)
{
    const ptrdiff_t last = (ptrdiff_t)(self->n_steps - 1);
    if (reads_rows(self)) {
        self->y += last * self->y_stride;
        self->y_stride = -self->y_stride;
    }
    self->x += last * self->x_stride;
    self->x_stride = -self->x_stride;
}

static void run_dense(run *self, const qg_dense *dense)
{
    const qg_scratch *const scratch = &self->work->scratch;
    for (uint16_t t = 0; t < self->n_steps; ++t) {
        int16_t *const out = scratch->vectors[self->embedding != NULL]; /* not in place: each output needs all of x */
        qg_dense_layer(dense, read_step(self, t), out);
        memcpy(written_step(self, t), out, dense->matrix.n_rows * sizeof *out);
    }
    go_on_with_what_was_written(self);
}

static void begin_gru(run *self, const qg_gru *gru, int16_t *h)
{
    qg_gru_reset(gru, h, self->work->residual);
    if (self->initial_states != NULL) {
        memcpy(h, self->initial_states, gru->n_units * sizeof *h);
        self->initial_states += gru->n_units;
    }
}

static void step_gru(const run *self, const qg_gru *gru, uint16_t t, int16_t *h)
{
    const qg_work *const work = self->work;
    const qg_gates *const gates = &work->scratch.gates;
    gru->step(gru, read_step(self, t), h, work->residual, gates, work->scratch.product);
    if (work->saturated != NULL) {
        const uint16_t more = qg_gru_saturated(gru, gates->n);
        const uint16_t room = (uint16_t)(UINT16_MAX - *work->saturated);
        *work->saturated = (uint16_t)(*work->saturated + (more < room ? more : room));
    }
}

/* Writes h of each step, `beside` values behind the begin of its row. */
static void write_states(run *self, const qg_gru *gru, uint16_t beside)
{
    int16_t *const h = self->work->h;
    begin_gru(self, gru, h);
    for (uint16_t t = 0; t < self->n_steps; ++t) {
        step_gru(self, gru, t, h);
        memcpy(written_step(self, t) + beside, h, gru->n_units * sizeof *h);
    }
}

/* out may begin where forward does, or before it. */
static void merge(const qg_bidirectional *layer, uint16_t n, const int16_t *forward, const int16_t *backward,
                  int16_t *out)
{
    if (layer->merge == NULL) {
        memmove(out, forward, n * sizeof *out);
        memmove(out + n, backward, n * sizeof *out);
        return;
    }
    for (uint16_t i = 0; i < n; ++i) {
        out[i] = layer->merge(forward[i], backward[i]);
    }
}

/* A vector for every step. */
static void run_directions(run *self, const qg_bidirectional *layer, const qg_gru *forward)
{
    const qg_gru *const backward = forward + 1;
    int16_t *const h = self->work->h;
    /* The backward direction has yet to read what the forward one reads: within a row, they stand side by side. */
    const uint16_t beside = reads_rows(self) ? forward->input.n_columns : 0;
    write_states(self, forward, beside);
    begin_gru(self, backward, h);
    for (uint16_t t = self->n_steps; t-- != 0;) {
        int16_t *const y = written_step(self, t);
        step_gru(self, backward, t, h);
        merge(layer, forward->n_units, y + beside, h, y);
    }
    go_on_with_what_was_written(self);
}

/* The state of a layer after all steps. */
static void run_to_end(run *self, const qg_gru *gru, int16_t *h)
{
    begin_gru(self, gru, h);
    for (uint16_t t = 0; t < self->n_steps; ++t) {
        step_gru(self, gru, t, h);
    }
}

/* One vector, of the states that both directions end with. */
static void run_to_one_vector(run *self, const qg_bidirectional *layer, const qg_gru *forward)
{
    const uint16_t n_units = forward->n_units;
    int16_t *const h = self->work->h;
    run_to_end(self, forward, h);
    reverse(self);
    run_to_end(self, forward + 1, h + n_units);
    merge(layer, n_units, h, h + n_units, h);
    self->x = h;
    self->n_steps = 1;
    self->embedding = NULL;
}

static void run_body(run *self, const qg_model *model)
{
    const qg_kind *const head = model->kinds + model->n_layers - model->n_head;
    const qg_gru *gru = model->grus;
    const qg_dense *dense = model->dense;
    const qg_bidirectional *bidirectional = model->bidirectionals;
    for (const qg_kind *kind = model->kinds; kind != head; ++kind) {
        switch (*kind) {
        case QG_GRU:
            write_states(self, gru++, 0);
            go_on_with_what_was_written(self);
            break;
        case QG_DENSE:
            run_dense(self, dense++);
            break;
        case QG_EMBEDDING:
            self->embedding = model->embedding;
            break;
        case QG_REVERSE:
            reverse(self);
            break;
        case QG_BIDIRECTIONAL:
            /* Called in one place: of two calls, each would be inlined. */
            (bidirectional->final ? run_to_one_vector : run_directions)(self, bidirectional, gru);
            ++bidirectional;
            gru += 2;
            break;
        default: /* no other kind */
            break;
        }
    }
}

int8_t qg_run(const qg_model *model, const int16_t *inputs, uint16_t n_steps, const int16_t *initial_states,
              const qg_work *work, int16_t *outputs)
{
    run self;
    if (n_steps == 0 || n_steps > work->most_steps) {
        return QG_WRONG_STEPS;
    }
    if (work->saturated != NULL) {
        *work->saturated = 0;
    }
    self.work = work;
    self.embedding = NULL;
    self.initial_states = initial_states;
    self.x = inputs;
    self.y = work->rows;
    self.x_stride = (ptrdiff_t)model->n_inputs;
    self.y_stride = (ptrdiff_t)work->row_values;
    self.n_steps = n_steps;
    run_body(&self, model);
    for (uint16_t t = model->last_step ? (uint16_t)(self.n_steps - 1) : 0; t < self.n_steps; ++t) {
        if (model->n_head == 0) {
            memcpy(outputs, read_step(&self, t), model->n_outputs * sizeof *outputs);
        } else {
            qg_head(model, read_step(&self, t), work->scratch.vectors, outputs);
        }
        outputs += model->n_outputs;
    }
    return 0;
}
