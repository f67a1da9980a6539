/* The race of classes for one image: which classes are alive, how many more trials they get, when to stop.
 *
 * Round.  With n trials done and S classes alive, the survivors get m = max(n_min if n = 0 else 2, n / 4) more, raised to
 * floor(ceil(m S / fill) fill / S), never past the pool or the next cap.
 * Test.  Leader b = smallest mean (ties: lowest index).  For each other class D_i = w_i (e_ic - e_ib), mean m_c, sample
 * variance s_c^2; with more than two alive s~_c^2 = (d0 median s^2 + (n - 1) s_c^2) / (d0 + n - 1), df = n - 1 + d0, else
 * s_c^2, df = n - 1.  d0 = min(prior_weight, max(4, (S - 1)(n - 1))): no more than the variances behind the median know, but 4.  Level a_n = risk min(1, n / ramp)^2; radius r_c = t_{1 - a_n, df} s~_c sqrt(1/n - 1/N).  Drop c when
 * m_c > r_c.  The level is for one look at one pair: a knob, not the error probability of the label.
 * Indifference.  With min_gap > 0 a class also leaves once it can not be better than the leader by more than that: drop c
 * when m_c + min_gap > r_c.  Near ties end early; the winner may then lose to another class by up to min_gap.
 * Anytime.  r_c is instead the radius of a confidence sequence, which holds at all n at once, at the level a = risk / (A - 1)
 * of a union over the other A - 1 arms; ramp, prior_weight and the pool's size are not used:
 *     r_c = s_c sqrt((n - 1) / n (B - 1) / (1 - B / (1 + n g))),  B = (sqrt(1 + n g) / a)^(2 / n),  infinite if B >= 1 + n g,
 *     g = (-2 log a + log(1 - 2 log a)) / 16,  the value that makes it tightest near n = 16.
 * It inverts the t-test's Bayes factor with effect size ~ N(0, g), a test martingale under normal differences of unknown
 * variance (Lai, 1976; Wang and Ramdas, 2024, "Anytime-valid t-tests").  As n grows it becomes the asymptotic confidence
 * sequence s sqrt(2 (n g + 1) / (n^2 g) log(sqrt(n g + 1) / a)) of Waudby-Smith et al. (2024).  So for independent normal
 * trials the chance that the class with the smallest expected loss is ever dropped is at most risk; for others in the limit.
 * Caps.  (trials, keep): after the test at that count only the `keep` smallest means stay.
 *
 * Winner.  Once all arms alive belong to one class its best arm alone reads on to n_winner trials, if it has fewer: nothing
 * is decided there, but its loss is then known well enough to be shown and judged.
 *
 * Staged is caps without a test, Fixed is neither; both go on to the last trial.  With a test, the race stops as soon as
 * all arms alive belong to one class and the winner has read on, or at n = N: there nothing is left to doubt or to save, so that neither test nor cap
 * drops anyone; the smallest mean wins, and the classes alive are those that were never separated.
 *
 * An arm is what races: a prompt, or a class whose prompts are pooled inside each trial.  class_of_arm maps arms to classes
 * (several arms a class: the class is as good as its best prompt).  Evaluating one trial of arm a costs cost_of_arm[a].
 *
 * The race knows numbers only: no denoiser, no device.  Replaying a stored table and a live run are the same calls. */
#ifndef DC_METHOD_RACE_H
#define DC_METHOD_RACE_H

#include <stdint.h>

#include "base/status.h"
#include "method/trials.h"

typedef struct dc_cap {
    int64_t trials, keep;
} dc_cap;

typedef struct dc_policy {
    double risk;         /* level of one look at one pair, in [0, 1); 0: never test, so never stop early */
    int64_t n_min;       /* trials before the first test, >= 2 */
    int64_t n_winner;    /* trials of the winner at the end, at least, as far as pool and budget go */
    int64_t ramp;        /* trials until the level is reached in full; 0: from the first test on */
    int anytime;         /* the radius of a confidence sequence, not of Student's t */
    double min_gap;      /* losses that differ by less count as equal, >= 0 */
    double prior_weight; /* d0 of the moderated variance at most, >= 0 */
    int64_t fill;        /* rows that a round is raised to, 1 to 2^30: a property of the policy, never of the hardware */
    const dc_cap *caps;  /* (n_caps,) borrowed; trials strictly increasing, keep >= 1 */
    int64_t n_caps;
    int64_t max_evals;   /* the last round is cut to stay within it; 0: no budget */
} dc_policy;

typedef enum dc_race_status {
    DC_RACE_RUNNING = 0,
    DC_RACE_DECIDED,        /* one class alive */
    DC_RACE_POOL_EXHAUSTED, /* all trials evaluated, several classes alive: never separated */
    DC_RACE_BUDGET,         /* max_evals allows no further trial */
} dc_race_status;

/* One round as it happened: the path of elimination.  Cumulative. */
typedef struct dc_round {
    int64_t n_trials, n_alive, n_evals; /* n_alive: classes alive after the round */
} dc_round;

/* What the arms are.  Borrowed for the life of the races made from it. */
typedef struct dc_arms {
    int64_t n_arms, n_classes;
    const int64_t *class_of_arm; /* (n_arms,), or NULL: arm i is class i */
    const int64_t *cost_of_arm;  /* (n_arms,) evaluations of one trial, or NULL: 1 */
} dc_arms;

typedef struct dc_race dc_race;

/* Checks every argument; trials (n_trials,) is the pool, borrowed.  *out: returns new. */
DC_MUST_USE dc_status dc_race_new(dc_race **out, const dc_arms *arms, const dc_trial *trials, int64_t n_trials,
                                  const dc_policy *policy, dc_error *err);
void dc_race_free(dc_race *race); /* takes; NULL is fine */
const dc_arms *dc_race_arms(const dc_race *race); /* what it was made of; lives as long as the race */

/* The open round: trials first .. first + count - 1 for each of alive[0 .. n_alive - 1] (ascending, borrowed until the
 * round closes).  Only while the status is DC_RACE_RUNNING. */
typedef struct dc_race_round {
    int64_t first, count, n_alive;
    const int64_t *alive; /* arms */
} dc_race_round;

/* The first round is opened by dc_race_new; a closed round opens the next.  Errors are unweighted means over elements. */
dc_race_round dc_race_open_round(const dc_race *race);
void dc_race_record(dc_race *race, int64_t arm, int64_t trial, double error);
/* All errors of the open round are recorded: test, caps, stop or open the next. */
DC_MUST_USE dc_status dc_race_close_round(dc_race *race, dc_race_status *status, dc_error *err);

/* (n_classes,) arrays of the caller, any of them NULL.  Losses are weighted means over the class's own trials, as of its
 * last; stderr is theirs (sample standard deviation of w e over sqrt(n), NaN for n < 2); excess is the mean of w (e - e of
 * the winner) over the trials both have.  p_disagree: sum over the other classes of the Student-t tail that the full pool
 * would turn their difference around, with the factor sqrt(1/n - 1/N) and the variance moderated as in the test, by the median
 * over the classes that saw as many trials or more; 0 when n = N; at most 1. */
typedef struct dc_race_result {
    double *losses, *stderrs, *excess;
    int64_t *n_trials;
    uint8_t *alive;
    int64_t index; /* winner; ties go to the lowest index */
    int64_t n_evals;
    double p_disagree;
    dc_race_status status;
} dc_race_result;
DC_MUST_USE dc_status dc_race_read(const dc_race *race, dc_race_result *result, dc_error *err);

/* Rounds so far, borrowed; *n receives their number. */
const dc_round *dc_race_rounds(const dc_race *race, int64_t *n);
/* Unweighted errors (n_arms, n_trials) into the caller's array; NaN where not evaluated. */
void dc_race_errors(const dc_race *race, double *errors);

#endif
