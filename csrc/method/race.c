#include "method/race.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "method/race_state.h"
#include "method/student.h"

enum { LARGEST_FILL = 1 << 30, LARGEST_COST = 1 << 30 }; /* so that products below stay in 64 bits */

/* ---- checks ------------------------------------------------------------------------------------------------------ */

static dc_status check_policy(const dc_policy *policy, int64_t n_trials, dc_error *err)
{
    if (!(policy->risk >= 0.0 && policy->risk < 1.0))
        return dc_error_set(err, DC_ERR_VALUE, "risk is %g, must be in [0, 1)", policy->risk);
    if (policy->risk > 0.0 && policy->n_min < 2)
        return dc_error_set(err, DC_ERR_VALUE, "n_min is %lld, must be 2 or more: a variance needs two trials",
                            (long long)policy->n_min);
    if (policy->n_winner < 0)
        return dc_error_set(err, DC_ERR_VALUE, "n_winner is %lld, must be 0 or more", (long long)policy->n_winner);
    if (policy->ramp < 0)
        return dc_error_set(err, DC_ERR_VALUE, "ramp is %lld, must be 0 or more", (long long)policy->ramp);
    if (!(policy->prior_weight >= 0.0) || !isfinite(policy->prior_weight))
        return dc_error_set(err, DC_ERR_VALUE, "prior_weight is %g, must be 0 or more", policy->prior_weight);
    if (!(policy->min_gap >= 0.0) || !isfinite(policy->min_gap))
        return dc_error_set(err, DC_ERR_VALUE, "min_gap is %g, must be 0 or more", policy->min_gap);
    if (policy->fill < 1 || policy->fill > LARGEST_FILL)
        return dc_error_set(err, DC_ERR_VALUE, "fill is %lld, must be 1 to %d", (long long)policy->fill, LARGEST_FILL);
    if (policy->max_evals < 0)
        return dc_error_set(err, DC_ERR_VALUE, "max_evals is %lld, must be positive", (long long)policy->max_evals);
    for (int64_t i = 0; i < policy->n_caps; i++) {
        dc_cap cap = policy->caps[i];
        if (cap.trials < 1 || cap.keep < 1 || (i > 0 && cap.trials <= policy->caps[i - 1].trials))
            return dc_error_set(err, DC_ERR_VALUE,
                                "caps[%lld] is (%lld, %lld): trials must rise from cap to cap and keep must be 1 or more",
                                (long long)i, (long long)cap.trials, (long long)cap.keep);
    }
    if (n_trials < 1)
        return dc_error_set(err, DC_ERR_VALUE, "the pool has %lld trials, must have 1 or more", (long long)n_trials);
    return DC_OK;
}

static dc_status check_arms(const dc_arms *arms, int64_t n_trials, dc_error *err)
{
    int64_t cost = 0, full;
    if (arms->n_arms < 1 || arms->n_classes < 1)
        return dc_error_set(err, DC_ERR_VALUE, "there are %lld classes with %lld prompts, must be 1 or more of each",
                            (long long)arms->n_classes, (long long)arms->n_arms);
    if (arms->class_of_arm == NULL && arms->n_arms != arms->n_classes)
        return dc_error_set(err, DC_ERR_VALUE, "%lld arms for %lld classes need class_of_arm", (long long)arms->n_arms,
                            (long long)arms->n_classes);
    for (int64_t a = 0; a < arms->n_arms; a++) {
        if (arms->class_of_arm != NULL && (arms->class_of_arm[a] < 0 || arms->class_of_arm[a] >= arms->n_classes))
            return dc_error_set(err, DC_ERR_VALUE, "class_of_arm[%lld] is %lld, must be 0 to %lld", (long long)a,
                                (long long)arms->class_of_arm[a], (long long)(arms->n_classes - 1));
        if (arms->cost_of_arm != NULL && (arms->cost_of_arm[a] < 1 || arms->cost_of_arm[a] > LARGEST_COST))
            return dc_error_set(err, DC_ERR_VALUE, "arm %lld has %lld conditions, must have 1 to %d", (long long)a,
                                (long long)arms->cost_of_arm[a], LARGEST_COST);
        cost += arms->cost_of_arm != NULL ? arms->cost_of_arm[a] : 1;
    }
    if (!dc_size_mul(&full, cost, n_trials) || full > INT64_MAX / 2)
        return dc_error_set(err, DC_ERR_VALUE, "%lld trials of %lld prompts are too many to count", (long long)n_trials,
                            (long long)arms->n_arms);
    return DC_OK;
}

/* ---- rounds ------------------------------------------------------------------------------------------------------ */

static int64_t cost_of(const dc_race *race, int64_t arm)
{
    return race->arms.cost_of_arm != NULL ? race->arms.cost_of_arm[arm] : 1;
}

static int64_t cost_of_trial(const dc_race *race)
{
    int64_t cost = 0;
    for (int64_t i = 0; i < race->n_alive; i++)
        cost += cost_of(race, race->alive[i]);
    return cost;
}

/* Trials of the next round, before the budget has its say. */
static int64_t round_length(const dc_race *race)
{
    const dc_policy *policy = &race->policy;
    int64_t n = race->done, s = race->n_alive, limit = race->n_trials;
    if (race->decided) /* the winner reads on */
        return (policy->n_winner < limit ? policy->n_winner : limit) - n;
    for (int64_t i = policy->n_caps - 1; i >= 0; i--)
        if (policy->caps[i].trials > n && policy->caps[i].trials < limit)
            limit = policy->caps[i].trials;
    if (policy->risk == 0.0)
        return limit - n;
    int64_t m = n == 0 ? policy->n_min : n / 4 > 2 ? n / 4 : 2;
    m = m < limit - n ? m : limit - n;
    int64_t filled = (m * s + policy->fill - 1) / policy->fill * policy->fill / s;
    return filled < limit - n ? filled : limit - n;
}

/* Memory for the open round's errors; doubling, so that a small race stays small. */
static dc_status reserve(dc_race *race, int64_t rows, dc_error *err)
{
    if (rows <= race->capacity)
        return DC_OK;
    int64_t capacity = 2 * race->capacity > rows ? 2 * race->capacity : rows, items;
    capacity = capacity < race->n_trials ? capacity : race->n_trials;
    void *memory;
    if (!dc_size_mul(&items, capacity, race->arms.n_arms))
        return dc_error_set(err, DC_ERR_NOMEM, "%lld trials of %lld prompts do not fit in memory", (long long)capacity,
                            (long long)race->arms.n_arms);
    dc_status status = dc_alloc(&memory, items, sizeof(double), "the race's errors", err);
    if (status != DC_OK)
        return status;
    if (race->errors != NULL)
        memcpy(memory, race->errors, (size_t)(race->done * race->arms.n_arms) * sizeof(double));
    dc_free(race->errors);
    race->errors = memory;
    race->capacity = capacity;
    return DC_OK;
}

static dc_status open_round(dc_race *race, dc_error *err)
{
    race->count = round_length(race);
    if (race->policy.max_evals > 0) {
        int64_t affordable = (race->policy.max_evals - race->n_evals) / cost_of_trial(race);
        race->count = race->count < affordable ? race->count : affordable;
        if (race->count == 0) {
            race->status = race->decided ? DC_RACE_DECIDED : DC_RACE_BUDGET;
            return DC_OK;
        }
    }
    return reserve(race, race->done + race->count, err);
}

dc_race_round dc_race_open_round(const dc_race *race)
{
    return (dc_race_round){race->done, race->count, race->n_alive, race->alive};
}

void dc_race_record(dc_race *race, int64_t arm, int64_t trial, double error)
{
    race->errors[trial * race->arms.n_arms + arm] = error;
}

/* ---- life -------------------------------------------------------------------------------------------------------- */

dc_status dc_race_new(dc_race **out, const dc_arms *arms, const dc_trial *trials, int64_t n_trials,
                      const dc_policy *policy, dc_error *err)
{
    void *memory = NULL;
    dc_race *race = NULL;
    *out = NULL;
    dc_status status = check_policy(policy, n_trials, err);
    if (status == DC_OK)
        status = check_arms(arms, n_trials, err);
    if (status != DC_OK || (status = dc_alloc(&memory, 1, sizeof *race, "the race", err)) != DC_OK)
        return status;
    race = memory;
    race->arms = *arms;
    race->trials = trials;
    race->n_trials = n_trials;
    race->policy = *policy;
    race->n_alive = arms->n_arms;
    struct {
        void *member;
        int64_t count;
        size_t item_bytes;
    } arrays[] = {
        {&race->n_done, arms->n_arms, sizeof *race->n_done}, {&race->alive, arms->n_arms, sizeof *race->alive},
        {&race->sum, arms->n_arms, sizeof *race->sum},       {&race->variance, arms->n_arms, sizeof *race->variance},
        {&race->ranks, arms->n_arms, sizeof *race->ranks},   {&race->keep, arms->n_arms, sizeof *race->keep},
        {&race->class_seen, arms->n_classes, sizeof *race->class_seen},
    };
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) {
        if ((status = dc_alloc(&memory, arrays[i].count, arrays[i].item_bytes, "the race's prompts", err)) != DC_OK)
            goto done;
        memcpy(arrays[i].member, &memory, sizeof memory);
    }
    for (int64_t a = 0; a < arms->n_arms; a++)
        race->alive[a] = a;
    if ((status = open_round(race, err)) != DC_OK)
        goto done;
    if (race->status == DC_RACE_BUDGET) {
        status = dc_error_set(err, DC_ERR_VALUE, "max_evals is %lld, must allow one trial of every prompt, %lld",
                              (long long)policy->max_evals, (long long)cost_of_trial(race));
        goto done;
    }
    *out = race;
    race = NULL;
done:
    dc_race_free(race);
    return status;
}

void dc_race_free(dc_race *race)
{
    if (race == NULL)
        return;
    dc_free(race->errors);
    dc_free(race->n_done);
    dc_free(race->alive);
    dc_free(race->rounds);
    dc_free(race->sum);
    dc_free(race->variance);
    dc_free(race->ranks);
    dc_free(race->keep);
    dc_free(race->class_seen);
    dc_free(race);
}

/* ---- the test ---------------------------------------------------------------------------------------------------- */

/* The round's trials join every survivor's sum of w e, in trial order: the same sum however the rounds were cut. */
static void add_round(dc_race *race)
{
    for (int64_t t = race->done; t < race->done + race->count; t++) {
        const double *row = race->errors + t * race->arms.n_arms;
        double weight = race->trials[t].weight;
        for (int64_t i = 0; i < race->n_alive; i++)
            race->sum[race->alive[i]] += weight * row[race->alive[i]];
    }
    race->n_evals += cost_of_trial(race) * race->count;
    race->done += race->count;
    race->count = 0;
    for (int64_t i = 0; i < race->n_alive; i++)
        race->n_done[race->alive[i]] = race->done;
}

int64_t dc_race_leader(const dc_race *race)
{
    int64_t leader = 0;
    for (int64_t i = 1; i < race->n_alive; i++)
        if (dc_race_mean(race, race->alive[i]) < dc_race_mean(race, race->alive[leader]))
            leader = i;
    return leader;
}

/* Sample variances of D = w (e - e of the leader), about their means, so that near ties keep their digits. */
static void update_variances(dc_race *race, int64_t leader)
{
    int64_t n = race->done, b = race->alive[leader];
    double lowest = dc_race_mean(race, b);
    for (int64_t i = 0; i < race->n_alive; i++) {
        race->variance[i] = 0.0;
        race->ranks[i].value = dc_race_mean(race, race->alive[i]) - lowest;
    }
    for (int64_t t = 0; t < n; t++) {
        const double *row = race->errors + t * race->arms.n_arms;
        double weight = race->trials[t].weight;
        for (int64_t i = 0; i < race->n_alive; i++) {
            double deviation = weight * (row[race->alive[i]] - row[b]) - race->ranks[i].value;
            race->variance[i] += deviation * deviation;
        }
    }
    for (int64_t i = 0; i < race->n_alive; i++)
        race->variance[i] /= (double)(n - 1);
}

static int compare_ranks(const void *a, const void *b)
{
    const dc_rank *x = a, *y = b;
    if (x->value != y->value)
        return x->value < y->value ? -1 : 1;
    return (x->position > y->position) - (x->position < y->position);
}

double dc_race_median(dc_rank *ranks, int64_t n)
{
    qsort(ranks, (size_t)n, sizeof *ranks, compare_ranks);
    return n % 2 ? ranks[n / 2].value : 0.5 * (ranks[n / 2 - 1].value + ranks[n / 2].value);
}

double dc_race_prior_weight(const dc_race *race, int64_t n_variances, int64_t n_trials)
{
    return fmin(race->policy.prior_weight, fmax(4.0, (double)n_variances * (double)(n_trials - 1)));
}

static double median_variance(dc_race *race, int64_t leader)
{
    dc_rank *ranks = race->ranks;
    int64_t n = 0;
    for (int64_t i = 0; i < race->n_alive; i++)
        if (i != leader)
            ranks[n++] = (dc_rank){race->variance[i], i};
    return dc_race_median(ranks, n);
}

static void drop_others(dc_race *race)
{
    int64_t kept = 0;
    for (int64_t i = 0; i < race->n_alive; i++)
        if (race->keep[i])
            race->alive[kept++] = race->alive[i];
    race->n_alive = kept;
}

/* r_c / s~_c of an ordinary round; df: of s~_c. */
static double student_radius(const dc_race *race, double df)
{
    double n = (double)race->done, ramp = (double)race->policy.ramp;
    double share = ramp > 0.0 ? fmin(1.0, n / ramp) : 1.0;
    return dc_student_isf(race->policy.risk * share * share, df) * sqrt(1.0 / n - 1.0 / (double)race->n_trials);
}

/* r_c / s_c of a race with guarantee: B and g of race.h. */
static double anytime_radius(const dc_race *race)
{
    double n = (double)race->done, a = race->policy.risk / (double)(race->arms.n_arms - 1);
    double g = (-2.0 * log(a) + log(1.0 - 2.0 * log(a))) / 16.0, growth = 1.0 + n * g;
    double b = pow(sqrt(growth) / a, 2.0 / n);
    return b < growth ? sqrt((n - 1.0) / n * (b - 1.0) / (1.0 - b / growth)) : INFINITY;
}

static void test_arms(dc_race *race)
{
    const dc_policy *policy = &race->policy;
    int64_t leader = dc_race_leader(race);
    double lowest = dc_race_mean(race, race->alive[leader]), n = (double)race->done;
    update_variances(race, leader);
    int moderated = race->n_alive > 2 && !policy->anytime;
    double d0 = moderated ? dc_race_prior_weight(race, race->n_alive - 1, race->done) : 0.0;
    double prior = moderated ? median_variance(race, leader) : 0.0;
    double factor = policy->anytime ? anytime_radius(race) : student_radius(race, n - 1.0 + d0);
    for (int64_t i = 0; i < race->n_alive; i++) {
        double s2 = (d0 * prior + (n - 1.0) * race->variance[i]) / (d0 + n - 1.0);
        /* a tie (no difference at all) never drops: the radius is zero and so is the mean */
        double excess = dc_race_mean(race, race->alive[i]) - lowest;
        race->keep[i] = i == leader || !(excess + policy->min_gap > factor * sqrt(s2));
    }
    drop_others(race);
}

/* The `keep` best classes: arms by rising mean until one of a further class comes. */
static void apply_cap(dc_race *race, int64_t keep)
{
    int64_t n_classes = 0;
    memset(race->class_seen, 0, (size_t)race->arms.n_classes);
    memset(race->keep, 0, (size_t)race->n_alive);
    for (int64_t i = 0; i < race->n_alive; i++)
        race->ranks[i] = (dc_rank){dc_race_mean(race, race->alive[i]), i};
    qsort(race->ranks, (size_t)race->n_alive, sizeof *race->ranks, compare_ranks);
    for (int64_t i = 0; i < race->n_alive; i++) {
        int64_t position = race->ranks[i].position;
        uint8_t *seen = &race->class_seen[dc_race_class_of(race, race->alive[position])];
        if (!*seen && n_classes == keep)
            break;
        n_classes += !*seen;
        *seen = 1;
        race->keep[position] = 1;
    }
    drop_others(race);
}

/* Of several prompts of the class that won, the best. */
static void keep_leader(dc_race *race)
{
    race->alive[0] = race->alive[dc_race_leader(race)];
    race->n_alive = 1;
}

static int64_t classes_alive(dc_race *race)
{
    int64_t count = 0;
    memset(race->class_seen, 0, (size_t)race->arms.n_classes);
    for (int64_t i = 0; i < race->n_alive; i++) {
        uint8_t *seen = &race->class_seen[dc_race_class_of(race, race->alive[i])];
        count += !*seen;
        *seen = 1;
    }
    return count;
}

static dc_status remember_round(dc_race *race, int64_t n_classes, dc_error *err)
{
    if (race->n_rounds == race->rounds_capacity) {
        void *memory;
        int64_t capacity = race->rounds_capacity ? 2 * race->rounds_capacity : 8;
        dc_status status = dc_alloc(&memory, capacity, sizeof(dc_round), "the trace", err);
        if (status != DC_OK)
            return status;
        if (race->rounds != NULL)
            memcpy(memory, race->rounds, (size_t)race->n_rounds * sizeof(dc_round));
        dc_free(race->rounds);
        race->rounds = memory;
        race->rounds_capacity = capacity;
    }
    race->rounds[race->n_rounds++] = (dc_round){race->done, n_classes, race->n_evals};
    return DC_OK;
}

dc_status dc_race_close_round(dc_race *race, dc_race_status *status, dc_error *err)
{
    add_round(race);
    int tests = race->policy.risk > 0.0, all_seen = race->done == race->n_trials;
    if (tests && !all_seen && race->n_alive > 1 && race->done > 1)
        test_arms(race);
    for (int64_t i = 0; i < race->policy.n_caps; i++)
        if (race->policy.caps[i].trials == race->done && race->n_alive > 1 && !(tests && all_seen))
            apply_cap(race, race->policy.caps[i].keep);
    int64_t n_classes = classes_alive(race);
    dc_status result = remember_round(race, n_classes, err);
    if (result != DC_OK)
        return result;
    race->decided = n_classes == 1 && (tests || all_seen);
    if (race->decided && (all_seen || race->done >= race->policy.n_winner)) {
        race->status = DC_RACE_DECIDED;
    } else if (all_seen) {
        race->status = DC_RACE_POOL_EXHAUSTED;
    } else {
        if (race->decided)
            keep_leader(race);
        result = open_round(race, err);
    }
    *status = race->status;
    return result;
}
