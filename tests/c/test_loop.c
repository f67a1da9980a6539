/* The loop over the real CPU backend and a denoiser in C: what is asked and answered, pooling, lists, and that nothing but
 * time depends on batch size, images in flight, their order, or threads. */
#include "loop_setting.h"

typedef struct outcome {
    double losses[CLASSES], stderrs[CLASSES], excess[CLASSES];
    int64_t n_trials[CLASSES], index, n_evals;
    double p_disagree;
} outcome;

static void read_race(outcome *out, const dc_race *race)
{
    memset(out, 0, sizeof *out);
    dc_race_result result = {
        .losses = out->losses, .stderrs = out->stderrs, .excess = out->excess, .n_trials = out->n_trials};
    CHECK(dc_race_read(race, &result, NULL) == DC_OK);
    out->index = result.index, out->n_evals = result.n_evals, out->p_disagree = result.p_disagree;
}

/* Arms that race for one image; n = 0: all. */
typedef struct list {
    int64_t arms[CLASSES], n;
} list;

/* All images through one loop, in order or backwards, each of its list of arms if there are lists. */
static void run_lists(setting *s, outcome *outcomes, int backwards, const list *lists)
{
    dc_loop *loop;
    const dc_race *race;
    int64_t tag, n_added = 0, n_done = 0, n_evals = 0;
    dc_error err = {0};
    CHECK(dc_loop_new(&loop, &s->params, &err) == DC_OK);
    while (n_done < IMAGES) {
        while (n_added < IMAGES && dc_loop_wants_image(loop)) {
            int64_t i = backwards ? IMAGES - 1 - n_added : n_added;
            int64_t n = lists == NULL ? 0 : lists[i].n;
            CHECK(dc_loop_add(loop, s->images[i], n > 0 ? lists[i].arms : NULL, n, i, &err) == DC_OK);
            n_added++;
        }
        CHECK(dc_loop_advance(loop, n_added == IMAGES, &race, &tag, &err) == DC_OK);
        if (race != NULL) {
            read_race(&outcomes[tag], race);
            n_evals += outcomes[tag].n_evals;
            n_done++;
        }
    }
    CHECK(dc_loop_advance(loop, 1, &race, &tag, &err) == DC_OK && race == NULL);
    dc_loop_stats stats = dc_loop_statistics(loop);
    CHECK(stats.n_evals == n_evals && stats.n_batches == s->model.n_released && stats.n_batches == s->model.n_calls);
    CHECK(s->model.largest_batch <= s->params.batch_size && s->model.wrong_condition == 0 && s->model.wrong_input == 0);
    CHECK_CLOSE(stats.fill, (double)n_evals / (double)(stats.n_batches * s->params.batch_size), 1e-15);
    dc_loop_free(loop);
}

static void run_images(setting *s, outcome *outcomes, int backwards)
{
    run_lists(s, outcomes, backwards, NULL);
}

static void check_nothing_depends_on_the_batch(void)
{
    static const int64_t batch_sizes[] = {16, 1, 7, 64, 1000}, in_flight[] = {2, 1, 6, 3, 5};
    outcome first[IMAGES], other[IMAGES];
    for (int i = 0; i < 5; i++) {
        setting s;
        setting_open(&s, i % 2 ? 2 : 1, i % 3 ? "auto" : "scalar");
        s.params.batch_size = batch_sizes[i];
        s.params.max_in_flight = in_flight[i];
        run_images(&s, i ? other : first, i % 2);
        if (i > 0)
            CHECK(memcmp(first, other, sizeof first) == 0);
        setting_close(&s);
    }
    CHECK(first[0].n_evals < POOL * CLASSES); /* something was dropped, so rounds were uneven */
    CHECK(memcmp(&first[0], &first[1], sizeof *first) != 0);
}

/* A backend that makes noise twice gives what one that keeps it gives. */
static void check_kept_noise_is_the_same(void)
{
    outcome kept[IMAGES], made_again[IMAGES];
    setting s;
    setting_open(&s, 1, "auto");
    CHECK(s.backend->noise_of_groups != NULL);
    run_images(&s, kept, 0);
    setting_close(&s);
    setting_open(&s, 1, "auto");
    s.backend->noise_of_groups = NULL;
    run_images(&s, made_again, 0);
    setting_close(&s);
    CHECK(memcmp(kept, made_again, sizeof kept) == 0);
}

/* Loss of one condition by the definition: a plain loop over trials and elements. */
static double plain_error(const setting *s, int64_t image, const dc_trial *trial, int64_t condition)
{
    float eps[N_ELEM];
    double sum = 0.0;
    int64_t t = trial->timestep;
    s->backend->noise(s->backend, eps, (dc_noise_key){s->params.seed, trial->noise_index, trial->timestep}, 0, N_ELEM);
    for (int64_t e = 0; e < N_ELEM; e++) {
        float own = trial->eps_sign * (s->params.noise ? s->params.noise[trial->noise_index * N_ELEM + e] : eps[e]);
        float x_t = (float)s->alpha[t] * s->images[image][e] + (float)s->sigma[t] * own;
        double difference = (double)answer(x_t, t, condition, e) - own;
        sum += difference * difference;
    }
    return sum / N_ELEM;
}

static void check_losses_are_the_definition(int with_noise)
{
    setting s;
    outcome outcomes[IMAGES];
    float noise[POOL * N_ELEM];
    setting_open(&s, 1, "auto");
    s.params.policy = (dc_policy){.fill = 1};
    if (with_noise) {
        for (int i = 0; i < POOL * N_ELEM; i++)
            noise[i] = cosf((float)i);
        s.params.noise = noise, s.params.n_noise = POOL;
    } else {
        CHECK(dc_trials_pool(s.trials, POOL, T, s.sigma, NULL, 1, NULL) == DC_OK); /* weights and antithetic pairs */
    }
    run_images(&s, outcomes, 0);
    for (int64_t i = 0; i < IMAGES; i++) {
        for (int64_t c = 0; c < CLASSES; c++) {
            double loss = 0.0;
            for (int k = 0; k < POOL; k++)
                loss += s.trials[k].weight * plain_error(&s, i, &s.trials[k], c) / POOL;
            CHECK_CLOSE(outcomes[i].losses[c] / loss, 1.0, 1e-5);
        }
    }
    s.params.n_trials = 1; /* neighbours of one trial that are different images */
    s.params.max_in_flight = IMAGES;
    s.model.n_calls = s.model.n_released = 0;
    run_images(&s, outcomes, 0);
    for (int64_t i = 0; i < IMAGES; i++) {
        double loss = s.trials[0].weight * plain_error(&s, i, &s.trials[0], 2);
        CHECK_CLOSE(outcomes[i].losses[2] / loss, 1.0, 1e-5);
    }
    setting_close(&s);
}

/* Arms with 1, 3, 1, 2 and 1 conditions: their errors are pooled within each trial, however batches cut them. */
static void check_pooling(double temperature, int64_t batch_size)
{
    static const int64_t offsets[CLASSES + 1] = {0, 1, 4, 5, 7, 8};
    setting s;
    outcome outcomes[IMAGES];
    setting_open(&s, 1, "auto");
    memcpy(s.condition_offset, offsets, sizeof offsets);
    s.params.policy = (dc_policy){.fill = 1};
    s.params.pool_temperature = temperature;
    s.params.batch_size = batch_size;
    run_images(&s, outcomes, 0);
    CHECK(outcomes[0].n_evals == POOL * CONDITIONS);
    for (int64_t c = 0; c < CLASSES; c++) {
        double loss = 0.0;
        for (int k = 0; k < POOL; k++) {
            int64_t n = offsets[c + 1] - offsets[c];
            double pooled = 0.0;
            for (int64_t i = offsets[c]; i < offsets[c + 1]; i++) {
                double error = plain_error(&s, 0, &s.trials[k], i);
                pooled += (temperature > 0.0 ? exp(-error / temperature) : error) / (double)n;
            }
            loss += (temperature > 0.0 ? -temperature * log(pooled) : pooled) / POOL;
        }
        CHECK_CLOSE(outcomes[0].losses[c] / loss, 1.0, 1e-5);
    }
    setting_close(&s);
}

/* What a loop of these arms and no others says of one image: classes are numbered by their places in the list. */
static void run_alone(const setting *like, outcome *out, int64_t image, const list *listed)
{
    setting s;
    int64_t n_conditions = 0;
    setting_open(&s, 1, "auto");
    for (int64_t i = 0; i < listed->n; i++) {
        int64_t first = like->condition_offset[listed->arms[i]], last = like->condition_offset[listed->arms[i] + 1];
        s.condition_offset[i] = n_conditions;
        while (first < last)
            s.conditions[n_conditions++] = like->conditions[first++];
    }
    s.condition_offset[listed->n] = n_conditions;
    s.params.arms = (dc_arms){.n_arms = listed->n, .n_classes = listed->n};
    s.params.policy = like->params.policy;
    s.params.batch_size = 1, s.params.max_in_flight = 1;
    dc_loop *loop;
    const dc_race *race;
    int64_t tag;
    CHECK(dc_loop_new(&loop, &s.params, NULL) == DC_OK && dc_loop_add(loop, s.images[image], NULL, 0, 0, NULL) == DC_OK);
    CHECK(dc_loop_advance(loop, 1, &race, &tag, NULL) == DC_OK && race != NULL);
    read_race(out, race);
    dc_loop_free(loop);
    setting_close(&s);
}

/* Images with lists of their own, many in flight: each as if its arms were all there are, whatever its neighbours race. */
static void check_lists(const dc_policy *policy, int64_t batch_size, int64_t in_flight)
{
    static const int64_t offsets[CLASSES + 1] = {0, 1, 4, 5, 7, 8};
    static const list lists[IMAGES] = {{{0, 2, 4}, 3}, {{1, 3}, 2}, {{0}, 0}, {{4}, 1}, {{0, 1, 2, 3, 4}, 5}, {{1, 2, 3}, 3}};
    outcome together[IMAGES], alone;
    setting s;
    setting_open(&s, 1, "auto");
    memcpy(s.condition_offset, offsets, sizeof offsets);
    s.params.policy = *policy, s.params.batch_size = batch_size, s.params.max_in_flight = in_flight;
    run_lists(&s, together, 0, lists);
    for (int64_t i = 0; i < IMAGES; i++) {
        list listed = lists[i].n > 0 ? lists[i] : lists[4];
        const outcome *own = &together[i];
        run_alone(&s, &alone, i, &listed);
        CHECK(own->index == listed.arms[alone.index] && own->n_evals == alone.n_evals && own->p_disagree == alone.p_disagree);
        for (int64_t c = 0, place = 0; c < CLASSES; c++) {
            if (place == listed.n || listed.arms[place] != c) {
                CHECK(own->n_trials[c] == 0 && isnan(own->losses[c]) && isnan(own->stderrs[c]) && isnan(own->excess[c]));
                continue;
            }
            CHECK(own->n_trials[c] == alone.n_trials[place] && own->losses[c] == alone.losses[place]);
            CHECK(memcmp(&own->stderrs[c], &alone.stderrs[place], sizeof(double)) == 0 && own->excess[c] == alone.excess[place]);
            place++;
        }
    }
    setting_close(&s);
}

static void check_all_lists(void)
{
    static const dc_cap caps[] = {{6, 2}, {12, 1}};
    static const dc_policy policies[] = {
        {.risk = 0.05, .n_min = 4, .fill = 10, .prior_weight = 4.0},
        {.risk = 0.2, .n_min = 2, .fill = 1, .anytime = 1}, /* its level is shared by the arms that race */
        {.fill = 1, .caps = caps, .n_caps = 2},
    };
    for (int i = 0; i < 3; i++) {
        check_lists(&policies[i], 7, 4);
        check_lists(&policies[i], 64, IMAGES);
    }
    setting s;
    dc_loop *loop;
    dc_error err = {0};
    static const int64_t listed[] = {0, 2, 2, 5, -1};
    setting_open(&s, 1, "auto");
    s.params.policy = (dc_policy){.fill = 1, .max_evals = 2};
    CHECK(dc_loop_new(&loop, &s.params, NULL) == DC_OK);
    CHECK(dc_loop_add(loop, s.images[0], NULL, 0, 0, &err) == DC_ERR_VALUE && strstr(err.message, "max_evals") != NULL);
    CHECK(dc_loop_add(loop, s.images[0], listed, 3, 0, &err) == DC_ERR_VALUE && strstr(err.message, "listed[2] is 2") != NULL);
    CHECK(dc_loop_add(loop, s.images[0], listed + 3, 1, 0, &err) == DC_ERR_VALUE && strstr(err.message, "0 to 4") != NULL);
    CHECK(dc_loop_add(loop, s.images[0], listed + 4, 1, 0, &err) == DC_ERR_VALUE);
    CHECK(dc_loop_add(loop, s.images[0], listed, 0, 0, &err) == DC_ERR_VALUE && strstr(err.message, "1 or more") != NULL);
    CHECK(dc_loop_add(loop, s.images[0], listed, 2, 0, &err) == DC_OK); /* what was refused left nothing behind */
    dc_loop_free(loop);
    setting_close(&s);
}

int main(void)
{
    check_nothing_depends_on_the_batch();
    check_kept_noise_is_the_same();
    check_losses_are_the_definition(0);
    check_losses_are_the_definition(1);
    for (int64_t batch_size = 1; batch_size < 12; batch_size += 2) {
        check_pooling(0.0, batch_size);
        check_pooling(0.01, batch_size);
    }
    check_all_lists();
    return test_done();
}
