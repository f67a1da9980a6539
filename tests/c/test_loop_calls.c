/* Calls of the loop one by one: what fails, what is refused, when it waits, and where it stops for who watches. */
#include "loop_setting.h"

static dc_status stop_at(void *context, int64_t n_evals, dc_error *err)
{
    CHECK(n_evals % 16 == 0);
    return n_evals >= *(int64_t *)context ? dc_error_set(err, DC_ERR_CALLBACK, "stopped") : DC_OK;
}

static dc_status run_one(setting *s, const int64_t *listed, int64_t n_listed, dc_error *err)
{
    dc_loop *loop;
    const dc_race *race = NULL;
    int64_t tag;
    CHECK(dc_loop_new(&loop, &s->params, err) == DC_OK);
    CHECK(dc_loop_add(loop, s->images[0], listed, n_listed, 0, err) == DC_OK);
    dc_status status = dc_loop_advance(loop, 1, &race, &tag, err);
    dc_loop_free(loop);
    return status;
}

static void check_failures(void)
{
    static const int64_t class_of_arm[CLASSES] = {4, 3, 2, 1, 0}, listed[] = {2, 3};
    dc_error err = {0};
    int64_t limit = 48;
    setting s;
    setting_open(&s, 1, "auto");
    s.params.policy = (dc_policy){.fill = 1};
    s.params.arms.class_of_arm = class_of_arm;
    s.model.nan_condition = 3, s.model.nan_timestep = s.trials[5].timestep;
    CHECK(run_one(&s, NULL, 0, &err) == DC_ERR_NONFINITE); /* named by class, not by arm */
    CHECK(err.class_index == 1 && err.timestep == s.trials[5].timestep && err.noise_index == s.trials[5].noise_index);
    CHECK(run_one(&s, listed, 2, &err) == DC_ERR_NONFINITE && err.class_index == 1); /* arm 3 is its second there */
    CHECK(run_one(&s, listed, 1, &err) == DC_OK);
    s.model.nan_condition = -1;
    s.model.n_calls = s.model.n_released = 0, s.model.fail_input = 3;
    CHECK(run_one(&s, NULL, 0, &err) == DC_ERR_DENOISER && strcmp(err.message, "no input") == 0 && s.model.n_released == 2);
    s.model.n_calls = s.model.n_released = s.model.fail_input = 0, s.model.fail_denoise = 2;
    CHECK(run_one(&s, NULL, 0, &err) == DC_ERR_DENOISER && strcmp(err.message, "no answer") == 0 && s.model.n_released == 1);
    s.model.fail_denoise = 0;
    s.params.after_batch = stop_at, s.params.after_batch_context = &limit;
    s.model.n_calls = 0;
    CHECK(run_one(&s, NULL, 0, &err) == DC_ERR_CALLBACK && s.model.n_calls == 3);
    setting_close(&s);
}

static void check_refused(setting *s, const char *word)
{
    dc_loop *loop;
    dc_error err = {0};
    dc_status status = dc_loop_new(&loop, &s->params, &err);
    CHECK(status == DC_ERR_VALUE && loop == NULL && strstr(err.message, word) != NULL);
    setting_close(s);
}

static void check_refusals(void)
{
    setting s;
    dc_loop *loop;
    dc_error err = {0};
    float noise[N_ELEM] = {0};
#define REFUSED(change, word) setting_open(&s, 1, "auto"), s.change, check_refused(&s, word)
    REFUSED(params.batch_size = 0, "batch_size");
    REFUSED(params.max_in_flight = 0, "max_in_flight");
    REFUSED(params.pool_temperature = -1.0, "temperature");
    REFUSED(params.loss = DC_LOSS_HUBER; s.params.delta = 0.0f, "delta");
    REFUSED(params.policy.risk = 2.0, "risk");
    REFUSED(params.n_timesteps = 3, "timestep");
    REFUSED(params.noise = noise; s.params.n_noise = 1, "noise has 1 rows");
    REFUSED(condition_offset[2] = 1, "no condition");
#undef REFUSED
    setting_open(&s, 1, "auto");
    CHECK(dc_loop_new(&loop, &s.params, NULL) == DC_OK);
    s.images[1][3] = INFINITY;
    CHECK(dc_loop_add(loop, s.images[1], NULL, 0, 1, &err) == DC_ERR_VALUE && strstr(err.message, "element 3") != NULL);
    CHECK(dc_loop_wants_image(loop));
    CHECK(dc_loop_add(loop, s.images[0], NULL, 0, 0, &err) == DC_OK && dc_loop_add(loop, s.images[2], NULL, 0, 2, &err) == DC_OK);
    CHECK(!dc_loop_wants_image(loop) && dc_loop_add(loop, s.images[3], NULL, 0, 3, &err) == DC_ERR_VALUE);
    dc_loop_free(loop); /* with images in flight */
    dc_loop_free(NULL);
    setting_close(&s);
}

/* Without drain, rows that do not fill a batch wait for another image. */
static void check_advance_waits_for_images(void)
{
    setting s;
    dc_loop *loop;
    const dc_race *race;
    int64_t tag = -1;
    setting_open(&s, 1, "auto");
    s.params.batch_size = POOL * CLASSES + 1;
    s.params.policy = (dc_policy){.fill = 1};
    CHECK(dc_loop_new(&loop, &s.params, NULL) == DC_OK);
    CHECK(dc_loop_add(loop, s.images[0], NULL, 0, 5, NULL) == DC_OK);
    CHECK(dc_loop_advance(loop, 0, &race, &tag, NULL) == DC_OK && race == NULL && s.model.n_calls == 0);
    CHECK(dc_loop_add(loop, s.images[1], NULL, 0, 6, NULL) == DC_OK);
    CHECK(dc_loop_advance(loop, 0, &race, &tag, NULL) == DC_OK && race != NULL && tag == 5 && s.model.n_calls == 1);
    CHECK(dc_loop_advance(loop, 0, &race, &tag, NULL) == DC_OK && race == NULL);
    CHECK(dc_loop_advance(loop, 1, &race, &tag, NULL) == DC_OK && race != NULL && tag == 6 && s.model.n_calls == 2);
    dc_loop_free(loop);
    setting_close(&s);
}

/* A watched image stops after every round and ends as it does unwatched. */
static void check_watching(void)
{
    setting s;
    dc_loop *loop;
    const dc_race *race;
    dc_race_result result = {0}, again = {0};
    int64_t tag, n_rounds = 0, n_before = 0;
    setting_open(&s, 1, "auto");
    s.params.policy = (dc_policy){.risk = 0.01, .n_min = 2, .fill = 1};
    CHECK(dc_loop_new(&loop, &s.params, NULL) == DC_OK && dc_loop_add(loop, s.images[0], NULL, 0, 5, NULL) == DC_OK);
    do {
        CHECK(dc_loop_watch(loop, 1, &race, &tag, NULL) == DC_OK && race != NULL && tag == 5);
        CHECK(dc_race_rounds(race, &n_rounds) != NULL && n_rounds == ++n_before);
        CHECK(dc_race_read(race, &result, NULL) == DC_OK && dc_loop_statistics(loop).n_evals == result.n_evals);
    } while (result.status == DC_RACE_RUNNING && n_rounds < POOL);
    CHECK(n_rounds > 2 && dc_loop_add(loop, s.images[0], NULL, 0, 6, NULL) == DC_OK); /* told of from its own first round */
    CHECK(dc_loop_watch(loop, 1, &race, &tag, NULL) == DC_OK && dc_race_rounds(race, &n_rounds) != NULL && n_rounds == 1);
    CHECK(dc_loop_advance(loop, 1, &race, &tag, NULL) == DC_OK && race != NULL && tag == 6); /* unwatched from here */
    CHECK(dc_race_read(race, &again, NULL) == DC_OK && again.n_evals == result.n_evals && again.index == result.index);
    dc_loop_free(loop);
    setting_close(&s);
}

int main(void)
{
    check_failures();
    check_refusals();
    check_advance_waits_for_images();
    check_watching();
    return test_done();
}
