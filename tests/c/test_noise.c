/* Noise: a pure function of key and element, the same bits from every instruction set. */
#include <stdlib.h>

#include "backends.h"
#include "formulas/gaussian.h"
#include "formulas/philox.h"

enum { GUARD = 64, LONGEST = 5000 };

static const int64_t COUNTS[] = {0,  1,  2,  3,  4,  5,   7,   8,    15,   16,   17,
                                 31, 33, 63, 64, 65, 255, 257, 1023, 1024, 1025, 4099};
static const int64_t FIRSTS[] = {0, 1, 2, 3, 4, 5, 1021, 1023, 1024, (1LL << 34) - 6, (1LL << 50) - LONGEST};

#define LENGTH(array) ((int)(sizeof(array) / sizeof *(array)))

static float element(dc_noise_key key, int64_t e)
{
    float eps[4];
    dc_words words = dc_noise_words(key.seed, key.noise_index, key.timestep, (uint64_t)e / 4);
    dc_gaussian_pair(&eps[0], &eps[1], words.w0, words.w1);
    dc_gaussian_pair(&eps[2], &eps[3], words.w2, words.w3);
    return eps[e % 4];
}

/* Any slice, at any alignment of the output, is the same numbers; nothing beside it is touched. */
static void test_slices(dc_backend **backends, int n)
{
    static float buffer[GUARD + LONGEST + GUARD], wanted[LONGEST];
    const dc_noise_key key = {0x0123456789abcdefu, 5, 999};
    for (int f = 0; f < LENGTH(FIRSTS); f++) {
        for (int64_t e = 0; e < LONGEST; e++)
            wanted[e] = element(key, FIRSTS[f] + e);
        for (int c = 0; c < LENGTH(COUNTS); c++) {
            for (int i = 0; i < n; i++) {
                float *eps = buffer + GUARD - (c + f) % 16;
                poison(buffer, LENGTH(buffer));
                backends[i]->noise(backends[i], eps, key, FIRSTS[f], COUNTS[c]);
                CHECK(memcmp(eps, wanted, (size_t)COUNTS[c] * sizeof *eps) == 0);
                CHECK(is_poison(buffer, eps - buffer));
                CHECK(is_poison(eps + COUNTS[c], buffer + LENGTH(buffer) - (eps + COUNTS[c])));
            }
        }
    }
}

/* Version 1 of the file format.  These numbers never change. */
static void test_pins(dc_backend **backends, int n)
{
    const float pins[] = {0x1.074f88p-1f, 0x1.7fb6e4p-2f,  -0x1.427c28p-1f, 0x1.840b52p-1f,
                          0x1.1e8f60p+0f, -0x1.1cd102p+0f, 0x1.f011f4p-1f,  0x1.545076p-1f};
    const dc_noise_key key = {0, 0, 0};
    for (int i = 0; i < n; i++) {
        float eps[LENGTH(pins)];
        backends[i]->noise(backends[i], eps, key, 0, LENGTH(pins));
        CHECK(memcmp(eps, pins, sizeof pins) == 0);
    }
}

/* Every instruction set gives scalar's bits for many keys, the extreme ones among them. */
static void test_keys(dc_backend **backends, int n)
{
    const dc_noise_key keys[] = {
        {0, 0, 0}, {UINT64_MAX, UINT32_MAX, UINT32_MAX}, {1ull << 32, 0, 1}, {42, 1u << 31, 3}};
    static float wanted[LONGEST], got[LONGEST];
    for (int k = 0; k < LENGTH(keys); k++) {
        backends[0]->noise(backends[0], wanted, keys[k], 0, LONGEST);
        CHECK(wanted[LONGEST - 1] == element(keys[k], LONGEST - 1));
        for (int i = 1; i < n; i++) {
            backends[i]->noise(backends[i], got, keys[k], 0, LONGEST);
            CHECK(memcmp(got, wanted, sizeof wanted) == 0);
        }
    }
}

/* Shared out among threads, from an odd element on, and not a multiple of anything. */
static void test_threads(void)
{
    enum { MANY = 3 * DC_PARALLEL_MIN + 5 };
    const dc_noise_key key = {8, 9, 10};
    dc_backend *one = NULL, *three = NULL;
    dc_error err = {0};
    float *wanted = malloc(MANY * sizeof *wanted), *got = malloc((MANY + GUARD) * sizeof *got);
    CHECK(dc_cpu_backend_new(&one, 1, "scalar", &err) == DC_OK && dc_cpu_backend_new(&three, 3, "auto", &err) == DC_OK);
    poison(got, MANY + GUARD);
    one->noise(one, wanted, key, 3, MANY);
    three->noise(three, got, key, 3, MANY);
    CHECK(memcmp(got, wanted, MANY * sizeof *got) == 0 && is_poison(got + MANY, GUARD));
    CHECK(got[MANY - 1] == element(key, 3 + MANY - 1));
    dc_cpu_backend_free(one);
    dc_cpu_backend_free(three);
    free(wanted);
    free(got);
}

/* A row a group, each by its own key; three threads where there is enough to share out. */
static void test_groups(void)
{
    enum { GROUPS = 5, MANY = DC_PARALLEL_MIN / GROUPS + 7 };
    static float wanted[MANY], got[GROUPS * MANY + GUARD];
    dc_group groups[GROUPS];
    dc_backend *three = NULL;
    dc_error err = {0};
    CHECK(dc_cpu_backend_new(&three, 3, "auto", &err) == DC_OK);
    for (int g = 0; g < GROUPS; g++)
        groups[g] = (dc_group){.key = {7, (uint32_t)g, (uint32_t)(3 * g)}, .eps_sign = -1.0f};
    for (int64_t n_elem = 13; n_elem <= MANY; n_elem += MANY - 13) {
        poison(got, LENGTH(got));
        three->noise_of_groups(three, got, groups, GROUPS, n_elem);
        for (int g = 0; g < GROUPS; g++) {
            three->noise(three, wanted, groups[g].key, 0, n_elem);
            CHECK(memcmp(got + g * n_elem, wanted, (size_t)n_elem * sizeof *got) == 0);
        }
        CHECK(is_poison(got + GROUPS * n_elem, GUARD));
    }
    dc_cpu_backend_free(three);
}

/* Against libm in float64, over all ends of both words' ranges and many in between. */
static void test_accuracy(void)
{
    const double pi = 3.14159265358979323846;
    double worst = 0.0, largest = 0.0;
    uint32_t state = 1;
    for (int i = 0; i < 1 << 20; i++) {
        float c, s;
        state = state * 1664525u + 1013904223u;
        uint32_t radius_word = i < 4096 ? (uint32_t)i << 9 : i < 8192 ? ~((uint32_t)i << 9) : state;
        uint32_t angle_word = (uint32_t)i * 2654435761u;
        double u = (2.0 * (radius_word >> 9) + 1.0) * 0x1p-24, radius = sqrt(-2.0 * log(u));
        double turn = (angle_word >> 30) + ((2.0 * ((angle_word >> 7) & 0x7fffff) + 1.0) * 0x1p-24 - 0.5);
        dc_gaussian_pair(&c, &s, radius_word, angle_word);
        worst = fmax(worst, fmax(fabs(c - radius * cos(turn * pi / 2)), fabs(s - radius * sin(turn * pi / 2))));
        largest = fmax(largest, fabs(c));
    }
    CHECK_CLOSE(worst, 0.0, 2e-6);
    CHECK(largest > 5.0 && largest <= 5.77);
}

static void test_refusals(void)
{
    dc_backend *backend = NULL;
    dc_error err = {0};
    CHECK(dc_cpu_backend_new(&backend, 1, "mmx", &err) == DC_ERR_VALUE);
    CHECK(backend == NULL && strstr(err.message, "simd is \"mmx\"") != NULL);
    CHECK(dc_cpu_backend_new(&backend, 0, "auto", &err) == DC_ERR_VALUE);
    CHECK(backend == NULL && strstr(err.message, "n_threads is 0") != NULL);
    dc_cpu_backend_free(NULL);
}

int main(void)
{
    dc_backend *backends[MAX_BACKENDS];
    int n = backends_open(backends, 1);
    test_slices(backends, n);
    test_pins(backends, n);
    test_keys(backends, n);
    test_threads();
    test_groups();
    test_accuracy();
    test_refusals();
    backends_close(backends, n);
    return test_done();
}
