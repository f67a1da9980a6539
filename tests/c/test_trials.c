/* The order of trials: even grids, weights, antithetic pairs, the published stages. */
#include <string.h>

#include "method/trials.h"
#include "test.h"

enum { N = 500, T = 1000 };

static void check_pool(void)
{
    dc_trial trials[N];
    int seen[T] = {0};
    dc_error err = {0};
    CHECK(dc_trials_pool(trials, N, T, NULL, NULL, 0, &err) == DC_OK);
    for (int i = 0; i < N; i++) {
        seen[trials[i].timestep]++;
        CHECK(trials[i].timestep == 2 * trials[i].noise_index + 1); /* floor((j + 1/2) T / N) */
        CHECK(trials[i].weight == 1.0 && trials[i].eps_sign == 1.0f);
    }
    for (int t = 0; t < T; t++)
        CHECK(seen[t] == t % 2);
    CHECK(dc_trials_pool(trials, 8, 8, NULL, NULL, 0, &err) == DC_OK);
    const uint32_t order[8] = {0, 4, 2, 6, 1, 5, 3, 7};
    for (int i = 0; i < 8; i++)
        CHECK(trials[i].timestep == order[i] && trials[i].noise_index == order[i]);
}

static void check_weights(void)
{
    const double weighting[4] = {0.0, 1.0, 3.0, 0.0}, density[4] = {9.0, 1.0, 1.0, 9.0};
    dc_trial trials[400];
    double weight[4] = {0};
    dc_error err = {0};
    CHECK(dc_trials_pool(trials, 400, 4, weighting, weighting, 0, &err) == DC_OK);
    for (int i = 0; i < 400; i++)
        CHECK_CLOSE(trials[i].weight, 1.0, 1e-14);
    /* drawn evenly from the support, weighted 1 to 3, mean 1: no trial where the weighting is 0 */
    for (int given = 0; given < 2; given++) {
        memset(weight, 0, sizeof weight);
        CHECK(dc_trials_pool(trials, 400, 4, weighting, given ? density : NULL, 0, &err) == DC_OK);
        for (int i = 0; i < 400; i++)
            weight[trials[i].timestep] += trials[i].weight;
        CHECK(weight[0] == 0.0 && weight[3] == 0.0);
        CHECK_CLOSE(weight[1], 100.0, 1e-10);
        CHECK_CLOSE(weight[2], 300.0, 1e-10);
    }
}

/* Pairs share all but the sign; their timesteps are the even grid of half as many points, all over the schedule. */
static void check_antithetic(void)
{
    for (int64_t n = 15; n <= 16; n++) {
        dc_trial trials[16];
        int seen[80] = {0};
        dc_error err = {0};
        CHECK(dc_trials_pool(trials, n, 80, NULL, NULL, 1, &err) == DC_OK);
        for (int i = 0; i < n; i++) {
            CHECK(trials[i].eps_sign == (i % 2 ? -1.0f : 1.0f));
            CHECK(trials[i].timestep == trials[i - i % 2].timestep && trials[i].noise_index == trials[i - i % 2].noise_index);
            seen[trials[i].timestep]++;
        }
        int in_pairs = 0;
        for (int j = 0; j < 8; j++)
            in_pairs += seen[10 * j + 5];
        CHECK(in_pairs == n);
        CHECK(trials[0].timestep == 5 && trials[2].timestep == 45);
    }
    int64_t pairs[4] = {3, 3, 1, 1}, single[2] = {3, 1};
    dc_trial trials[4];
    dc_error err = {0};
    CHECK(dc_trials_list(trials, pairs, 4, 5, NULL, 1, &err) == DC_OK);
    CHECK(trials[2].timestep == 1 && trials[2].noise_index == 2 && trials[3].noise_index == 2 && trials[3].eps_sign == -1);
    CHECK(dc_trials_list(trials, single, 2, 5, NULL, 1, &err) == DC_ERR_VALUE);
    CHECK(strstr(err.message, "must be equal") != NULL);
}

static void check_published(void)
{
    static const struct {
        int64_t n_stages, n_samples[4], ends[4], firsts[4];
    } table[] = {
        {2, {50, 500}, {50, 500}, {11, 1}},
        {2, {100, 500}, {100, 500}, {5, 1}},
        {2, {25, 250}, {25, 250}, {22, 2}},
        {4, {20, 50, 100, 500}, {20, 70, 150, 500}, {25, 11, 5, 1}},
        {4, {50, 100, 500, 1000}, {50, 150, 550, 1000}, {10, 5, 1, 0}},
        {3, {128, 256, 500}, {128, 299, 500}, {3, 1}},
    };
    int64_t timesteps[3000], ends[4];
    for (size_t row = 0; row < sizeof table / sizeof *table; row++) {
        int seen[1000] = {0};
        CHECK(dc_trials_published(timesteps, ends, table[row].n_samples, table[row].n_stages, 1000, 1, NULL) == DC_OK);
        for (int64_t stage = 0; stage < table[row].n_stages; stage++) {
            CHECK(ends[stage] == table[row].ends[stage]);
            if (row < 5 || stage < 2)
                CHECK(timesteps[stage ? ends[stage - 1] : 0] == table[row].firsts[stage]);
        }
        for (int64_t i = 0; i < ends[table[row].n_stages - 1]; i++)
            CHECK(seen[timesteps[i]]++ == 0);
    }
    CHECK(timesteps[127] == 765 && timesteps[298] == 511);
    const int64_t one[1] = {300}, two[2] = {2, 4};
    CHECK(dc_trials_published(timesteps, ends, one, 1, 1000, 1, NULL) == DC_OK);
    CHECK(timesteps[299] == 898);
    CHECK(dc_trials_published(timesteps, ends, two, 2, 8, 3, NULL) == DC_OK);
    CHECK(ends[0] == 6 && ends[1] == 12 && timesteps[0] == 3 && timesteps[2] == 3 && timesteps[3] == 7);
}

#define CHECK_REFUSED(call, word)                                                                                      \
    do {                                                                                                               \
        dc_error err = {0};                                                                                            \
        CHECK((call) == DC_ERR_VALUE);                                                                                 \
        CHECK(strstr(err.message, word) != NULL);                                                                      \
    } while (0)

static void check_refusals(void)
{
    dc_trial trials[4];
    const double negative[2] = {1.0, -1.0}, nothing[2] = {0.0, 0.0}, one[2] = {1.0, 0.0}, both[2] = {1.0, 1.0};
    const int64_t outside[1] = {2}, before[1] = {-1}, last[1] = {1}, none[1] = {0}, many[1] = {9};
    int64_t timesteps[8], ends[1];
    CHECK_REFUSED(dc_trials_pool(trials, 0, 2, NULL, NULL, 0, &err), "pool");
    CHECK_REFUSED(dc_trials_pool(trials, 1, 0, NULL, NULL, 0, &err), "timesteps");
    CHECK_REFUSED(dc_trials_pool(trials, 4, 2, negative, NULL, 0, &err), "weighting[1]");
    CHECK_REFUSED(dc_trials_pool(trials, 4, 2, nothing, NULL, 0, &err), "sums to 0");
    CHECK_REFUSED(dc_trials_pool(trials, 4, 2, both, one, 0, &err), "density[1]");
    CHECK_REFUSED(dc_trials_list(trials, outside, 1, 2, NULL, 0, &err), "timesteps[0]");
    CHECK_REFUSED(dc_trials_list(trials, before, 1, 2, NULL, 0, &err), "timesteps[0]");
    CHECK_REFUSED(dc_trials_list(trials, last, 1, 2, one, 0, &err), "weighting");
    CHECK_REFUSED(dc_trials_published(timesteps, ends, none, 1, 8, 1, &err), "n_samples[0]");
    CHECK_REFUSED(dc_trials_published(timesteps, ends, many, 1, 8, 1, &err), "n_samples[0]");
    CHECK_REFUSED(dc_trials_published(timesteps, ends, last, 1, 8, 0, &err), "n_trials");
}

int main(void)
{
    check_pool();
    check_weights();
    check_antithetic();
    check_published();
    check_refusals();
    return test_done();
}
