/* The race on tables that can be checked by hand, its edges, and what it refuses. */
#include <string.h>

#include "method/race.h"
#include "method/student.h"
#include "test.h"

enum { MAX_POOL = 1000, MAX_CLASSES = 1000 };

typedef struct outcome {
    double losses[MAX_CLASSES], stderrs[MAX_CLASSES], excess[MAX_CLASSES];
    int64_t n_trials[MAX_CLASSES], n_rounds;
    uint8_t alive[MAX_CLASSES];
    dc_round rounds[64];
    dc_race_result result;
} outcome;

typedef double (*table)(int64_t arm, int64_t trial);

static dc_trial trials[MAX_POOL]; /* weight 1, set in main */

/* Runs a race over a table to its end. */
static void run(outcome *out, dc_arms arms, int64_t n_trials, dc_policy policy, table error)
{
    dc_race *race;
    dc_error err = {0};
    dc_race_status status = DC_RACE_RUNNING;
    memset(out, 0, sizeof *out);
    CHECK(dc_race_new(&race, &arms, trials, n_trials, &policy, &err) == DC_OK);
    while (status == DC_RACE_RUNNING) {
        dc_race_round round = dc_race_open_round(race);
        for (int64_t t = round.first; t < round.first + round.count; t++)
            for (int64_t i = 0; i < round.n_alive; i++)
                dc_race_record(race, round.alive[i], t, error(round.alive[i], t));
        CHECK(dc_race_close_round(race, &status, &err) == DC_OK);
    }
    const dc_round *rounds = dc_race_rounds(race, &out->n_rounds);
    memcpy(out->rounds, rounds, (size_t)out->n_rounds * sizeof *rounds);
    out->result = (dc_race_result){.losses = out->losses, .stderrs = out->stderrs, .excess = out->excess,
                                   .n_trials = out->n_trials, .alive = out->alive};
    CHECK(dc_race_read(race, &out->result, &err) == DC_OK);
    CHECK(out->result.status == status);
    dc_race_free(race);
}

static void check_round(const outcome *out, int64_t i, int64_t n_trials, int64_t n_alive, int64_t n_evals)
{
    CHECK(i < out->n_rounds && out->rounds[i].n_trials == n_trials && out->rounds[i].n_alive == n_alive &&
          out->rounds[i].n_evals == n_evals);
}

static const dc_policy PLAIN = {.risk = 0.1, .n_min = 2, .fill = 1, .prior_weight = 4.0};

/* Differences to class 0: class 1 has 1, 3, 1, 3, ... */
static double two_classes(int64_t arm, int64_t trial)
{
    return 5.0 + (double)(trial % 3) + (double)arm * (trial % 2 ? 3.0 : 1.0);
}

/* n = 2: mean 2, s^2 2, radius tan(0.4 pi) sqrt(2 (1/2 - 1/8)) = 2.67, stays; n = 4: s^2 4/3, radius 1.638 sqrt(4/3 / 8) =
 * 0.67, goes.  Two classes have no one to moderate by. */
static void check_two_classes_by_hand(void)
{
    outcome out;
    run(&out, (dc_arms){2, 2, NULL, NULL}, 8, PLAIN, two_classes);
    CHECK(out.n_rounds == 2);
    check_round(&out, 0, 2, 2, 4);
    check_round(&out, 1, 4, 1, 8);
    CHECK(out.result.index == 0 && out.result.n_evals == 8 && out.result.status == DC_RACE_DECIDED);
    CHECK(out.alive[0] && !out.alive[1] && out.n_trials[1] == 4);
    CHECK_CLOSE(out.losses[0], 5.0 + 3.0 / 4.0, 1e-14);
    CHECK_CLOSE(out.losses[1], 7.0 + 3.0 / 4.0, 1e-14);
    CHECK_CLOSE(out.excess[1], 2.0, 1e-14);
    CHECK(out.excess[0] == 0.0);
    CHECK_CLOSE(out.stderrs[0], sqrt((0.75 * 0.75 * 2 + 0.25 * 0.25 + 1.25 * 1.25) / 3 / 4), 1e-14); /* 5, 6, 7, 5 */
    double statistic = 2.0 / sqrt(4.0 / 3.0 * (1.0 / 4 - 1.0 / 8));
    CHECK_CLOSE(out.result.p_disagree, dc_student_sf(statistic, 3.0), 1e-14);
}

/* Differences: class 1 has 0.5, 2.5, ...; class 2 has -2, 4, ... */
static double three_classes(int64_t arm, int64_t trial)
{
    static const double differences[3][2] = {{0.0, 0.0}, {0.5, 2.5}, {-2.0, 4.0}};
    return 10.0 + differences[arm][trial % 2];
}

/* Class 1 as far as 2. */
static double three_classes_further(int64_t arm, int64_t trial)
{
    return three_classes(arm, trial) + (arm == 1 ? 0.5 : 0.0);
}

/* n = 4, N = 8, level 0.1 (4 / 8)^2 = 0.025.  Variances 4/3 and 12.  Without moderation class 1's radius is 3.18 sqrt(4/3 /
 * 8) = 1.30 < 1.5: it goes; with d0 = 4 its s^2 is (4 20/3 + 4) / 7 = 4.38, df 7, the radius 1.75: it stays. */
static void check_moderation_by_hand(void)
{
    outcome out;
    dc_policy policy = {.risk = 0.1, .n_min = 4, .ramp = 8, .fill = 1};
    run(&out, (dc_arms){3, 3, NULL, NULL}, 8, policy, three_classes);
    check_round(&out, 0, 4, 2, 12);
    policy.prior_weight = 4.0;
    run(&out, (dc_arms){3, 3, NULL, NULL}, 8, policy, three_classes);
    check_round(&out, 0, 4, 3, 12);
    run(&out, (dc_arms){3, 3, NULL, NULL}, 8, policy, three_classes_further); /* 2 > 1.75 */
    check_round(&out, 0, 4, 2, 12);
    policy.ramp = 0; /* level 0.1: radius 1.415 sqrt(4.38 / 8) = 1.05 < 1.5 */
    run(&out, (dc_arms){3, 3, NULL, NULL}, 8, policy, three_classes);
    check_round(&out, 0, 4, 2, 12);
}

/* Differences 1, 3, 1, 3, a = 0.1 / 1: at n = 4 B = 4.0 > 1 + 4 g = 2.6, the radius is infinite, though the t test drops it
 * there; at n = 6 it is 2.503 s = 2.74 > 2, at n = 8 1.418 s = 1.52 < 2: it goes.  With min_gap 0.8 it goes at 6. */
static void check_anytime_and_gap_by_hand(void)
{
    outcome out;
    dc_policy policy = PLAIN;
    policy.anytime = 1;
    policy.n_min = 4;
    run(&out, (dc_arms){2, 2, NULL, NULL}, 100, policy, two_classes);
    check_round(&out, 0, 4, 2, 8);
    check_round(&out, 1, 6, 2, 12);
    check_round(&out, 2, 8, 1, 16);
    policy.min_gap = 0.8;
    run(&out, (dc_arms){2, 2, NULL, NULL}, 100, policy, two_classes);
    check_round(&out, 0, 4, 2, 8);
    check_round(&out, 1, 6, 1, 12);
}

static double same(int64_t arm, int64_t trial)
{
    return 1.0 + 0.0 * (double)arm + 0.1 * (double)trial;
}

static double falling(int64_t arm, int64_t trial) /* class k is worse by k for ever, variance 0 */
{
    return 1.0 + (double)arm + 0.0 * (double)trial;
}

static double prompts_tied(int64_t arm, int64_t trial) /* two prompts that take turns, and another class far off */
{
    return arm == 2 ? 50.0 : 1.0 + (double)((trial + arm) % 2);
}

static double rising(int64_t arm, int64_t trial) /* the last class is best */
{
    return 1.0 - 1e-3 * (double)arm + 0.01 * (double)(trial % 5);
}

static double turning(int64_t arm, int64_t trial)
{
    static const double before[4] = {1.1, 0.9, 0.8, 1.0};
    return arm == 1 && trial >= 4 ? 5.0 : before[arm];
}

/* Classes 0 and 1 take turns, 1 is ahead after every odd trial; class 2 is hopeless. */
static double taking_turns(int64_t arm, int64_t trial)
{
    return arm == 2 ? 5.0 : arm == trial % 2 ? 1.25 : 1.0;
}

static double unlucky(int64_t arm, int64_t trial)
{
    return (double)((arm * 7 + trial * (arm + 3)) % 11);
}

static void check_ties(void)
{
    outcome out;
    run(&out, (dc_arms){4, 4, NULL, NULL}, 30, PLAIN, same);
    CHECK(out.result.index == 0 && out.result.status == DC_RACE_POOL_EXHAUSTED && out.result.n_evals == 120);
    CHECK(out.alive[3] && out.excess[3] == 0.0 && out.result.p_disagree == 0.0);
    dc_cap cap = {5, 2};
    dc_policy capped = {.fill = 1, .caps = &cap, .n_caps = 1};
    run(&out, (dc_arms){4, 4, NULL, NULL}, 30, capped, same);
    CHECK(out.alive[0] && out.alive[1] && !out.alive[2] && !out.alive[3]);
    run(&out, (dc_arms){3, 3, NULL, NULL}, 30, PLAIN, falling); /* no variance, but a difference: gone at once */
    CHECK(out.n_rounds == 1 && out.result.status == DC_RACE_DECIDED && out.result.n_evals == 6);
}

/* At the pool's end nobody is dropped who was not told apart before, neither by a test nor by a cap; without a test the
 * cap has its say. */
static void check_the_end_of_the_pool(void)
{
    outcome out;
    dc_cap cap = {31, 1};
    dc_policy policy = PLAIN;
    for (int with_cap = 0; with_cap < 2; with_cap++) {
        policy.caps = &cap, policy.n_caps = with_cap;
        run(&out, (dc_arms){3, 3, NULL, NULL}, 31, policy, taking_turns);
        CHECK(out.result.status == DC_RACE_POOL_EXHAUSTED && out.result.index == 1 && out.result.n_evals == 2 * 31 + 2);
        CHECK(out.alive[0] && out.alive[1] && !out.alive[2] && out.n_trials[2] == 2);
        check_round(&out, out.n_rounds - 1, 31, 2, 2 * 31 + 2);
        CHECK_CLOSE(out.excess[0], 0.25 / 31, 1e-14);
        double other = 0.0, mean = 0.25 / 31; /* class 0's variance, to which class 2's (4, 3.75: 0.03125) is pulled half-way */
        for (int64_t t = 0; t < 31; t++) {
            double deviation = taking_turns(0, t) - taking_turns(1, t) - mean;
            other += deviation * deviation / 30.0;
        }
        double moderated = (4.0 * 0.5 * (other + 0.03125) + 0.03125) / 5.0;
        double tail = dc_student_sf(3.875 / sqrt(moderated * (1.0 / 2 - 1.0 / 31)), 5.0);
        CHECK_CLOSE(out.result.p_disagree, tail, 1e-14); /* the other's pool is read */
    }
    policy.risk = 0.0;
    run(&out, (dc_arms){3, 3, NULL, NULL}, 31, policy, taking_turns);
    CHECK(out.result.status == DC_RACE_DECIDED && out.result.index == 1 && !out.alive[0] && out.alive[1]);
    const int64_t twins[2] = {0, 0}; /* two prompts that nothing separates are one class: decided */
    run(&out, (dc_arms){2, 1, twins, NULL}, 8, PLAIN, same);
    CHECK(out.result.status == DC_RACE_DECIDED && out.result.n_evals == 4);
}

/* Decided after two trials, read on to five, as far as pool and budget go; of two prompts only the better one. */
static void check_the_winner_reads_on(void)
{
    static const int64_t class_of_arm[3] = {0, 0, 1};
    outcome out;
    dc_policy policy = PLAIN;
    policy.n_winner = 5;
    run(&out, (dc_arms){3, 3, NULL, NULL}, 30, policy, falling);
    CHECK(out.n_rounds == 2 && out.result.status == DC_RACE_DECIDED && out.n_trials[0] == 5 && out.n_trials[1] == 2);
    check_round(&out, 0, 2, 1, 6);
    check_round(&out, 1, 5, 1, 9);
    CHECK(out.alive[0] && !out.alive[1] && out.excess[1] == 1.0 && out.losses[0] == 1.0);
    run(&out, (dc_arms){3, 3, NULL, NULL}, 4, policy, falling);
    check_round(&out, 1, 4, 1, 8);
    CHECK(out.n_rounds == 2 && out.result.status == DC_RACE_DECIDED);
    policy.max_evals = 7;
    run(&out, (dc_arms){3, 3, NULL, NULL}, 30, policy, falling);
    check_round(&out, 1, 3, 1, 7);
    CHECK(out.n_rounds == 2 && out.result.status == DC_RACE_DECIDED);
    policy.max_evals = 0;
    run(&out, (dc_arms){3, 2, class_of_arm, NULL}, 30, policy, prompts_tied);
    check_round(&out, 0, 2, 1, 6);
    check_round(&out, 1, 5, 1, 9);
    CHECK(out.result.index == 0 && out.n_trials[0] == 5 && out.n_trials[1] == 2);
    policy.risk = 0.0; /* without a test nothing is decided early */
    run(&out, (dc_arms){3, 3, NULL, NULL}, 4, policy, falling);
    CHECK(out.n_rounds == 1 && out.result.n_evals == 12);
}

static void check_edges(void)
{
    outcome out;
    dc_policy policy = PLAIN;
    run(&out, (dc_arms){1, 1, NULL, NULL}, 30, policy, same); /* one class: decided after its first round */
    CHECK(out.result.status == DC_RACE_DECIDED && out.result.n_evals == 2 && out.result.p_disagree == 0.0);
    policy.risk = 0.9; /* a level so loose that radii are negative: the leader stays even so */
    run(&out, (dc_arms){5, 5, NULL, NULL}, 30, policy, unlucky);
    CHECK(out.n_rounds == 1 && out.result.status == DC_RACE_DECIDED && out.alive[out.result.index]);
    policy.risk = 0.0; /* Fixed goes to the end */
    run(&out, (dc_arms){1, 1, NULL, NULL}, 30, policy, same);
    CHECK(out.result.status == DC_RACE_DECIDED && out.result.n_evals == 30);
    run(&out, (dc_arms){3, 3, NULL, NULL}, 30, policy, falling);
    CHECK(out.result.status == DC_RACE_POOL_EXHAUSTED && out.result.n_evals == 90);
    run(&out, (dc_arms){3, 3, NULL, NULL}, 1, PLAIN, rising); /* one trial: nothing to test, the smallest wins */
    CHECK(out.result.index == 2 && out.result.n_evals == 3 && isnan(out.stderrs[0]));
    CHECK(out.result.status == DC_RACE_POOL_EXHAUSTED && out.alive[0] && out.alive[1]);
    policy = (dc_policy){.risk = 0.02, .n_min = INT64_MAX, .fill = 1 << 30};
    run(&out, (dc_arms){3, 3, NULL, NULL}, 30, policy, rising);
    CHECK(out.n_rounds == 1 && out.result.n_evals == 90 && out.result.status == DC_RACE_POOL_EXHAUSTED);
}

/* A round is raised to full multiples of fill, cut at caps and at the pool. */
static void check_rounds(void)
{
    outcome out;
    dc_cap caps[] = {{10, 3}, {12, 3}};
    dc_policy policy = {.risk = 1e-9, .n_min = 4, .fill = 16, .caps = caps, .n_caps = 2};
    run(&out, (dc_arms){3, 3, NULL, NULL}, 20, policy, same);
    check_round(&out, 0, 5, 3, 15);  /* 4 x 3 = 12 -> 16 -> 5 trials */
    check_round(&out, 1, 10, 3, 30); /* 2 x 3 -> 16 -> 5, to the first cap */
    check_round(&out, 2, 12, 3, 36); /* cut at the second */
    check_round(&out, 3, 17, 3, 51); /* 12 / 4 = 3, 9 -> 16 -> 5 */
    check_round(&out, 4, 20, 3, 60); /* cut at the pool */
    policy = (dc_policy){.fill = 1, .max_evals = 44};
    run(&out, (dc_arms){5, 5, NULL, NULL}, 20, policy, same);
    CHECK(out.result.status == DC_RACE_BUDGET && out.result.n_evals == 40);
    const int64_t cost_of_arm[5] = {2, 1, 1, 1, 1};
    run(&out, (dc_arms){5, 5, NULL, cost_of_arm}, 20, policy, same);
    CHECK(out.result.status == DC_RACE_BUDGET && out.result.n_evals == 42);
}

static void check_prompts_of_classes(void)
{
    outcome out;
    const int64_t class_of_arm[5] = {1, 1, 1, 0, 2}, cost_of_arm[5] = {2, 1, 1, 1, 1};
    dc_arms arms = {5, 3, class_of_arm, cost_of_arm};
    dc_cap cap = {4, 2};
    dc_policy policy = {.fill = 1, .caps = &cap, .n_caps = 1};
    run(&out, arms, 10, policy, falling); /* keeps two classes, four prompts */
    CHECK(out.result.index == 1 && out.alive[0] && out.alive[1] && !out.alive[2]);
    CHECK(out.n_trials[2] == 4 && out.n_trials[0] == 10 && out.result.n_evals == 6 * 4 + 5 * 6);
    CHECK(out.losses[1] == 1.0 && out.losses[0] == 4.0);
    /* a class is what its longest-lived prompt says, though one dropped early had a smaller mean */
    const int64_t two_of_class_1[4] = {1, 1, 0, 2};
    run(&out, (dc_arms){4, 3, two_of_class_1, NULL}, 10, (dc_policy){.fill = 1, .caps = &cap, .n_caps = 1}, turning);
    CHECK(out.n_trials[1] == 10 && out.n_trials[2] == 4 && out.result.n_evals == 4 * 4 + 6 * 2);
    CHECK_CLOSE(out.losses[1], (4 * 0.9 + 6 * 5.0) / 10, 1e-14);
    cap.keep = 1; /* one class alive with three prompts: a race with a test stops here */
    policy.risk = 1e-9, policy.n_min = 4;
    run(&out, arms, 10, policy, falling);
    CHECK(out.result.status == DC_RACE_DECIDED && out.n_rounds == 1);
}

static void check_published_counts(void)
{
    static outcome out;
    int64_t timesteps[MAX_POOL], ends[4];
    const int64_t n_samples[4] = {50, 100, 500, 1000}, keep[4] = {500, 50, 10, 1};
    dc_cap caps[4];
    CHECK(dc_trials_published(timesteps, ends, n_samples, 4, 1000, 1, NULL) == DC_OK);
    for (int i = 0; i < 4; i++)
        caps[i] = (dc_cap){ends[i], keep[i]};
    dc_policy policy = {.fill = 1, .caps = caps, .n_caps = 4};
    run(&out, (dc_arms){1000, 1000, NULL, NULL}, 1000, policy, rising);
    CHECK(out.result.n_evals == 124500 && out.result.index == 999 && out.result.status == DC_RACE_DECIDED);
    CHECK(out.n_trials[0] == 50 && out.n_trials[500] == 150 && out.n_trials[950] == 550 && out.n_trials[990] == 1000);
}

static void check_errors_are_kept(void)
{
    dc_race *race;
    dc_race_status status;
    dc_arms arms = {2, 2, NULL, NULL};
    double errors[2 * 8];
    CHECK(dc_race_new(&race, &arms, trials, 8, &PLAIN, NULL) == DC_OK);
    for (int64_t t = 0; t < 2; t++)
        for (int64_t a = 0; a < 2; a++)
            dc_race_record(race, a, t, two_classes(a, t));
    dc_race_errors(race, errors);
    CHECK(isnan(errors[0])); /* of an open round: not yet */
    CHECK(dc_race_close_round(race, &status, NULL) == DC_OK);
    dc_race_errors(race, errors);
    CHECK(errors[0] == two_classes(0, 0) && errors[8 + 1] == two_classes(1, 1) && isnan(errors[2]));
    dc_race_free(race);
    dc_race_free(NULL);
}

static void check_refused(dc_arms arms, int64_t n_trials, dc_policy policy, const char *word)
{
    dc_race *race;
    dc_error err = {0};
    CHECK(dc_race_new(&race, &arms, trials, n_trials, &policy, &err) == DC_ERR_VALUE);
    CHECK(race == NULL && strstr(err.message, word) != NULL);
}

static void check_refusals(void)
{
    const int64_t outside[2] = {0, 2}, free_of_charge[2] = {1, 0};
    const dc_cap falling_caps[2] = {{5, 2}, {5, 1}}, nobody[1] = {{5, 0}};
    dc_arms arms = {2, 2, NULL, NULL};
    dc_policy good = {.risk = 0.02, .n_min = 8, .fill = 1}, bad;
#define REFUSED(setting, word) bad = good, bad.setting, check_refused(arms, 30, bad, word)
    REFUSED(risk = 1.0, "risk");
    REFUSED(risk = -0.1, "risk");
    REFUSED(risk = NAN, "risk");
    REFUSED(n_min = 1, "n_min");
    REFUSED(n_winner = -1, "n_winner");
    REFUSED(ramp = -1, "ramp");
    REFUSED(prior_weight = -1.0, "prior_weight");
    REFUSED(prior_weight = INFINITY, "prior_weight");
    REFUSED(min_gap = -1.0, "min_gap");
    REFUSED(min_gap = INFINITY, "min_gap");
    REFUSED(fill = 0, "fill");
    REFUSED(fill = INT64_MAX, "fill");
    REFUSED(max_evals = -1, "max_evals");
    REFUSED(max_evals = 1, "max_evals is 1, must allow one trial of every prompt, 2");
    REFUSED(caps = falling_caps; bad.n_caps = 2, "caps[1]");
    REFUSED(caps = nobody; bad.n_caps = 1, "caps[0]");
#undef REFUSED
    check_refused(arms, 0, good, "pool");
    check_refused((dc_arms){0, 0, NULL, NULL}, 30, good, "0 classes");
    check_refused((dc_arms){2, 1, NULL, NULL}, 30, good, "class_of_arm");
    check_refused((dc_arms){2, 2, outside, NULL}, 30, good, "class_of_arm[1]");
    check_refused((dc_arms){2, 2, NULL, free_of_charge}, 30, good, "must have 1");
    check_refused(arms, INT64_MAX / 2, good, "too many");
}

int main(void)
{
    for (int i = 0; i < MAX_POOL; i++)
        trials[i] = (dc_trial){0, (uint32_t)i, 1.0f, 1.0};
    check_two_classes_by_hand();
    check_moderation_by_hand();
    check_anytime_and_gap_by_hand();
    check_ties();
    check_the_end_of_the_pool();
    check_the_winner_reads_on();
    check_edges();
    check_rounds();
    check_prompts_of_classes();
    check_published_counts();
    check_errors_are_kept();
    check_refusals();
    return test_done();
}
