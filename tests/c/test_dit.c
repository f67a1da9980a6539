/* The whole native DiT against plain loops in double, written from Peebles and Xie's (2022) description; its batch
 * invariance, what rows of a batch share, and the loop's denoiser made from it. */
#include <stdlib.h>

#include "backends.h"
#include "dit/dit.h"

/* Sizes that fill no tile: 9 tokens, 36 rows of 15, panels of 45 and 90 columns; the prediction is half of what comes out. */
enum {
    SIZE = 6, PATCH = 2, CHANNELS = 2, HIDDEN = 15, DEPTH = 2, HEADS = 3, MLP = 20, CLASSES = 3,
    SIDE = SIZE / PATCH, TOKENS = SIDE * SIDE, OUT_CHANNELS = 2 * CHANNELS, PATCH_ITEMS = PATCH * PATCH * CHANNELS,
    OUT_ITEMS = PATCH * PATCH * OUT_CHANNELS, IN = CHANNELS * SIZE * SIZE, OUT = OUT_CHANNELS * SIZE * SIZE,
    IMAGES = 4, MAX_TENSORS = 64, HEADER = 8192, ITEMS = 32768,
};

static const dc_dit_config CONFIG = {SIZE, PATCH, CHANNELS, HIDDEN, DEPTH, HEADS, MLP, CLASSES, 1, DC_DIT_ORIGINAL, 1e-6f};
static const double TIMES[IMAGES] = {0.0, 3.0, 17.5, 40.0};
static const int64_t LABELS[IMAGES] = {2, 0, 1, 2};

/* ---- a weights file, every item random --------------------------------------------------------------------------- */

typedef struct weights {
    int n;
    int64_t n_items;
    char names[MAX_TENSORS][64];
    int64_t begin[MAX_TENSORS];
    float items[ITEMS];
    char header[HEADER];
    size_t n_header;
} weights;

static void add_tensor(weights *w, const char *name, int n_dims, const int64_t *shape)
{
    int64_t count = 1, end;
    char *at = w->header + w->n_header;
    at += sprintf(at, "%s\"%s\": {\"dtype\": \"F32\", \"shape\": [", w->n ? ", " : "{", name);
    for (int i = 0; i < n_dims; i++) {
        at += sprintf(at, "%s%lld", i ? ", " : "", (long long)shape[i]);
        count *= shape[i];
    }
    end = w->n_items + count;
    at += sprintf(at, "], \"data_offsets\": [%lld, %lld]}", (long long)w->n_items * 4, (long long)end * 4);
    fill(w->items + w->n_items, count, (uint32_t)(100 + w->n));
    for (int64_t i = w->n_items; i < end; i++)
        w->items[i] *= 0.5f;
    strcpy(w->names[w->n], name);
    w->begin[w->n++] = w->n_items;
    w->n_items = end;
    w->n_header = (size_t)(at - w->header);
}

static void add_layer(weights *w, const char *prefix, int64_t n_out, int64_t n_in)
{
    char name[64];
    snprintf(name, sizeof name, "%s.weight", prefix);
    add_tensor(w, name, 2, (int64_t[]){n_out, n_in});
    snprintf(name, sizeof name, "%s.bias", prefix);
    add_tensor(w, name, 1, (int64_t[]){n_out});
}

/* Names and shapes as in the original. */
static void make_weights(weights *w)
{
    char prefix[48];
    add_tensor(w, "pos_embed", 3, (int64_t[]){1, TOKENS, HIDDEN});
    add_tensor(w, "x_embedder.proj.weight", 4, (int64_t[]){HIDDEN, CHANNELS, PATCH, PATCH});
    add_tensor(w, "x_embedder.proj.bias", 1, (int64_t[]){HIDDEN});
    add_layer(w, "t_embedder.mlp.0", HIDDEN, 256);
    add_layer(w, "t_embedder.mlp.2", HIDDEN, HIDDEN);
    add_tensor(w, "y_embedder.embedding_table.weight", 2, (int64_t[]){CLASSES, HIDDEN});
    for (int i = 0; i < DEPTH; i++) {
        const struct {
            const char *name;
            int64_t n_out, n_in;
        } layers[] = {{"attn.qkv", 3 * HIDDEN, HIDDEN}, {"attn.proj", HIDDEN, HIDDEN}, {"mlp.fc1", MLP, HIDDEN},
                      {"mlp.fc2", HIDDEN, MLP}, {"adaLN_modulation.1", 6 * HIDDEN, HIDDEN}};
        for (size_t j = 0; j < sizeof layers / sizeof *layers; j++) {
            snprintf(prefix, sizeof prefix, "blocks.%d.%s", i, layers[j].name);
            add_layer(w, prefix, layers[j].n_out, layers[j].n_in);
        }
    }
    add_layer(w, "final_layer.linear", OUT_ITEMS, HIDDEN);
    add_layer(w, "final_layer.adaLN_modulation.1", 2 * HIDDEN, HIDDEN);
    w->header[w->n_header++] = '}';
}

static const float *find(const weights *w, const char *prefix, const char *suffix)
{
    char name[64];
    snprintf(name, sizeof name, "%s%s", prefix, suffix);
    for (int i = 0; i < w->n; i++)
        if (strcmp(w->names[i], name) == 0)
            return w->items + w->begin[i];
    CHECK(!"a name of the twin is in the file");
    return w->items;
}

static dc_dit *make_model(const weights *w)
{
    size_t n_bytes = 8 + w->n_header + (size_t)w->n_items * sizeof(float);
    unsigned char *file = malloc(n_bytes);
    dc_dit *model = NULL;
    dc_error err = {0};
    for (int i = 0; i < 8; i++)
        file[i] = (unsigned char)((uint64_t)w->n_header >> 8 * i);
    memcpy(file + 8, w->header, w->n_header);
    memcpy(file + 8 + w->n_header, w->items, (size_t)w->n_items * sizeof(float));
    CHECK(dc_dit_new(&model, &(dc_bytes){file, (int64_t)n_bytes}, 1, &CONFIG, &err) == DC_OK);
    CHECK(model != NULL && model->n_parameters == w->n_items);
    free(file); /* it was copied */
    return model;
}

/* ---- the twin ---------------------------------------------------------------------------------------------------- */

static double silu(double v)
{
    return v / (1.0 + exp(-v));
}

static double gelu(double v)
{
    return 0.5 * v * (1.0 + tanh(sqrt(2.0 / acos(-1.0)) * (v + 0.044715 * v * v * v)));
}

static void linear(double *y, const double *x, int n_rows, const weights *w, const char *prefix, int n_out, int n_in)
{
    const float *weight = find(w, prefix, ".weight"), *bias = find(w, prefix, ".bias");
    for (int r = 0; r < n_rows; r++) {
        for (int j = 0; j < n_out; j++) {
            y[r * n_out + j] = bias[j];
            for (int k = 0; k < n_in; k++)
                y[r * n_out + j] += x[r * n_in + k] * weight[j * n_in + k];
        }
    }
}

static void modulate(double *out, const double *x, const double *shift, const double *scale)
{
    for (int t = 0; t < TOKENS; t++) {
        const double *row = x + t * HIDDEN;
        double mean = 0.0, variance = 0.0;
        for (int i = 0; i < HIDDEN; i++)
            mean += row[i] / HIDDEN;
        for (int i = 0; i < HIDDEN; i++)
            variance += (row[i] - mean) * (row[i] - mean) / HIDDEN;
        for (int i = 0; i < HIDDEN; i++)
            out[t * HIDDEN + i] = (row[i] - mean) / sqrt(variance + 1e-6) * (1.0 + scale[i]) + shift[i];
    }
}

static void attention(double *out, const double *qkv)
{
    enum { DIM = HIDDEN / HEADS };
    for (int head = 0; head < HEADS; head++) {
        for (int t = 0; t < TOKENS; t++) {
            const double *q = qkv + t * 3 * HIDDEN + head * DIM;
            double share[TOKENS], total = 0.0;
            for (int s = 0; s < TOKENS; s++) {
                const double *k = qkv + s * 3 * HIDDEN + HIDDEN + head * DIM;
                double score = 0.0;
                for (int d = 0; d < DIM; d++)
                    score += q[d] * k[d];
                total += share[s] = exp(score / sqrt((double)DIM));
            }
            for (int d = 0; d < DIM; d++) {
                double sum = 0.0;
                for (int s = 0; s < TOKENS; s++)
                    sum += share[s] / total * qkv[s * 3 * HIDDEN + 2 * HIDDEN + head * DIM + d];
                out[t * HIDDEN + head * DIM + d] = sum;
            }
        }
    }
}

static void add_gated(double *x, const double *gate, const double *branch)
{
    for (int i = 0; i < TOKENS * HIDDEN; i++)
        x[i] += gate[i % HIDDEN] * branch[i];
}

/* x (TOKENS, HIDDEN), modulated by c (HIDDEN,), silu already applied. */
static void block(double *x, const double *c, const weights *w, int index)
{
    double modulation[6 * HIDDEN], normed[TOKENS * HIDDEN], branch[TOKENS * HIDDEN];
    double qkv[TOKENS * 3 * HIDDEN], hidden[TOKENS * MLP];
    const double *shift_msa = modulation, *scale_msa = shift_msa + HIDDEN, *gate_msa = scale_msa + HIDDEN;
    const double *shift_mlp = gate_msa + HIDDEN, *scale_mlp = shift_mlp + HIDDEN, *gate_mlp = scale_mlp + HIDDEN;
    char names[5][48];
    static const char *const parts[5] = {"adaLN_modulation.1", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"};
    for (int i = 0; i < 5; i++)
        snprintf(names[i], sizeof names[i], "blocks.%d.%s", index, parts[i]);
    linear(modulation, c, 1, w, names[0], 6 * HIDDEN, HIDDEN);
    modulate(normed, x, shift_msa, scale_msa);
    linear(qkv, normed, TOKENS, w, names[1], 3 * HIDDEN, HIDDEN);
    attention(normed, qkv);
    linear(branch, normed, TOKENS, w, names[2], HIDDEN, HIDDEN);
    add_gated(x, gate_msa, branch);
    modulate(normed, x, shift_mlp, scale_mlp);
    linear(hidden, normed, TOKENS, w, names[3], MLP, HIDDEN);
    for (int i = 0; i < TOKENS * MLP; i++)
        hidden[i] = gelu(hidden[i]);
    linear(branch, hidden, TOKENS, w, names[4], HIDDEN, MLP);
    add_gated(x, gate_mlp, branch);
}

static void condition(double *c, double time, int64_t label, const weights *w)
{
    double frequencies[256], hidden[HIDDEN];
    for (int i = 0; i < 128; i++) {
        frequencies[i] = cos(time * pow(10000.0, -i / 128.0));
        frequencies[128 + i] = sin(time * pow(10000.0, -i / 128.0));
    }
    linear(hidden, frequencies, 1, w, "t_embedder.mlp.0", HIDDEN, 256);
    for (int i = 0; i < HIDDEN; i++)
        hidden[i] = silu(hidden[i]);
    linear(c, hidden, 1, w, "t_embedder.mlp.2", HIDDEN, HIDDEN);
    for (int i = 0; i < HIDDEN; i++)
        c[i] = silu(c[i] + find(w, "y_embedder.embedding_table", ".weight")[label * HIDDEN + i]);
}

/* out (OUT_CHANNELS, SIZE, SIZE) of one image x_t (CHANNELS, SIZE, SIZE). */
static void forward(double *out, const float *x_t, double time, int64_t label, const weights *w)
{
    double c[HIDDEN], modulation[2 * HIDDEN], patches[TOKENS * PATCH_ITEMS], x[TOKENS * HIDDEN], normed[TOKENS * HIDDEN];
    double tokens[TOKENS * OUT_ITEMS];
    condition(c, time, label, w);
    for (int t = 0; t < TOKENS; t++)
        for (int i = 0; i < PATCH_ITEMS; i++) {
            int channel = i / (PATCH * PATCH), row = t / SIDE * PATCH + i / PATCH % PATCH;
            patches[t * PATCH_ITEMS + i] = x_t[(channel * SIZE + row) * SIZE + t % SIDE * PATCH + i % PATCH];
        }
    linear(x, patches, TOKENS, w, "x_embedder.proj", HIDDEN, PATCH_ITEMS);
    for (int i = 0; i < TOKENS * HIDDEN; i++)
        x[i] += find(w, "pos_embed", "")[i];
    for (int i = 0; i < DEPTH; i++)
        block(x, c, w, i);
    linear(modulation, c, 1, w, "final_layer.adaLN_modulation.1", 2 * HIDDEN, HIDDEN);
    modulate(normed, x, modulation, modulation + HIDDEN);
    linear(tokens, normed, TOKENS, w, "final_layer.linear", OUT_ITEMS, HIDDEN);
    for (int t = 0; t < TOKENS; t++)
        for (int i = 0; i < OUT_ITEMS; i++) { /* p, p, channel */
            int channel = i % OUT_CHANNELS, row = t / SIDE * PATCH + i / OUT_CHANNELS / PATCH;
            int column = t % SIDE * PATCH + i / OUT_CHANNELS % PATCH;
            out[(channel * SIZE + row) * SIZE + column] = tokens[t * OUT_ITEMS + i];
        }
}

/* ---- checks ------------------------------------------------------------------------------------------------------ */

/* out (n, OUT) through a denoiser of its own. */
static void denoise(float *out, const dc_dit *model, const dc_backend *backend, const float *x, const double *time,
                    const int64_t *labels, const int64_t *input_of_row, int64_t n)
{
    dc_dit_denoiser *denoiser;
    dc_prediction got;
    dc_error err = {0};
    CHECK(dc_dit_denoiser_new(&denoiser, model, backend, n, &err) == DC_OK);
    dc_denoiser entry = dc_dit_denoiser_entry(denoiser);
    dc_batch batch = {n, IN, x, NULL, time, labels, input_of_row};
    CHECK(entry.denoise(entry.context, &batch, &got, &err) == DC_OK);
    memcpy(out, got.data, (size_t)(n * OUT) * sizeof *out);
    dc_dit_denoiser_free(denoiser);
}

static void check_forward(const dc_dit *model, const dc_backend *backend, const weights *w, const float *x)
{
    float out[IMAGES * OUT], alone[OUT];
    double wanted[OUT], worst = 0.0, largest = 0.0;
    denoise(out, model, backend, x, TIMES, LABELS, NULL, IMAGES);
    for (int n = 0; n < IMAGES; n++) {
        forward(wanted, x + n * IN, TIMES[n], LABELS[n], w);
        for (int i = 0; i < OUT; i++) {
            double error = fabs(out[n * OUT + i] - wanted[i]);
            worst = error <= worst ? worst : error;
            largest = fmax(largest, fabs(wanted[i]));
        }
        denoise(alone, model, backend, x + n * IN, &TIMES[n], &LABELS[n], NULL, 1);
        CHECK(memcmp(alone, out + n * OUT, sizeof alone) == 0);
    }
    CHECK_CLOSE(worst, 0.0, 1e-5 * largest);
}

/* 40 rows are more than one chunk of a thread; every image comes ten times, and its bits are those of the first. */
static void check_denoiser(const dc_dit *model, const dc_backend *backend, const float *x)
{
    enum { ROWS = 10 * IMAGES };
    double time[ROWS];
    int64_t labels[ROWS], timesteps[ROWS] = {0};
    float *x_t, expected[IMAGES * OUT];
    int same = 1;
    dc_dit_denoiser *denoiser;
    dc_prediction got;
    dc_error err = {0};
    denoise(expected, model, backend, x, TIMES, LABELS, NULL, IMAGES);
    CHECK(dc_dit_denoiser_new(&denoiser, model, backend, ROWS, &err) == DC_OK);
    dc_denoiser entry = dc_dit_denoiser_entry(denoiser);
    CHECK(entry.input(entry.context, &x_t, ROWS + 1, IN, &err) == DC_ERR_SHAPE);
    CHECK(entry.input(entry.context, &x_t, ROWS, IN + 1, &err) == DC_ERR_SHAPE);
    CHECK(strstr(err.message, "the DiT takes 40 of 72") != NULL);
    CHECK(entry.input(entry.context, &x_t, ROWS, IN, &err) == DC_OK);
    for (int r = 0; r < ROWS; r++) {
        memcpy(x_t + r * IN, x + r % IMAGES * IN, IN * sizeof *x);
        time[r] = TIMES[r % IMAGES];
        labels[r] = LABELS[r % IMAGES];
    }
    dc_batch batch = {ROWS, IN, x_t, timesteps, time, labels, NULL};
    CHECK(entry.denoise(entry.context, &batch, &got, &err) == DC_OK);
    CHECK(got.dtype == DC_FLOAT32 && got.row_stride == OUT);
    for (int r = 0; r < ROWS; r++)
        same &= memcmp((const float *)got.data + r * got.row_stride, expected + r % IMAGES * OUT, OUT * sizeof(float)) == 0;
    CHECK(same);
    entry.release(entry.context);
    for (int64_t wrong = -1; wrong <= CLASSES; wrong += CLASSES + 1) {
        labels[ROWS - 1] = wrong;
        CHECK(entry.denoise(entry.context, &batch, &got, &err) == DC_ERR_VALUE);
        CHECK(strstr(err.message, "must be 0 to 2") != NULL);
    }
    dc_dit_denoiser_free(denoiser);
    dc_dit_denoiser_free(NULL);
    CHECK(dc_dit_denoiser_new(&denoiser, model, backend, 0, &err) == DC_ERR_VALUE && denoiser == NULL);
    CHECK(dc_dit_denoiser_new(&denoiser, model, backend, INT64_MAX, &err) == DC_ERR_VALUE && denoiser == NULL);
}

/* Counts what the real operation is asked, by layer. */
static void (*real_linear)(const dc_backend *self, void *y, const void *x, const dc_linear *layer, int64_t n_rows,
                           dc_finish finish);
static const dc_dit *counted_model;
static int64_t n_embedded, n_times, n_modulated, n_final;

static void counting_linear(const dc_backend *self, void *y, const void *x, const dc_linear *layer, int64_t n_rows,
                            dc_finish finish)
{
    n_embedded += layer == &counted_model->x_embedder ? n_rows : 0;
    n_times += layer == &counted_model->embedders[0].mlp_0 ? n_rows : 0;
    n_modulated += layer == &counted_model->blocks[DEPTH - 1].adaLN_modulation ? n_rows : 0;
    n_final += layer == &counted_model->final_adaLN_modulation ? n_rows : 0;
    real_linear(self, y, x, layer, n_rows, finish);
}

/* Rows as the loop asks them: an image's classes at one time are neighbours, told so by the batch, then the next image at the
 * same or another time; more of them than share at once.  Each has the bits that it has alone, and what rows share is computed once. */
static void check_sharing(const dc_dit *model, const dc_backend *backend, int is_counted, const float *x)
{
    enum { ROWS = 300 };
    static float batch[ROWS * IN], got[ROWS * OUT];
    double time[ROWS];
    int64_t labels[ROWS], input_of_row[ROWS];
    float alone[OUT];
    int same = 1;
    for (int r = 0; r < ROWS; r++) {
        int group = r / 3; /* of images 0 1 2 3 0 ..., two of them at a time */
        memcpy(batch + r * IN, x + group % IMAGES * IN, IN * sizeof *x);
        time[r] = TIMES[group / 2 % IMAGES];
        labels[r] = (r % 3 + group % 2) % CLASSES;
        input_of_row[r] = group;
    }
    dc_backend counting = *backend;
    dc_dit_operations operations = *backend->dit;
    operations.linear = counting_linear;
    counting.dit = &operations;
    real_linear = backend->dit->linear;
    counted_model = model;
    n_embedded = n_times = n_modulated = n_final = 0;
    denoise(got, model, is_counted ? &counting : backend, batch, time, labels, input_of_row, ROWS);
    if (is_counted) { /* rows 0-255, then 256-299: the cut is in a group */
        CHECK(n_embedded == (100 + 1) * TOKENS);
        CHECK(n_times == 2 * IMAGES);
        CHECK(n_modulated == 2 * IMAGES * CLASSES && n_final == n_modulated);
    }
    for (int r = 0; r < ROWS; r++) {
        denoise(alone, model, backend, batch + r * IN, &time[r], &labels[r], NULL, 1);
        same &= memcmp(alone, got + r * OUT, sizeof alone) == 0;
    }
    CHECK(same);
}

int main(void)
{
    static weights w;
    float x[IMAGES * IN];
    dc_backend *backends[MAX_BACKENDS], *threaded[MAX_BACKENDS];
    make_weights(&w);
    fill(x, IMAGES * IN, 7);
    dc_dit *model = make_model(&w);
    int n = backends_open(backends, 1);
    backends_open(threaded, 3);
    for (int b = 0; b < n; b++) {
        check_forward(model, backends[b], &w, x);
        check_denoiser(model, backends[b], x);
        check_denoiser(model, threaded[b], x);
        check_sharing(model, backends[b], 1, x);
        check_sharing(model, threaded[b], 0, x);
    }
    dc_dit_free(model);
    dc_dit_free(NULL);
    backends_close(backends, n);
    backends_close(threaded, n);
    return test_done();
}
