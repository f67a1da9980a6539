/* What a race says: winner, losses, standard errors, excess, and the chance that the full pool would decide otherwise. */
#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "method/race_state.h"
#include "method/student.h"

/* One class as its best arm saw it. */
typedef struct class_sums {
    int64_t arm, n;
    double mean, square;                   /* of w e: mean, sum of squares about it */
    double difference, difference_square;  /* of w (e - e of the winner), the same */
} class_sums;

/* The arm that speaks for each class: most trials, then smallest mean, then lowest index. */
static void best_arms(const dc_race *race, class_sums *classes, int64_t winner)
{
    for (int64_t c = 0; c < race->arms.n_classes; c++)
        classes[c] = (class_sums){.arm = -1};
    for (int64_t a = 0; a < race->arms.n_arms; a++) {
        int64_t *best = &classes[dc_race_class_of(race, a)].arm;
        if (*best < 0 || race->n_done[a] > race->n_done[*best] ||
            (race->n_done[a] == race->n_done[*best] && dc_race_mean(race, a) < dc_race_mean(race, *best)))
            *best = a;
    }
    classes[dc_race_class_of(race, winner)].arm = winner;
    for (int64_t c = 0; c < race->arms.n_classes; c++) {
        classes[c].n = classes[c].arm >= 0 ? race->n_done[classes[c].arm] : 0;
        classes[c].mean = classes[c].n > 0 ? dc_race_mean(race, classes[c].arm) : NAN;
        classes[c].difference = classes[c].n > 0 ? 0.0 : NAN;
    }
}

/* Two passes over the errors, trial by trial as they lie in memory; a class leaves after its last trial. */
static void add_differences(const dc_race *race, class_sums *classes, class_sums **open, int64_t winner)
{
    for (int pass = 0; pass < 2; pass++) {
        int64_t n_open = race->arms.n_classes;
        for (int64_t c = 0; c < n_open; c++)
            open[c] = &classes[c];
        for (int64_t t = 0; n_open > 0; t++) {
            int64_t n_left = 0;
            for (int64_t i = 0; i < n_open; i++)
                if (open[i]->n > t)
                    open[n_left++] = open[i];
            n_open = n_left;
            const double *row = race->errors + t * race->arms.n_arms;
            for (int64_t i = 0; i < n_open; i++) {
                class_sums *c = open[i];
                double weight = race->trials[t].weight, difference = weight * (row[c->arm] - row[winner]);
                if (pass == 0) {
                    c->difference += difference;
                    continue;
                }
                double deviation = weight * row[c->arm] - c->mean;
                c->square += deviation * deviation;
                c->difference_square += (difference - c->difference) * (difference - c->difference);
            }
        }
        for (int64_t c = 0; pass == 0 && c < race->arms.n_classes; c++)
            classes[c].difference /= (double)classes[c].n;
    }
}

/* The moderated variance of the classes that left after n trials: pulled to the median over all that were there then. */
static double prior_variance(const dc_race *race, const class_sums *classes, dc_rank *ranks, int64_t winner, int64_t n,
                             double *weight)
{
    int64_t count = 0;
    for (int64_t c = 0; c < race->arms.n_classes; c++)
        if (c != winner && classes[c].n >= n)
            ranks[count++] = (dc_rank){classes[c].difference_square / (double)(classes[c].n - 1), c};
    *weight = count > 1 ? dc_race_prior_weight(race, count, n) : 0.0;
    return count > 1 ? dc_race_median(ranks, count) : 0.0;
}

/* Chance that the full pool would turn the difference around; see race.h. */
static double tail(const dc_race *race, const class_sums *c, double prior, double weight)
{
    if (c->n >= race->n_trials)
        return 0.0;
    if (c->n < 2)
        return 0.5;
    double n = (double)c->n, df = weight + n - 1.0, variance = (weight * prior + c->difference_square) / df;
    double radius = sqrt(variance * (1.0 / n - 1.0 / (double)race->n_trials));
    return radius > 0.0 ? dc_student_sf(c->difference / radius, df) : 0.0;
}

static double sum_of_tails(const dc_race *race, const class_sums *classes, dc_rank *ranks, int64_t winner)
{
    double sum = 0.0;
    for (int64_t r = 0; r < race->n_rounds; r++) {
        int64_t n = race->rounds[r].n_trials;
        double weight = 0.0, prior = n > 1 ? prior_variance(race, classes, ranks, winner, n, &weight) : 0.0;
        for (int64_t c = 0; c < race->arms.n_classes; c++)
            if (c != winner && classes[c].n == n)
                sum += tail(race, &classes[c], prior, weight);
    }
    return fmin(1.0, sum);
}

dc_status dc_race_read(const dc_race *race, dc_race_result *result, dc_error *err)
{
    void *memory = NULL;
    class_sums *classes = NULL, **open = NULL;
    dc_rank *ranks = NULL;
    int64_t n_classes = race->arms.n_classes, winner = race->alive[dc_race_leader(race)];
    dc_status status = dc_alloc(&memory, n_classes, sizeof *classes, "the result", err);
    if (status != DC_OK)
        return status;
    classes = memory;
    if ((status = dc_alloc(&memory, n_classes, sizeof *open, "the result", err)) != DC_OK)
        goto done;
    open = memory;
    if ((status = dc_alloc(&memory, n_classes, sizeof *ranks, "the result", err)) != DC_OK)
        goto done;
    ranks = memory;
    best_arms(race, classes, winner);
    add_differences(race, classes, open, winner);
    result->index = dc_race_class_of(race, winner);
    result->n_evals = race->n_evals;
    result->status = race->status;
    result->p_disagree = sum_of_tails(race, classes, ranks, result->index);
    for (int64_t i = 0; i < n_classes; i++) {
        const class_sums *c = &classes[i];
        if (result->losses != NULL)
            result->losses[i] = c->mean;
        if (result->stderrs != NULL)
            result->stderrs[i] = c->n > 1 ? sqrt(c->square / (double)(c->n - 1) / (double)c->n) : NAN;
        if (result->excess != NULL)
            result->excess[i] = c->difference;
        if (result->n_trials != NULL)
            result->n_trials[i] = c->n;
    }
    if (result->alive != NULL)
        memset(result->alive, 0, (size_t)n_classes);
    for (int64_t i = 0; i < race->n_alive && result->alive != NULL; i++)
        result->alive[dc_race_class_of(race, race->alive[i])] = 1;
done:
    dc_free(ranks);
    dc_free(open);
    dc_free(classes);
    return status;
}

const dc_arms *dc_race_arms(const dc_race *race)
{
    return &race->arms;
}

const dc_round *dc_race_rounds(const dc_race *race, int64_t *n)
{
    *n = race->n_rounds;
    return race->rounds;
}

void dc_race_errors(const dc_race *race, double *errors)
{
    for (int64_t a = 0; a < race->arms.n_arms; a++)
        for (int64_t t = 0; t < race->n_trials; t++)
            errors[a * race->n_trials + t] = t < race->n_done[a] ? race->errors[t * race->arms.n_arms + a] : NAN;
}
