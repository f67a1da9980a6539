/* What the rows of a batch have in common, computed once: the patch embedding of every noised input, the embedding of every
 * time, and the adaLN modulation of every pair of time and class.  Classes asked at one (image, t, eps) are neighbours that
 * share the first two; images asked at one trial share the third. */
#ifndef DC_DIT_SHARED_H
#define DC_DIT_SHARED_H

#include "dit/dit.h"

/* Who shares what: found on the host, read by the backend's operations; one block of memory. */
typedef struct dc_dit_indices {
    double *times;                         /* (max_rows,) of which n_times, all different */
    int64_t *time_of_pair, *class_of_pair; /* (max_rows,) of which n_pairs */
    int64_t *pair_of_row, *input_of_row;   /* (max_rows,) of which n_rows */
    int64_t *row_of_input;                 /* (max_rows,) of which n_inputs: the first row that has it */
} dc_dit_indices;

struct dc_dit_shared {
    const dc_backend *backend; /* borrowed */
    int64_t max_rows;
    int64_t n_times, n_pairs, n_inputs;
    dc_dit_indices host, here; /* here: where the backend computes; the same on the host */
    int64_t *previous_pair;    /* (n_pairs,) the one before it of the same class, or -1 */
    int64_t *last_pair;        /* (num_classes,) where those begin; of the batch's classes alone */
    float *embedded;           /* (n_inputs, T, D) */
    float *modulation;         /* (depth, max_rows, 6 D), then (max_rows, 2 D): a row each pair */
};

DC_MUST_USE dc_status dc_dit_shared_init(dc_dit_shared *shared, const dc_dit *model, const dc_backend *backend,
                                         int64_t max_rows, dc_error *err);
void dc_dit_shared_clear(dc_dit_shared *shared);
int64_t dc_dit_shared_bytes(int64_t max_rows); /* of the indices */

/* Finds what differs in n_rows <= max_rows rows: time, class_labels (n_rows,) and input_of_row (n_rows,), a batch's, which may
 * be NULL; tells the backend. */
void dc_dit_shared_find(dc_dit_shared *shared, const double *time, const int64_t *class_labels,
                        const int64_t *input_of_row, int64_t n_rows);

/* One of n_shares equal parts of embedded and modulation; x_t (n_rows, n_elem). */
void dc_dit_shared_compute(dc_dit_shared *shared, const dc_dit *model, dc_dit_workspace *workspace, const float *x_t,
                           int64_t share, int64_t n_shares);

/* The modulation of block i, or for i = depth the final layer's. */
float *dc_dit_shared_modulation(const dc_dit_shared *shared, const dc_dit *model, int64_t i);

#endif
